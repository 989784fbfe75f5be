"""What an objective must know about the data, measured on the training subjects before anything is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ecgcmr.cohort.tabular import TabularColumn
from ecgcmr.models.config import LabelKind

FactKind = LabelKind | Literal["time", "event"]


@dataclass(frozen=True)
class LabelFact:
    """One label and its statistics over the training subjects with an observed value.

    Attributes:
        name: Label name; labels stand in this order in `Batch.labels`.
        kind: "regression" or "binary"; "time" and "event" for the two labels of an outcome with follow-up.
        unit: Unit of the label, for instance "mL"; empty for a binary label.
        mean: Mean [unit]; not used for a binary label.
        std: Standard deviation [unit], above 0 for a regression label.
        prevalence: Share of positives of a binary or event label, in [0, 1].
        one_of: The category that a binary label is a value of; its values exclude each other. Empty for others.
    """

    name: str
    kind: FactKind
    unit: str = ""
    mean: float = 0.0
    std: float = 1.0
    prevalence: float | None = None
    one_of: str = ""

    def __post_init__(self) -> None:
        if self.kind == "regression" and not self.std > 0:
            raise ValueError(
                f"label {self.name!r}: std over the training subjects is {self.std}, it must be above 0; "
                "the label is constant or has one observed value: remove it or use more subjects"
            )
        if self.kind == "binary" and self.prevalence is not None and not 0 <= self.prevalence <= 1:
            raise ValueError(f"label {self.name!r}: prevalence is {self.prevalence}, it must lie in [0, 1]")


@dataclass(frozen=True)
class DataFacts:
    """Shapes and statistics of the data that a run trains on.

    Attributes:
        ecg_samples: Input length of the ECG model [samples], after the crop.
        ecg_rate_hz: Sampling rate of the prepared ECG [Hz].
        cmr_shape: (C, H, W) or (V, F, H, W) of one prepared study; None when the run has no CMR.
        labels: Labels in the order of `Batch.labels`.
        tabular: Columns that are inputs, in the order of the features of `Batch.tabular`.
        tabular_marginals: Distribution of their features over the training subjects (`cohort.tabular.marginals`).
    """

    ecg_samples: int
    ecg_rate_hz: float
    cmr_shape: tuple[int, ...] | None = None
    labels: tuple[LabelFact, ...] = ()
    tabular: tuple[TabularColumn, ...] = ()
    tabular_marginals: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.cmr_shape is not None and len(self.cmr_shape) not in (3, 4):
            raise ValueError(f"cmr_shape is {self.cmr_shape}, expected (C, H, W) or (V, F, H, W)")

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for a run's summary."""
        plain = asdict(self)
        del plain["tabular_marginals"]
        return {**plain, "tabular": [column.model_dump(mode="json") for column in self.tabular]}
