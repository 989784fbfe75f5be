"""Small objectives and batches that the tests of this room share."""

from typing import Any

import torch
from pydantic import TypeAdapter

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives import DataFacts, LabelFact, Objective, ObjectiveOutput, build_objective
from ecgcmr.objectives.registry import ObjectiveConfig

LABELS = (
    LabelFact("LVEDV", "regression", "mL", 150.0, 30.0),
    LabelFact("MI", "binary", prevalence=0.2),
    LabelFact("LVM", "regression", "g", 110.0, 25.0),
)
FACTS = DataFacts(ecg_samples=100, ecg_rate_hz=100.0, cmr_shape=(3, 32, 32), labels=LABELS)
# The same columns of `make_batch` read as a follow-up time and an event.
OUTCOME = (LabelFact("MI_time_years", "time", "years"), LabelFact("MI_event", "event"), LABELS[2])
SURVIVAL_FACTS = DataFacts(ecg_samples=100, ecg_rate_hz=100.0, cmr_shape=(3, 32, 32), labels=OUTCOME)
# And as a category of two values beside a phenotype.
SUBTYPES = (
    LabelFact("type=a", "binary", prevalence=0.2, one_of="type"),
    LabelFact("type=b", "binary", prevalence=0.8, one_of="type"),
    LABELS[2],
)
SUBTYPE_FACTS = DataFacts(ecg_samples=100, ecg_rate_hz=100.0, cmr_shape=(3, 32, 32), labels=SUBTYPES)
_DECODER = {"preset": "nano", "width": 16, "heads": 2}

CASES: dict[str, dict[str, Any]] = {
    "masked": {"name": "masked_ecg", "decoder": _DECODER},
    "masked only": {"name": "masked_ecg", "decoder": _DECODER, "masked_only": True, "norm_pix": True},
    "simclr": {"name": "cmr_simclr"},
    "align": {"name": "clip_align"},
    "align learned": {"name": "clip_align", "learn_temperature": True, "image_weight": 0.7},
    "align dropping tokens": {"name": "clip_align", "token_drop": 0.5},
    "supervised dropping tokens": {"name": "supervised", "token_drop": 0.25},
    "align frozen cmr": {"name": "clip_align", "freeze_cmr": True},
    "supervised ecg": {"name": "supervised", "balance_positives": True},
    "supervised legacy": {"name": "supervised", "legacy_denominator": True, "regression_loss": "huber"},
    "supervised cmr": {"name": "supervised", "modality": "cmr"},
    "probe": {"name": "supervised", "freeze_encoder": True},
    "subtypes": {"name": "supervised", "class_weight": 2.0, "balance_positives": True, "label_smoothing": 0.1},
    "siglip": {"name": "siglip_align"},
    "barlow": {"name": "barlow_align"},
    "vicreg": {"name": "vicreg_align"},
    "soft positives": {"name": "label_align", "width": 1.0, "floor": 0.2},
    "nearest positives": {"name": "label_align", "positives": "nearest", "k": 2, "width": 1.0, "floor": 0.1},
    "similar removed": {"name": "label_align", "positives": "remove", "width": 1.0, "floor": 0.6},
    "cox": {"name": "survival"},
    "discrete hazards": {"name": "survival", "loss": "discrete", "cuts": [120.0, 140.0, 160.0]},
}


def model_config(
    pool: str = "mean", drop_path: float = 0.0, batch_norm: bool = False, image_norm: str | None = None
) -> ModelConfig:
    """A model of some thousand parameters, with a BatchNorm image encoder unless `image_norm` names another."""
    ecg = {"preset": "nano", "width": 16, "depth": 2, "heads": 2, "patch": 25, "pool": pool, "drop_path": drop_path}
    timm_args = {"channels": [8, 8, 16, 16], "stem_width": 8} | ({"norm_layer": image_norm} if image_norm else {})
    cmr = {"name": "resnet10t", "timm_args": timm_args}
    projection = {"hidden": 16, "out": 8, "batch_norm": batch_norm}
    return ModelConfig.model_validate({"ecg": ecg, "cmr": cmr, "projection": projection})


def build(fields: dict[str, Any], model: ModelConfig | None = None, facts: DataFacts | None = None) -> Objective:
    """Build an objective as a run file would, always with the same weights."""
    torch.manual_seed(0)
    of_case = SUBTYPE_FACTS if "class_weight" in fields else FACTS
    facts = facts or (SURVIVAL_FACTS if fields["name"] == "survival" else of_case)
    config = TypeAdapter(ObjectiveConfig).validate_python(fields)
    return build_objective(config, model or model_config(), facts)


def make_batch(rows: int, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch with a missing ECG, a missing study, a repeated subject and missing labels, from 8 rows on."""
    random = torch.Generator().manual_seed(11)
    labels = torch.randn(rows, 3, generator=random, dtype=dtype) * 30 + 140
    labels[:, 1] = (torch.arange(rows) % 3 == 0).to(dtype)
    batch = Batch(
        ecg=torch.randn(rows, 12, 160, generator=random, dtype=dtype),
        cmr=torch.rand(rows, 3, 32, 32, generator=random, dtype=dtype),
        has_ecg=torch.ones(rows, dtype=torch.bool),
        has_cmr=torch.ones(rows, dtype=torch.bool),
        subject=torch.arange(rows) + 100,
        labels=labels,
        label_mask=torch.rand(rows, 3, generator=random) < 0.7,
        group=torch.arange(rows) % 3,
    )
    batch["label_mask"][0] = True
    if rows >= 8:
        batch["has_ecg"][1] = False
        batch["has_cmr"][2] = False
        batch["subject"][5] = batch["subject"][0]  # across the border of two processes
        batch["label_mask"][6] = False
    batch["labels"] = torch.where(batch["label_mask"], batch["labels"], torch.zeros((), dtype=dtype))
    return batch


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def total_loss(objective: Objective, out: ObjectiveOutput) -> torch.Tensor:
    """The loop's total of one process."""
    terms = [
        weight * out.losses[name].sum() / out.valid[name].sum().clamp(min=1)
        for name, weight in objective.loss_weights.items()
    ]
    return torch.stack(terms).sum()
