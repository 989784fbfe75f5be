"""The shapes that are measured, as run files: what is timed is built as a run builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ecgcmr.training.config import RunConfig, check_config

LABELS: Final = ("label_0", "label_1", "label_2", "label_3")
"""Labels of the generated cohort, which the supervised stage learns."""

TRAINED: Final = ("mae", "align", "supervised")
STAGES: Final = (*TRAINED, "embed", "load")

BATCH: Final = {"mae": 32, "align": 16, "supervised": 32, "embed": 64, "load": 64}

_FULL_ECG: Final = {"pipeline": "highpass500", "crop_samples": 2500}
_RESNET50: Final = {"cmr": {"name": "resnet50"}, "projection": {"hidden": 2048, "out": 128}}
_SMALL_CMR: Final = {"name": "resnet10t", "timm_args": {"channels": [16, 32, 64, 128], "stem_width": 8}}


def _of_reference_size(name: str) -> dict[str, Any]:
    """An ECG network at 500 Hz, and the reference's image tower (arXiv 2308.05764)."""
    return {"ecg": _FULL_ECG, "cmr": {"pipeline": "reference_crop"}, "model": {"ecg": {"preset": name}, **_RESNET50}}


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "nano": {
        "ecg": {"pipeline": "highpass", "crop_samples": 250},
        "cmr": {"pipeline": "three_frames"},
        "model": {"ecg": {"preset": "nano"}, "cmr": _SMALL_CMR, "projection": {"hidden": 256, "out": 64}},
    },
    "tiny": {
        "ecg": _FULL_ECG,
        "cmr": {"pipeline": "three_frames"},
        "model": {
            "ecg": {"preset": "tiny"},
            "cmr": {"name": "resnet18"},
            "projection": {"hidden": 512, "out": 128},
        },
    },
    "reference": _of_reference_size("tiny"),
    "small": _of_reference_size("small"),
    "base": _of_reference_size("base"),
}
"""Sizes by name: `reference` is the published model, `tiny` its ECG network with a small image tower."""

_OBJECTIVES: Final[dict[str, dict[str, Any]]] = {
    "mae": {"name": "masked_ecg", "mask_ratio": 0.8, "legacy_len_keep": True, "ecg_augment": "mae"},
    "align": {"name": "clip_align", "ecg_augment": "mmcl", "cmr_augment": "reference"},
    "supervised": {"name": "supervised", "ecg_augment": "finetune"},
}


def check_preset(name: str) -> str:
    """Refuse an unknown preset.

    Raises:
        ValueError: The message lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"--preset is {name!r}; choose one of {', '.join(PRESETS)}")
    return name


def check_stages(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse unknown stages, and none at all.

    Raises:
        ValueError: The message lists those there are.
    """
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise ValueError(f"--stages has {', '.join(unknown) or 'no stage'}; choose among {', '.join(STAGES)}")
    return names


def run_config(preset: str, stage: str, cohort: Path, batch_size: int, labels: tuple[str, ...] = LABELS) -> RunConfig:
    """Give the run whose step is measured.

    Args:
        preset: Name in `PRESETS`.
        stage: One of `TRAINED`; "embed" and "load" take the shapes of the alignment.
        cohort: Folder of the cohort.
        batch_size: Samples of a step.
        labels: Labels of the supervised stage.
    """
    sizes = PRESETS[check_preset(preset)]
    objective = dict(_OBJECTIVES.get(stage, _OBJECTIVES["align"]))
    name = sizes["model"]["ecg"]["preset"]
    if stage == "mae":
        objective["decoder"] = {"preset": name}
    tree = {
        "name": f"bench_{stage}",
        "out": "not_written",
        "data": {
            "cohort": str(cohort),
            "ecg": sizes["ecg"],
            "cmr": sizes["cmr"],
            "labels": list(labels) if stage == "supervised" else [],
        },
        "model": sizes["model"],
        "objective": objective,
        "optim": {"lr": 1e-4},
        "train": {"batch_size": batch_size, "precision": "no"},
    }
    return check_config(tree, f"bench preset {preset}")
