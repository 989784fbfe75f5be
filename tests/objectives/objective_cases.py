"""Small objectives and batches that the tests of this room share."""

from dataclasses import replace
from typing import Any

import torch
from pydantic import TypeAdapter

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.tabular import TabularColumn
from ecgcmr.models.config import CmrEncoderConfig, ModelConfig
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
# Features of `make_batch`: age, two values of sex, treated; each with a distribution of four steps.
TABULAR = (
    TabularColumn(name="age_years", kind="number", unit="years", mean=60.0, std=8.0),
    TabularColumn(name="sex", kind="category", levels=("female", "male")),
    TabularColumn(name="treated", kind="binary"),
)
MARGINALS = ((-1.2, 1.0, 0.0, 0.0), (-0.3, 1.0, 0.0, 0.0), (0.4, 0.0, 1.0, 0.0), (1.1, 0.0, 1.0, 1.0))
SURVIVAL_FACTS = replace(FACTS, labels=OUTCOME)
MEASURED = (LABELS[0], LabelFact("EF", "regression", "%", 140.0, 20.0), LABELS[2])
# What single objectives ask of the data; `make_batch` follows the shape of the studies.
FACTS_OF = {
    "survival": SURVIVAL_FACTS,
    "relational_align": replace(FACTS, labels=MEASURED),
    "temporal_align": replace(FACTS, cmr_shape=(2, 4, 32, 32)),
    "view_align": replace(FACTS, cmr_shape=(2, 3, 32, 32)),
}
CINE = {"name": "cine_transformer", "cine": {"width": 16, "depth": 1, "heads": 2, "stem": 8}}
ENCODER_OF = {"temporal_align": CINE}
# And as a category of two values beside a phenotype.
SUBTYPES = (
    LabelFact("type=a", "binary", prevalence=0.2, one_of="type"),
    LabelFact("type=b", "binary", prevalence=0.8, one_of="type"),
    LABELS[2],
)
SUBTYPE_FACTS = replace(FACTS, labels=SUBTYPES)
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
    "tabular": {"name": "tabular_align", "corruption": 0.4},
    "tabular learned": {"name": "tabular_align", "learn_temperature": True, "cmr_ecg": 0.5, "ecg_tabular": 0.0},
    "supervised with covariates": {"name": "supervised", "covariates": True},
    "cox with covariates": {"name": "survival", "covariates": True},
    "like patterns removed": {"name": "label_align", "positives": "remove", "similarity": "cosine", "floor": 0.9},
    "ntxent": {"name": "ntxent_align"},
    "phenotype weights": {"name": "phenotype_align"},
    "relations": {"name": "relational_align"},
    "relations frozen teacher": {"name": "relational_align", "freeze_cmr": True},
    "two phases": {"name": "phase_align"},
    "two phases shared": {"name": "phase_align", "shared_encoder": True, "ed_es": 0.5},
    "phases of beats": {"name": "temporal_align", "local_weight": 0.5},
    "phases of windows": {"name": "temporal_align", "beat": "window", "bins": 2, "token_drop": 0.25},
    "two views": {"name": "view_align", "first_second": 0.5},
    "two views frozen": {"name": "view_align", "freeze_cmr": True},
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
    """Build an objective as a run file would, always with the same weights; `covariates` adds tabular inputs."""
    torch.manual_seed(0)
    of_case = SUBTYPE_FACTS if "class_weight" in fields else FACTS
    facts = facts or FACTS_OF.get(fields["name"], of_case)
    if fields.get("covariates") or fields["name"] == "tabular_align":
        facts = replace(facts, tabular=TABULAR, tabular_marginals=MARGINALS)
    config = TypeAdapter(ObjectiveConfig).validate_python({k: v for k, v in fields.items() if k != "covariates"})
    model = model or model_config()
    if fields["name"] in ENCODER_OF:
        model = model.model_copy(update={"cmr": CmrEncoderConfig.model_validate(ENCODER_OF[fields["name"]])})
    return build_objective(config, model, facts)


def make_batch(rows: int, dtype: torch.dtype = torch.float32, name: str = "") -> Batch:
    """A batch with a missing ECG, a missing study, a repeated subject and missing labels, from 8 rows on.

    Studies have the shape that the objective of that name is built for.
    """
    shape = FACTS_OF.get(name, FACTS).cmr_shape
    assert shape is not None
    random = torch.Generator().manual_seed(11)
    labels = torch.randn(rows, 3, generator=random, dtype=dtype) * 30 + 140
    labels[:, 1] = (torch.arange(rows) % 3 == 0).to(dtype)
    batch = Batch(
        ecg=torch.randn(rows, 12, 160, generator=random, dtype=dtype),
        cmr=torch.rand(rows, *shape, generator=random, dtype=dtype),
        has_ecg=torch.ones(rows, dtype=torch.bool),
        has_cmr=torch.ones(rows, dtype=torch.bool),
        subject=torch.arange(rows) + 100,
        labels=labels,
        label_mask=torch.rand(rows, 3, generator=random) < 0.7,
        group=torch.arange(rows) % 3,
        tabular=torch.randn(rows, 4, generator=random, dtype=dtype),
        tabular_mask=torch.ones(rows, 4, dtype=torch.bool),
    )
    batch["tabular"][:, 1:3] = torch.eye(2, dtype=dtype)[torch.arange(rows) % 2]
    batch["tabular"][:, 3] = (torch.arange(rows) % 3 == 0).to(dtype)
    batch["label_mask"][0] = True
    if rows >= 8:
        batch["has_ecg"][1] = False
        batch["has_cmr"][2] = False
        batch["subject"][5] = batch["subject"][0]  # across the border of two processes
        batch["label_mask"][6] = False
        batch["tabular_mask"][3] = False
        batch["tabular_mask"][4, 1:3] = False
    batch["tabular"] = torch.where(batch["tabular_mask"], batch["tabular"], torch.zeros((), dtype=dtype))
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
