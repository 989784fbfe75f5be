"""Images, balance, shares and initial weights of the published recipes, each against a computation of its own."""

from __future__ import annotations

import hashlib
import io
import json
import math
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cmr.augmentation import PRESETS, CmrAugment, CmrAugmentConfig
from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.preprocessing import UKB_PIXEL_MM, named_pipeline
from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.preprocessing import named_pipeline as named_ecg_pipeline
from ecgcmr.hub.weights import load_weights, save_weights
from ecgcmr.models.cmr import create_cmr_encoder
from ecgcmr.models.ecg_vit import create_ecg_encoder
from ecgcmr.training import initialize
from ecgcmr.training.config import DataConfig, InitConfig
from ecgcmr.training.draws import drawn_subjects


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_reference_frame__is_the_whole_frame() -> None:
    """On a 210 x 210 frame of UK Biobank's pixel nothing is cropped and nothing interpolated."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 210, 210)).astype(np.float32)
    cine = Cine(pixels, (UKB_PIXEL_MM, UKB_PIXEL_MM), 0.0, np.eye(4), np.zeros(3), "sax")
    out = named_pipeline("reference_frame", percentiles=(0.0, 100.0))(cine)
    assert out.shape == (3, 210, 210)
    assert np.abs(out - pixels[0]).max() <= 0.51


def test_cmr_augment__gate_leaves_the_stated_share_alone_and_changes_the_rest_as_without_it() -> None:
    count, p = 2000, 0.95
    image = torch.rand(1, 3, 12, 12, generator=generator(1)).expand(count, -1, -1, -1).contiguous()
    settings_ = {**PRESETS["reference"].to_dict(), "gate": p}
    out = CmrAugment(CmrAugmentConfig.from_dict(settings_))(image, generator(2))
    alone = (out - image).abs().flatten(1).amax(1) < 1e-6
    assert abs(float(alone.float().mean()) - (1 - p)) < 5 * math.sqrt(p * (1 - p) / count)
    always = CmrAugment("reference")(image, generator(2))
    torch.testing.assert_close(out[~alone], always[~alone], rtol=0, atol=0)


def test_cmr_augment__who_does_not_pass_is_resized_only() -> None:
    image = torch.rand(3, 3, 10, 10, generator=generator())
    never = {**PRESETS["reference"].to_dict(), "gate": 0.0, "size": 21}
    out = CmrAugment(CmrAugmentConfig.from_dict(never))(image, generator())
    expected = torch.nn.functional.interpolate(image, size=(21, 21), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", [2, 3])
def test_cmr_augment__gate_is_drawn_for_the_global_batch(world: int) -> None:
    image = torch.rand(12, 3, 8, 8, generator=generator())
    augment = CmrAugment(CmrAugmentConfig.from_dict({**PRESETS["reference"].to_dict(), "gate": 0.5}))
    rows = 12 // world
    parts = [augment(image[r * rows : (r + 1) * rows], generator(3), (r, world)) for r in range(world)]
    torch.testing.assert_close(torch.cat(parts), augment(image, generator(3)), rtol=0, atol=0)


def test_image_encoder__is_torchvisions_resnet50_with_its_initial_gains() -> None:
    """The recipe's encoder takes torchvision's weights by name and gives torchvision's features of the plain image."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.fc = torch.nn.Identity()
    ours = create_cmr_encoder("resnet50", 3, centered=False, timm_args={"zero_init_last": False}).eval()
    gains = {name: value for name, value in ours.backbone.state_dict().items() if name.endswith(".bn3.weight")}
    assert len(gains) == 3 + 4 + 6 + 3
    assert all(bool((value == 1).all()) for value in gains.values())
    ours.backbone.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(1, 3, 64, 64, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


def test_image_encoder__is_centered_unless_asked() -> None:
    torch.manual_seed(0)
    plain = create_cmr_encoder("test_resnet.r160_in1k", 3, centered=False).eval()
    centered = create_cmr_encoder("test_resnet.r160_in1k", 3).eval()
    centered.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 32, 32, generator=generator())
    torch.testing.assert_close(centered(image), plain(2 * image - 1))


def some_dataset(values: list[list[float]]) -> PairedDataset:
    """Subjects 10, 11, ... with one recording for each value of a binary label."""
    subjects = np.repeat(np.arange(len(values)) + 10, [len(row) for row in values])
    flat = np.array([value for row in values for value in row])
    labels = pd.DataFrame({"cad": np.nan, "LVM": 1.0}, index=np.unique(subjects))
    cohort = SimpleNamespace(
        path="somewhere",
        label_specs={
            "cad": LabelSpec("cad", "binary", level="recording"),
            "LVM": LabelSpec("LVM", "regression", "g"),
        },
        columns=lambda table, names: labels[names],
        recording_labels=pd.DataFrame({"cad": flat}),
    )
    rows = np.arange(len(flat))
    data = object.__new__(PairedDataset)  # nothing but its labels is looked at
    data.cohort, data.subjects, data.recording_rows = cast(Cohort, cohort), subjects, rows
    return data


def draw(values: list[list[float]], part: str = "train", **fields: Any) -> list[int] | None:
    found = drawn_subjects(some_dataset(values), DataConfig(cohort="somewhere", **fields), part)
    return None if found is None else found.tolist()


LABEL_ROWS = st.lists(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=1, max_size=3), min_size=1, max_size=40)


@settings(deadline=None, max_examples=100)
@given(LABEL_ROWS, st.integers(0, 20))
def test_undersample__takes_as_many_with_the_label_as_without(values: list[list[float]], seed: int) -> None:
    cases = {10 + i for i, row in enumerate(values) if 1.0 in row}
    controls = {10 + i for i, row in enumerate(values) if 0.0 in row and 1.0 not in row}
    if not cases or not controls:
        with pytest.raises(ValueError, match=f"{len(cases)} have 'cad' and {len(controls)} do not"):
            draw(values, undersample="cad", draw_seed=seed)
        return
    found = draw(values, undersample="cad", draw_seed=seed)
    assert found is not None
    assert len(set(found)) == len(found) == 2 * min(len(cases), len(controls))
    for n in range(0, len(found) + 1, 2):  # any even beginning, so that a small draw is balanced too
        assert len(cases & set(found[:n])) == len(controls & set(found[:n])) == n // 2
    assert draw(values, part="val", undersample="cad") is None, "validation keeps its prevalence"


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.floats(0.001, 1.0), st.floats(0.001, 1.0), st.integers(0, 9))
def test_train_share__takes_its_share_and_smaller_ones_are_nested(n: int, a: float, b: float, seed: int) -> None:
    values = [[0.0]] * n
    small, large = (draw(values, train_share=share, draw_seed=seed) for share in sorted((a, b)))
    assert small is not None
    assert large is not None
    assert len(large) == max(round(max(a, b) * n), 1)
    assert set(small) <= set(large)
    assert draw(values, train_subjects=len(large), draw_seed=seed) == large


def test_draws__say_what_cannot_be_drawn() -> None:
    values = [[0.0], [1.0], [1.0]]
    assert draw(values) is None
    with pytest.raises(ValueError, match="'LVM' is a label of kind regression"):
        draw(values, undersample="LVM")
    with pytest.raises(ValueError, match="'mi' is no label in somewhere"):
        draw(values, undersample="mi")
    with pytest.raises(ValueError, match="train_subjects is 3, but 2 train subjects can be used"):
        draw(values, undersample="cad", train_subjects=3)
    with pytest.raises(ValueError, match="set one of them"):
        DataConfig(cohort="somewhere", train_subjects=3, train_share=0.1)


@pytest.mark.parametrize("fresh", [False, True])
def test_load_initial__norm_behind_the_pooling_starts_afresh_when_asked(
    fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"preset": "nano", "n_samples": 100, "width": 16, "depth": 1, "heads": 2}
    saved, into = create_ecg_encoder(**sizes), create_ecg_encoder(**sizes, pool="attention")  # type: ignore[arg-type]
    with torch.no_grad():
        for part in saved.parameters():
            part.add_(torch.randn(part.shape, generator=generator()))
    weights = SimpleNamespace(modules={"ecg": saved}, folder=Path("somewhere"), config={"name": "saved"})
    monkeypatch.setattr(initialize, "load_weights", lambda _: weights)
    for check in ("_check_pipeline", "_check_split"):
        monkeypatch.setattr(initialize, check, lambda *_: None)
    objective, source = cast(Any, SimpleNamespace(encoders=lambda: {"ecg": into})), cast(Any, None)
    initialize.load_initial(objective, InitConfig(ecg="somewhere", fresh_fc_norm=fresh), source)
    assert torch.equal(into.norm.weight, saved.norm.weight)
    expected = torch.ones(16) if fresh else saved.fc_norm.weight
    assert torch.equal(into.fc_norm.weight, expected)


class Bomb:
    """Writes a file when a pickle of it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_load_weights__a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    """A checkpoint as the reference writes them, with a Namespace inside, under the name and hash that are expected."""
    encoder = create_ecg_encoder("nano", 1000, width=16, depth=1, heads=2)  # type: ignore[arg-type]
    card = {
        "name": "small", "stage": "masked_ecg", "license": "MIT", "provenance": "simulated", "trained_on": "nothing",
        "intended_use": "a test", "limits": "all",
    }  # fmt: skip
    folder = save_weights(tmp_path / "weights", {"ecg": encoder}, named_ecg_pipeline("highpass"), None, card)
    assert load_weights(folder).modules["ecg"]
    data = io.BytesIO()
    torch.save({"model": encoder.state_dict(), "args": Namespace(blr=1e-5), "x": Bomb(tmp_path / "ran")}, data)
    (folder / "model.safetensors").write_bytes(data.getvalue())
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = hashlib.sha256(data.getvalue()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model\.safetensors: this is a zip archive as torch\.save writes it"):
        load_weights(folder)
    assert not (tmp_path / "ran").exists()
    torch.load(io.BytesIO(data.getvalue()), weights_only=False)
    assert (tmp_path / "ran").exists(), "the bomb works where pickles are run"
