"""Nothing is published without license and provenance, nor with what could name a subject, a machine, or run code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_weights import edit
from torch import nn

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.expected import verify_weights
from ecgcmr.hub.push import plan_push, push
from ecgcmr.hub.scan import scan_folder, scan_text
from ecgcmr.hub.source import FILES
from ecgcmr.hub.weights import load_weights, save_weights

SUBJECT = str(10**6 + 234_567)  # seven digits, put together here because no tracked file may hold them


class FakeHub:
    """Keeps what it is given, as the hub does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.repos: list[tuple[str, bool]] = []
        self.uploads: list[dict[str, bytes]] = []
        self.error = error

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert repo_type == "model"
        assert exist_ok
        self.repos.append((repo_id, private))

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, allow_patterns: list[str], commit_message: str
    ) -> None:
        if self.error is not None:
            raise self.error
        assert (repo_id, False) in self.repos
        assert commit_message == "Weights ecg_only"
        self.uploads.append({name: (Path(folder_path) / name).read_bytes() for name in allow_patterns})


def test_hub_api__is_that_of_the_client() -> None:
    """The fake has the signature of the real one, as far as it is used."""
    import inspect

    from huggingface_hub import HfApi

    for name in ("create_repo", "upload_folder"):
        real = inspect.signature(getattr(HfApi, name)).parameters
        assert set(inspect.signature(getattr(FakeHub, name)).parameters) <= set(real)


def test_push__uploads_the_five_files(ecg_folder: Path, network: list[str]) -> None:
    hub = FakeHub()
    plan = push(ecg_folder, "org/ecg_only", api=hub)
    assert plan.problems == ()
    (upload,) = hub.uploads
    assert upload == {name: (ecg_folder / name).read_bytes() for name in FILES}
    assert [name for name, _, _ in plan.files] == list(FILES)
    assert network == []


def test_plan_push__sends_nothing_and_lists_everything(ecg_folder: Path, network: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in ecg_folder.iterdir()}
    (ecg_folder / "notes.txt").write_text(f"subject {SUBJECT}")
    plan = plan_push(ecg_folder, "org/name", approval="x")
    assert plan.repo == "org/name"
    assert sum(size for _, size, _ in plan.files) == sum(map(len, before.values()))
    assert plan.left_out == ("notes.txt",)
    assert plan.problems == ("notes.txt, line 1: a number of seven digits, which may be that of a subject",)
    assert {name: (ecg_folder / name).read_bytes() for name in FILES} == before
    assert network == []


@pytest.mark.parametrize(
    "provenance", ["participant-derived: UK Biobank", "ptbxl", "simulated + participant-derived: x"]
)
def test_push__data_of_study_members_need_an_approval(ecg_folder: Path, provenance: str) -> None:
    edit(ecg_folder / "config.json", provenance=provenance)
    hub = FakeHub()
    with pytest.raises(ValueError, match=r"not simulated or public.*give --approval REFERENCE"):
        push(ecg_folder, "org/name", api=hub)
    for empty in (" ", "none", "TBD"):
        with pytest.raises(ValueError, match="give --approval"):
            push(ecg_folder, "org/name", approval=empty, api=hub)
    assert hub.repos == []
    push(ecg_folder, "org/name", approval="access committee 2026/11", api=hub)
    (upload,) = hub.uploads
    assert json.loads(upload["config.json"])["approval"] == "access committee 2026/11"
    assert b"- Approval for publishing: access committee 2026/11" in upload["README.md"]
    assert load_weights(ecg_folder).card.approval == "access committee 2026/11"
    verify_weights(ecg_folder)
    push(ecg_folder, "org/name", api=hub)  # the card has it now
    assert len(hub.uploads) == 2


@pytest.mark.parametrize(("field", "value"), [("license", "not stated"), ("provenance", "unknown")])
def test_push__what_the_card_does_not_state_is_asked_for(ecg_folder: Path, field: str, value: str) -> None:
    edit(ecg_folder / "config.json", **{field: value})
    hub = FakeHub()
    with pytest.raises(ValueError, match=f"the {field} .*{value}"):
        push(ecg_folder, "org/name", approval="committee 1", api=hub)
    assert hub.uploads == []


def test_push__an_approval_that_names_a_subject_is_refused(ecg_folder: Path) -> None:
    with pytest.raises(ValueError, match="the approval, line 1: a number of seven digits"):
        push(ecg_folder, "org/name", approval=f"mail about {SUBJECT}", api=FakeHub())
    assert "approval" not in (ecg_folder / "README.md").read_text().lower()


def test_push__a_folder_that_does_not_verify_stays_here(ecg_folder: Path) -> None:
    expected = json.loads((ecg_folder / "expected.json").read_text())
    expected["embeddings"]["ecg"][0] += 5
    (ecg_folder / "expected.json").write_text(json.dumps(expected))
    with pytest.raises(ValueError, match="relative error ecg"):
        push(ecg_folder, "org/name", api=FakeHub())


@pytest.mark.parametrize("to", ["name", "org/name@main", "a/b/c", ""])
def test_push__address(ecg_folder: Path, to: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*ORG/NAME"):
        push(ecg_folder, to, api=FakeHub())


def test_push__the_hub_says_no(ecg_folder: Path) -> None:
    with pytest.raises(ConnectionError, match=r"org/name: not uploaded \(RuntimeError: 403\); are you logged in"):
        push(ecg_folder, "org/name", api=FakeHub(RuntimeError("403")))


@pytest.mark.parametrize(
    "text",
    [SUBJECT, f'"n": {SUBJECT},', f"ecg_{SUBJECT}_20205.xml", f"a{SUBJECT}b", f"-{SUBJECT}", f"{SUBJECT}."],
)
def test_scan_text__seven_digits_in_any_dress(text: str) -> None:
    (finding,) = scan_text(f"first\n{text}", "README.md")
    assert finding.startswith("README.md, line 2: a number of seven digits")
    assert SUBJECT not in finding


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: "." in repr(x)))
@settings(deadline=None, max_examples=50)
def test_scan_text__decimals_are_no_subjects(value: float) -> None:
    assert scan_text(json.dumps([value, value]), "expected.json") == []


@pytest.mark.parametrize(
    "text", ["0957fd18373f6580cb913c89", "10.5281/zenodo." + SUBJECT, "20261128", "12 leads at 500 Hz", "1,234,567"]
)
def test_scan_text__harmless_numbers(text: str) -> None:
    assert scan_text(text, "x") == []


@pytest.mark.parametrize(
    "text",
    [
        "--out /data/ukb/runs",
        '"path": "/home/me"',
        "(/mnt/x/y.npy)",
        "C:\\Users\\me",
        '"D:\\\\cohort"',
        "file:///x",
        "/tmp",
    ],
)
def test_scan_text__absolute_paths(text: str) -> None:
    (finding,) = scan_text(text, "x")
    assert "absolute path" in finding


@pytest.mark.parametrize(
    "text", ["runs/demo/weights", "https://hub.org/a/b", "ECG/CMR", "ml/min and 1/2", "configs/a.yaml", "- / -", "N/A"]
)
def test_scan_text__what_is_no_path_of_a_machine(text: str) -> None:
    assert scan_text(text, "x") == []


def test_scan_folder__pickles_links_and_names(ecg_folder: Path, tmp_path: Path) -> None:
    assert scan_folder(ecg_folder) == []
    torch.save({"a": torch.zeros(1)}, ecg_folder / "extra.safetensors")
    (ecg_folder / "raw.dat").write_bytes(pickle.dumps({"a": 1}))
    (ecg_folder / "array.npy").write_bytes(b"\x93NUMPY")
    (ecg_folder / f"plot_{SUBJECT}.png").write_bytes(b"\x89PNG")
    (ecg_folder / "link.txt").symlink_to(tmp_path)
    (ecg_folder / "sub").mkdir()
    (ecg_folder / "sub" / "log.txt").write_text(f"\n{SUBJECT}")
    found = " / ".join(scan_folder(ecg_folder))
    for part in (
        "extra.safetensors: a pickle", "raw.dat: a pickle", "array.npy: a file of a kind that can hold pickles",
        "a number of seven digits", "link.txt: a link", "sub/log.txt, line 2",
    ):  # fmt: skip
        assert part in found
    assert len(scan_folder(ecg_folder)) == 6


def test_scan_folder__looks_into_tensors(ecg_folder: Path) -> None:
    tensors = load_file(ecg_folder / "model.safetensors")
    more: dict[str, Any] = {
        "head.order": torch.tensor([3, int(SUBJECT)]),
        "head.num_batches_tracked": torch.tensor(int(SUBJECT)),  # a counter
        f"head.s{SUBJECT}": torch.zeros(1),
    }
    save_file({**tensors, **more}, ecg_folder / "model.safetensors", metadata={"made_by": "/home/me/run"})
    found = scan_folder(ecg_folder)
    assert len(found) == 3
    assert any("tensor head.order: whole numbers of seven digits" in finding for finding in found)
    assert any("(names and notes)" in finding and "seven digits" in finding for finding in found)
    assert any("(names and notes)" in finding and "absolute path" in finding for finding in found)


def test_push__a_command_with_a_path_of_this_machine_is_found(modules: dict[str, nn.Module], tmp_path: Path) -> None:
    card = {"name": "ecg_only", "stage": "b", "license": "MIT", "provenance": "simulated", "trained_on": "c"}
    folder = save_weights(
        tmp_path / "w", {"ecg": modules["ecg"]}, named_pipeline("highpass"), None,
        {**card, "command": "ecgcmr pretrain --out /scratch/me/run"},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"(?s)README\.md, line .*absolute path.*config\.json, line .*absolute path"):
        push(folder, "org/name", api=FakeHub())
