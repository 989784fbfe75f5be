"""Folders of the Hugging Face hub: from its cache where that suffices, over the network otherwise."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?")


def hub_folder(address: str, names: Sequence[str]) -> Path:
    """Give the local copy of a repository of the hub, and download it first if needed.

    Only the files of a weights folder are fetched, whatever else the repository holds. Their content is checked when
    they are loaded: config.json has the hash of the tensors.

    Args:
        address: ORG/NAME or ORG/NAME@REVISION: a branch, a tag or a commit.
        names: The files to fetch.

    Returns:
        The snapshot in the cache of the hub's client (HF_HUB_CACHE, HF_HOME).

    Raises:
        ValueError: If the address is none, or the revision does not exist.
        FileNotFoundError: If the repository is not in the cache and cannot be fetched; says why and what to do.
    """
    repo, revision = split_address(address)
    # Imported here: the client opens network code, which folders and names must never need.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    def fetch(cached: bool) -> Path:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(names), local_files_only=cached))

    if revision and _COMMIT.fullmatch(revision):  # a commit never changes: a copy in the cache need not be asked for
        with suppress(LocalEntryNotFoundError):
            return fetch(cached=True)
    try:
        return fetch(cached=False)
    except RevisionNotFoundError as error:
        raise ValueError(f"hf-hub:{address}: {repo} has no revision {revision!r}; see its list of commits") from error
    except Exception as error:  # each client version and proxy has errors of its own; all mean: not fetched
        reason = error
    try:
        folder = fetch(cached=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise FileNotFoundError(
            f"hf-hub:{address}: not in the cache, and it could not be fetched ({_brief(reason)}). Without a network: "
            f"on a machine that has one, `hf download {repo}`, copy the folder here and load local-dir:PATH; for a "
            "private repository, log in with the hub's client"
        ) from reason
    log.warning("hf-hub:%s: the hub could not be asked (%s); the copy in the cache is used", address, _brief(reason))
    return folder


def split_address(address: str) -> tuple[str, str | None]:
    """Split ORG/NAME@REVISION.

    Raises:
        ValueError: If it is not of this form.
    """
    match = _ADDRESS.fullmatch(address.strip())
    if match is None or ".." in address:
        raise ValueError(f"hf-hub:{address}: expected hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION")
    return match["repo"], match["revision"]


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
