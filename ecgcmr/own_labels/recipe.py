"""The recipe of the run: the model as it was saved, its own preparation and input, and settings by method and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.ecg.preprocessing import NAMED_PIPELINES, named_pipeline
from ecgcmr.hub.folder import write_text
from ecgcmr.hub.weights import Weights, load_weights
from ecgcmr.models.config import EcgEncoderConfig
from ecgcmr.own_labels.parts import SPLIT
from ecgcmr.own_labels.request import FinetuneRequest, run_name

STEPS, MIN_EPOCHS, MAX_EPOCHS = 700, 10, 60
_BATCH = {"supervised": 32, "survival": 128}
_HEAD_HIDDEN = 256
# Rates of the encoder of `full` fall from layer to layer (arXiv 2106.08254); a head alone learns with a larger one.
_LR = {"full": 5e-4, "lp-ft": 3e-4, "linear": 1e-2, "attention": 1e-3, "mlp": 1e-3}
_UNMATCHED_CMR = ("cmr", "cmr_projection")


@dataclass(frozen=True)
class Start:
    """Weights to start from, checked to be of use.

    Attributes:
        source: What the user wrote.
        weights: The loaded weights, without a CMR encoder.
        model: Fields of `EcgEncoderConfig`, but for the input length.
        crop_samples: Input length [samples], None where it is all that the pipeline gives.
    """

    source: str
    weights: Weights
    model: dict[str, Any]
    crop_samples: int | None

    @property
    def needs_mv(self) -> bool:
        """Whether it reads ECGs in mV only."""
        assert self.weights.ecg_pipeline is not None, "checked by open_start"
        return self.weights.ecg_pipeline.requires_mv


def open_start(source: str) -> Start:
    """Load the weights to start from.

    Raises:
        FileNotFoundError, ValueError: As `load_weights`; or they hold no ECG transformer that a run can train, or were
            prepared by a pipeline that a run file cannot name.
    """
    weights = load_weights(source, leave_out=_UNMATCHED_CMR)
    config, pipeline = weights.config["modules"].get("ecg"), weights.ecg_pipeline
    if config is None or pipeline is None:
        raise ValueError(f"--model {source}: holds {', '.join(weights.config['modules'])}, no ECG encoder")
    if config.get("kind") != "ecg_vit":
        raise ValueError(
            f"--model {source}: its ECG encoder is of kind {config.get('kind')!r}, and runs train 'ecg_vit'; embed "
            "with it (ecgcmr embed) and fit a probe on the embeddings"
        )
    named = pipeline.name in NAMED_PIPELINES and named_pipeline(pipeline.name).fingerprint() == pipeline.fingerprint()
    if not named:
        raise ValueError(
            f"--model {source}: it was prepared by the pipeline {pipeline.name!r} with settings of its own, which a "
            f"run file cannot name; there are {', '.join(NAMED_PIPELINES)}"
        )
    model = {name: config[name] for name in EcgEncoderConfig.model_fields if name in config and name != "n_samples"}
    length = int(config["n_samples"])
    return Start(source, weights, model, length if length != pipeline.n_samples else None)


def make_recipe(
    request: FinetuneRequest, start: Start, cohort: Path, labels: Sequence[LabelSpec], sizes: tuple[int, str]
) -> dict[str, Any]:
    """Give the run file as plain values.

    Args:
        request: Task, method and seed.
        start: The weights.
        cohort: The labelled cohort.
        labels: What is learned.
        sizes: Recordings to train on, and the validation value that decides.
    """
    n_train, monitor = sizes
    objective = "survival" if any(spec.kind in ("time", "event") for spec in labels) else "supervised"
    batch = max(min(_BATCH[objective], n_train // 2), 1)
    steps_per_epoch = max(n_train // batch, 1)
    epochs = min(max(math.ceil(STEPS / steps_per_epoch), MIN_EPOCHS), MAX_EPOCHS)
    method = request.method
    frozen = method in ("linear", "attention", "mlp")
    model: dict[str, Any] = {"ecg": dict(start.model)}
    if method == "attention":
        model["ecg"]["pool"] = "query"
    if method == "mlp":
        model["head"] = {"hidden": _HEAD_HIDDEN}
    pipeline = start.weights.ecg_pipeline
    assert pipeline is not None, "checked by open_start"
    recipe: dict[str, Any] = {
        "name": run_name(request.out),
        "seed": request.seed,
        "out": str(request.out / "run"),
        "data": {
            "cohort": str(cohort),
            "split": SPLIT,
            "ecg": {"pipeline": pipeline.name, "crop_samples": start.crop_samples},
            "labels": [spec.name for spec in labels],
        },
        "model": model,
        "objective": {
            "name": objective,
            "modality": "ecg",
            "freeze_encoder": frozen,
            # Voltage tells about the heart's size; where it is lost already, strong scaling costs nothing.
            "ecg_augment": "light" if start.needs_mv else "finetune",
        },
        "init": {"ecg": start.source},
        "optim": {
            "name": "adamw",
            "lr": _LR[method],
            "betas": [0.9, 0.999],
            "weight_decay": 0.0 if method == "linear" else 0.05,
            "warmup_epochs": min(2.0, epochs / 5),
            "layer_decay": 1.0 if frozen else 0.75,
        },
        "train": {
            "epochs": epochs,
            "batch_size": batch,
            "monitor": monitor,
            "mode": "min" if monitor == "loss" else "max",
            "patience": max(epochs // 3, 5),
        },
    }
    if method == "lp-ft":
        recipe["probe"] = {"epochs": max(epochs // 2, 5), "lr": _LR["linear"]}
    return recipe


def write_recipe(recipe: dict[str, Any], path: Path) -> Path:
    """Write the run file, for `load_config` and for whoever wants to run it on more processes."""
    head = (
        "# The run of `ecgcmr finetune`; the same on several processes or with other settings:\n"
        f"#   accelerate launch scripts/finetune.py --config {path} out=runs/again\n"
    )
    write_text(path, head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return path
