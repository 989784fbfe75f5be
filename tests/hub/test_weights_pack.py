"""A release folder is made of modules that belong together, says where they come from, and is whole or absent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.hub import folder as folder_module
from ecgcmr.hub.expected import synthetic_recording, verify_weights
from ecgcmr.hub.model import load_model
from ecgcmr.hub.pack import pack, read_card_file
from ecgcmr.hub.source import FILES
from ecgcmr.hub.weights import load_weights, save_weights
from ecgcmr.models.build import build_module

RUN = {"cohort": "demo", "split": "default", "split_sha256": "ab" * 8, "seed": 0}
CARD: dict[str, Any] = {"license": "MIT", "provenance": "simulated", "trained_on": "24 subjects", "run": RUN}
LABELS = [{"name": "LVM", "kind": "regression", "unit": "g"}]


def write(folder: Path, modules: dict[str, nn.Module], pipeline: str = "highpass", **card: Any) -> Path:
    fields = {"name": folder.parent.name, "stage": "supervised", **CARD, **card}
    cmr = cmr_pipeline("three_frames", size=32) if "cmr" in modules else None
    return save_weights(folder, modules, ecg_pipeline(pipeline), cmr, fields)


@pytest.fixture
def runs(modules: dict[str, nn.Module], tmp_path: Path) -> dict[str, Path]:
    """Run folders: an alignment, a head on its frozen encoder, a fine-tuning of it."""
    align = {name: modules[name] for name in ("ecg", "cmr", "ecg_projection", "cmr_projection")}
    torch.manual_seed(1)
    head = build_module({"kind": "prediction_head", "in_features": 32, "labels": LABELS})
    tuned = build_module(dict(modules["ecg"].config))  # type: ignore[arg-type]
    tuned.load_state_dict(modules["ecg"].state_dict())
    with torch.no_grad():
        tuned.blocks[0].mlp.fc2.bias[3] += 1e-6  # type: ignore[union-attr,index]
    found = {}
    for name, parts, stage in (
        ("align", align, "clip_align"),
        ("frozen", {"ecg": modules["ecg"], "head": head}, "supervised"),
        ("tuned", {"ecg": tuned, "head": head}, "supervised"),
    ):
        found[name] = tmp_path / "runs" / name
        write(found[name] / "weights", parts, stage=stage, metrics={f"{name} loss": 0.5})
    return found


def test_pack__a_head_joins_the_encoder_it_was_trained_on(runs: dict[str, Path], tmp_path: Path) -> None:
    chosen = ["ecg", "ecg_projection", "head"]
    done = pack([runs["align"], runs["frozen"]], tmp_path / "ecg_tiny", chosen)
    assert {name: path.parent.name for name, path in done.taken.items()} == {
        "ecg": "align", "ecg_projection": "align", "head": "frozen",
    }  # fmt: skip
    assert done.left_out == ("cmr", "cmr_projection")
    assert done.unsaid == ("command",)
    weights = load_weights(done.folder)
    assert list(weights.modules) == chosen
    card = weights.card
    assert (card.name, card.stage) == ("ecg_tiny", "clip_align")
    assert {key: card.run[key] for key in RUN} == RUN
    assert [text.split()[0] for text in card.run["packed_from"]] == ["align", "frozen"]
    assert [metric.name for metric in card.metrics] == ["align loss", "frozen loss"]
    assert weights.cmr_pipeline is None
    verify_weights(done.folder)
    packed, source = (
        load_model(folder).predict(synthetic_recording()) for folder in (done.folder, runs["frozen"] / "weights")
    )
    assert packed["LVM"][0] == source["LVM"][0]


def test_pack__everything_in_half_precision(runs: dict[str, Path], tmp_path: Path) -> None:
    done = pack([runs["align"], runs["frozen"]], tmp_path / "all", dtype="float16")
    assert set(done.taken) == {"ecg", "cmr", "ecg_projection", "cmr_projection", "head"}
    assert done.left_out == ()
    assert load_weights(done.folder).config["storage"]["dtype"] == "float16"
    verify_weights(done.folder)


def test_pack__a_head_of_another_encoder_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    """One bias that moved by a millionth is another encoder."""
    with pytest.raises(
        ValueError, match=r"'ecg' of .*tuned.* is not that of .*align.*1 tensors differ \(blocks\.0\.mlp"
    ):
        pack([runs["align"], runs["tuned"]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pack__settings_and_preprocessing_must_agree(
    runs: dict[str, Path], modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    dropping = build_module({**modules["ecg"].config, "drop_path": 0.1})  # type: ignore[dict-item]
    dropping.load_state_dict(modules["ecg"].state_dict())
    same = write(tmp_path / "a" / "weights", {"ecg": dropping})
    assert set(pack([same, runs["frozen"]], tmp_path / "out").taken) == {"ecg", "head"}
    attention = build_module({**modules["ecg"].config, "pool": "cls"})  # type: ignore[dict-item]
    state = {key: value for key, value in modules["ecg"].state_dict().items() if not key.startswith("fc_norm")}
    attention.load_state_dict(state)
    pooled = write(tmp_path / "b" / "weights", {"ecg": attention})
    with pytest.raises(ValueError, match="settings differ: pool"):
        pack([pooled, runs["frozen"]], tmp_path / "out2")
    other = write(tmp_path / "c" / "weights", {"ecg": modules["ecg"]}, pipeline="highpass_z")
    with pytest.raises(ValueError, match="prepare the input of 'ecg' differently"):
        pack([other, runs["frozen"]], tmp_path / "out2")


def test_pack__sources_split_differently_are_refused(
    runs: dict[str, Path], modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    leak = write(tmp_path / "leak" / "weights", {"ecg": modules["ecg"]}, run={**RUN, "split_sha256": "cd" * 8})
    with pytest.raises(ValueError, match="different splits of the cohort 'demo'"):
        pack([runs["frozen"], leak], tmp_path / "out")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            ["ecg", "ecg_decoder"],
            "no source holds ecg_decoder together with its encoder: .*align/weights holds ecg, cmr",
        ),
        (["ecg_projection"], "ecg_projection: of no use without ecg"),
        (["ecg", "cmr_projection"], "cmr_projection: of no use without cmr"),
        (["ecg", "rubbish"], "no source holds rubbish"),
    ],
)
def test_pack__modules_that_cannot_be_had(
    runs: dict[str, Path], tmp_path: Path, chosen: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pack([runs["align"]], tmp_path / "out", chosen)


def test_pack__the_card_says_no_less_than_the_sources(
    runs: dict[str, Path], modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    study = write(
        tmp_path / "s" / "weights", {"ecg": modules["ecg"]}, provenance="participant-derived: a biobank", run={}
    )
    with pytest.raises(ValueError, match="the sources differ in provenance"):
        pack([study, runs["frozen"]], tmp_path / "out")
    for provenance in ("simulated", "simulated + public: PTB-XL", "open data"):
        with pytest.raises(ValueError, match="leaves out participant-derived, which a source has"):
            pack([study], tmp_path / "out", card={"provenance": provenance})
    both = {"provenance": "simulated + participant-derived: a biobank"}
    assert (
        load_weights(pack([study, runs["frozen"]], tmp_path / "out", card=both).folder).card.provenance
        == both["provenance"]
    )
    with pytest.raises(ValueError, match="`run` is what the runs say"):
        pack([runs["frozen"]], tmp_path / "out", card={"run": {"cohort": "other"}})
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([], tmp_path / "out")


def test_pack__card_file_stands_in_the_page_and_in_the_config(runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(
        "license: CC-BY-4.0\ncommand: ecgcmr pretrain configs/x.yaml\nlimits: Simulation only.\nmetrics:\n"
        "  - {name: R² of LVM, value: 0.54, lo: 0.47, hi: 0.59, n: 800, where: held-out simulated subjects, "
        "note: ridge}\n"
    )
    folder = pack([runs["frozen"]], tmp_path / "out", card=read_card_file(file)).folder
    page = (folder / "README.md").read_text()
    assert "license: cc-by-4.0" in page
    assert "| R² of LVM | 0.54 | 0.47 to 0.59 | 800 | held-out simulated subjects | ridge |" in page
    assert "```\necgcmr pretrain configs/x.yaml\n```" in page
    assert "Simulation only." in page
    (metric,) = load_weights(folder).card.metrics
    assert (metric.lo, metric.hi, metric.n) == (0.47, 0.59, 800)
    as_json = tmp_path / "card.json"
    as_json.write_text(json.dumps({"license": "MIT"}))
    assert read_card_file(as_json) == {"license": "MIT"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("licence: MIT", "no field of a card: licence; fields are name, stage, license"),
        ("run: {}", "no field of a card: run"),
        ("[1, 2]", "expected fields of a card, found list"),
        ("a: [", "neither YAML nor JSON"),
        ("!!python/object/apply:os.getcwd []", "neither YAML nor JSON"),
    ],
)
def test_read_card_file__what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_card_file(file)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_card_file(tmp_path / "none.yaml")


def test_pack__never_replaces_a_folder_of_other_things(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match=r"holds thesis\.tex, which would be lost"):
        pack([runs["frozen"]], out)
    assert (out / "thesis.tex").read_text() == "years"
    with pytest.raises(ValueError, match="is a file"):
        pack([runs["frozen"]], out / "thesis.tex")


@pytest.mark.parametrize("at", range(1, 6))
def test_pack__interrupted_leaves_nothing(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    place, real, written = tmp_path / "place", folder_module.write_synced, []

    def interrupted(path: Path, data: bytes) -> None:
        written.append(path.name)
        if len(written) == at:
            real(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(folder_module, "write_synced", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack([runs["frozen"]], place / "new")
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_pack__killed_keeps_the_old_folder_and_the_next_pack_cleans_up(runs: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "place"
    pack([runs["align"]], place / "w", ["ecg"])
    program = (
        "import os, signal, sys\nfrom ecgcmr.hub import folder\nfrom ecgcmr.hub.pack import pack\n"
        "real = folder.write_synced\n"
        "def deadly(path, data):\n"
        "    real(path, data[:1000])\n"
        "    if path.name == 'model.safetensors': os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder.write_synced = deadly\n"
        "pack([sys.argv[1]], sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(runs["frozen"]), str(place / "w")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert set(load_weights(place / "w").modules) == {"ecg"}  # the old one, whole
    verify_weights(place / "w")
    pack([runs["frozen"]], place / "w")
    assert [path.name for path in place.iterdir()] == ["w"]
    assert sorted(path.name for path in (place / "w").iterdir()) == list(FILES)
    assert set(load_weights(place / "w").modules) == {"ecg", "head"}
