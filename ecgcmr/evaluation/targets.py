"""What a weights folder predicts, and where a cohort holds the truth of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.incident import follow_up_labels, outcomes_of
from ecgcmr.hub.covariates import with_covariates
from ecgcmr.hub.weights import Weights
from ecgcmr.models.heads import ClassHead

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """One thing that is predicted.

    Attributes:
        name: Name in the predictions table.
        kind: `regression`, `binary` or `survival`.
        unit: Unit of the truth; empty for diagnoses.
        description: One sentence.
        columns: Label columns of the cohort: one, or time and event of an outcome.
        outputs: Columns of the head's output: one, or one for each interval of an outcome.
        ends: Ends of those intervals; empty for a Cox head.
        code: For a class of a category: its code.
    """

    name: str
    kind: str
    unit: str = ""
    description: str = ""
    columns: tuple[str, ...] = ()
    outputs: tuple[int, ...] = ()
    ends: tuple[float, ...] = ()
    code: int | None = None

    def truth(self, labels: Array) -> Array:
        """Truth (N,) from the label columns (N, 1 or 2): a value, 0 or 1, or the event."""
        values = labels[:, -1]
        return values if self.code is None else np.where(np.isnan(values), np.nan, (values == self.code) * 1.0)


def find_targets(weights: Weights, cohort: Cohort) -> tuple[list[Target], list[str]]:
    """Match the outputs of a head with the labels of a cohort.

    Returns:
        The targets, and the names of outputs that the cohort has no label for.

    Raises:
        ValueError: When there is no head, no output has a label, or a kind or a unit differs.
    """
    if "head" not in weights.modules:
        raise ValueError(
            f"{weights.folder}: holds {', '.join(weights.modules)} but no head; evaluate fine-tuned weights"
        )
    outputs = weights.config["labels"]
    if all(label["unit"] == "log hazard" for label in outputs) or all(_is_interval(label) for label in outputs):
        return _survival_targets(weights, cohort)
    found, absent = [], []
    category = _category(cohort, [label["name"] for label in outputs]) if _is_class_head(weights) else None
    for k, label in enumerate(outputs):
        name = label["name"]
        if category is not None:
            spec, codes = category
            words = f"{spec.name} is {spec.values[codes[k]]}"
            found.append(Target(name, "binary", "", words, (spec.name,), (k,), code=codes[k]))
        elif name in cohort.label_specs:
            spec = cohort.label_specs[name]
            _check_same(weights, cohort, label, spec)
            found.append(Target(name, spec.kind, spec.unit, spec.description, (name,), (k,)))
        else:
            absent.append(name)
    if not found:
        raise ValueError(
            f"{cohort.path}: has none of the labels that {weights.folder.name} predicts ({', '.join(absent)}); "
            f"it has {', '.join(cohort.label_specs)}"
        )
    return found, absent


def predict_targets(
    weights: Weights, modality: str, embedding: NDArray[np.float32], beside: torch.Tensor | None = None
) -> Array:
    """Outputs (N, K) of the head: units, probabilities, or raw for outcomes with follow-up.

    Args:
        weights: With the head.
        modality: Of the embeddings.
        embedding: (N, D).
        beside: Tabular inputs (N, 2 C) of a head that reads them too, from `tabular_input`.

    Raises:
        ValueError: The head has options that are not known here, or needs tabular inputs.
    """
    head: Any = weights.modules["head"]
    options = set(weights.config.get("head_options") or {}) - {"interval", "tabular"}
    if options - {"double_fc_norm"}:
        raise ValueError(f"{weights.folder}: head_options {sorted(options)} cannot be read here")
    with torch.inference_mode():
        x = torch.from_numpy(embedding)
        if "double_fc_norm" in options and weights.config["head_options"]["double_fc_norm"]:
            encoder: Any = weights.modules[modality]
            x = encoder.fc_norm(x)
        if weights.config.get("head_options", {}).get("tabular"):
            x = with_covariates(weights.modules, x, beside)
        raw = any(label["unit"] == "log hazard" or _is_interval(label) for label in weights.config["labels"])
        out = head(x) if raw else head.predict(x)
    return np.asarray(out.double().numpy())


def _survival_targets(weights: Weights, cohort: Cohort) -> tuple[list[Target], list[str]]:
    names, ends = outcomes_of(weights)
    step = max(1, len(ends))
    found, absent = [], []
    for k, name in enumerate(names):
        if not any(label.startswith(f"{name}_time") for label in cohort.label_specs):
            absent.append(name)
            continue
        time, event = follow_up_labels(cohort, name)
        spec = cohort.label_specs[event]
        columns = tuple(range(k * step, (k + 1) * step))
        unit = cohort.label_specs[time].unit
        found.append(Target(name, "survival", unit, spec.description, (time, event), columns, tuple(ends)))
    if not found:
        raise ValueError(f"{cohort.path}: has the follow-up of none of the outcomes {', '.join(names)}")
    return found, absent


def _is_interval(label: dict[str, str]) -> bool:
    parts = label["name"].rsplit("_", 3)
    return label["kind"] == "binary" and len(parts) == 4 and parts[2] == "to" and _is_number(parts[1], parts[3])


def _is_number(*words: str) -> bool:
    return all(word.replace(".", "", 1).isdigit() for word in words)


def _is_class_head(weights: Weights) -> bool:
    return isinstance(weights.modules["head"], ClassHead)


def _category(cohort: Cohort, classes: list[str]) -> tuple[LabelSpec, list[int]] | None:
    """The category label whose values are the classes, with the code of each class."""
    for spec in cohort.label_specs.values():
        if spec.kind != "category":
            continue
        codes = {f"{prefix}{value}": code for code, value in enumerate(spec.values)
                 for prefix in ("", f"{spec.name}=", f"{spec.name}_")}  # fmt: skip
        if all(name in codes for name in classes):
            return spec, [codes[name] for name in classes]
    return None


def _check_same(weights: Weights, cohort: Cohort, label: dict[str, str], spec: LabelSpec) -> None:
    for what, ours, theirs in (("kind", spec.kind, label["kind"]), ("unit", spec.unit, label["unit"])):
        if ours != theirs:
            raise ValueError(
                f"{cohort.path}: label {spec.name!r} has the {what} {ours!r}, but {weights.folder.name} predicts it "
                f"with the {what} {theirs!r}; give the label of the cohort the same {what}"
            )
