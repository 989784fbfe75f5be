"""Publish a weights folder on the Hugging Face hub, if its card, its provenance and its content allow it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ecgcmr.hub.card import PROVENANCE_KINDS, Card, is_stated, needs_approval
from ecgcmr.hub.card_page import add_approval
from ecgcmr.hub.download import split_address
from ecgcmr.hub.folder import check_replaceable, write_folder
from ecgcmr.hub.reading import read_json
from ecgcmr.hub.scan import scan_folder, scan_text
from ecgcmr.hub.source import FILES, resolve_source


class HubApi(Protocol):
    """The two calls of `huggingface_hub.HfApi` that publishing needs."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any:
        """Make the repository, unless it is there."""

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, allow_patterns: list[str], commit_message: str
    ) -> Any:
        """Upload the files as one commit."""


@dataclass(frozen=True)
class PushPlan:
    """What would be, or was, published.

    Attributes:
        repo: ORG/NAME.
        folder: What is uploaded.
        files: Name, size [bytes] and sha256 of each file.
        left_out: Files in the folder that are not part of a weights folder and are not uploaded.
        problems: Why it must not be published; empty if it may.
    """

    repo: str
    folder: Path
    files: tuple[tuple[str, int, str], ...]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]


def plan_push(source: str | Path, to: str, approval: str = "") -> PushPlan:
    """Look at a weights folder as `push` would, and change nothing.

    Args:
        source: A local weights folder, or a name of one.
        to: ORG/NAME.
        approval: As in `push`.

    Raises:
        FileNotFoundError, ValueError: If the folder does not load and verify, or `to` is no address.
    """
    from ecgcmr.hub.expected import verify_weights
    from ecgcmr.hub.weights import load_weights

    repo, revision = split_address(to)
    if revision:
        raise ValueError(f"--to {to}: expected ORG/NAME without a revision")
    folder = resolve_source(source)
    verify_weights(folder)
    card = load_weights(folder).card
    files = tuple((name, (folder / name).stat().st_size, _sha256(folder / name)) for name in FILES)
    others = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    problems = [*_unsaid(card, approval), *scan_text(approval, "the approval"), *scan_folder(folder)]
    return PushPlan(repo, folder, files, tuple(name for name in others if name not in FILES), tuple(problems))


def push(source: str | Path, to: str, approval: str = "", private: bool = False, api: HubApi | None = None) -> PushPlan:
    """Publish a weights folder.

    Args:
        source: A local weights folder, or a name of one.
        to: ORG/NAME; the repository is made if it is not there.
        approval: Reference of the approval, needed where the training data are not simulated or public. It is written
            into config.json and README.md of the folder before the upload.
        private: Whether a new repository is private.
        api: What talks to the hub; None for `huggingface_hub.HfApi()`, with the login of its client.

    Returns:
        What was published.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If it does not verify, or must not be published; lists all reasons.
        ConnectionError: If the hub refuses or cannot be reached.
    """
    plan = plan_push(source, to, approval)
    if plan.problems:
        raise ValueError(f"{plan.folder} is not published:\n- " + "\n- ".join(plan.problems))
    if approval:
        _write_approval(plan.folder, approval)
        plan = plan_push(plan.folder, to)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(plan.repo, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=plan.repo,
            repo_type="model",
            folder_path=str(plan.folder),
            allow_patterns=list(FILES),
            commit_message=f"Weights {Card.from_config(read_json(plan.folder / 'config.json')).name}",
        )
    except Exception as error:  # the client has many kinds; all mean that the hub did not take it
        raise ConnectionError(
            f"{plan.repo}: not uploaded ({type(error).__name__}: {error}); are you logged in?"
        ) from error
    return plan


def _unsaid(card: Card, approval: str) -> list[str]:
    problems = []
    if not is_stated(card.license):
        problems.append(f"the license of the weights is {card.license!r}: state one (ecgcmr weights pack --card)")
    if not is_stated(card.provenance):
        problems.append(f"the provenance is {card.provenance!r}: state it (ecgcmr weights pack --card)")
    elif needs_approval(card.provenance) and not is_stated(approval or card.approval):
        problems.append(
            f"the provenance {card.provenance!r} is not {' or '.join(PROVENANCE_KINDS[:2])}: weights from data of "
            "study members are derived data, which their owner must let go; give --approval REFERENCE"
        )
    return problems


def _write_approval(folder: Path, approval: str) -> None:
    from ecgcmr.hub.migrate import migrate
    from ecgcmr.hub.weights import to_json

    parts = {name: (folder / name).read_bytes() for name in FILES}
    config = migrate(read_json(folder / "config.json"), folder / "config.json")
    parts["config.json"] = to_json({**config, "approval": approval})
    parts["README.md"] = add_approval(parts["README.md"].decode(), approval).encode()
    check_replaceable(folder, FILES)
    write_folder(folder, parts, if_full="free space and publish again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
