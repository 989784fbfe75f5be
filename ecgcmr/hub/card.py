"""The model card: what a weights folder says about itself, for people and for the rules about publishing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PROVENANCE_KINDS = ("simulated", "public", "participant-derived")
"""What the part of a provenance before the colon may be, alone or joined by +: `simulated + public: PTB-XL`."""

OF_THE_RUN = "validation subjects of the run"
NOT_STATED = ("not stated", "unknown", "none", "tbd", "?")


class Metric(BaseModel):
    """One number reached.

    Attributes:
        name: What was measured, with its unit if it has one: "R² of LVM (ridge probe)".
        value: The number.
        lo: Lower end of the 95 % interval; given with `hi` or not at all.
        hi: Upper end of the 95 % interval.
        n: Number of subjects or items that it was measured on.
        where: The data it was measured on: "held-out simulated subjects", "PTB-XL fold 8".
        note: Anything else a reader needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1)
    value: float
    lo: float | None = None
    hi: float | None = None
    n: int | None = Field(default=None, ge=1)
    where: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _check_interval(self) -> Metric:
        if (self.lo is None) != (self.hi is None):
            raise ValueError(f"metric {self.name!r}: an interval has both lo and hi")
        if self.lo is not None and self.hi is not None and self.lo > self.hi:
            raise ValueError(f"metric {self.name!r}: lo {self.lo:g} is above hi {self.hi:g}")
        return self


class Card(BaseModel):
    """What must be said about weights.

    Attributes:
        name: Name of the weights.
        stage: What they were trained for: the name of the objective, for instance masked_ecg or supervised.
        license: License of the weights (not of the code).
        provenance: Where the training data come from: kinds among `PROVENANCE_KINDS`, then free text after a colon,
            as in "simulated" or "public: PTB-XL and CODE-15". Other text loads too, but cannot be published.
        trained_on: How many subjects and items of what.
        command: The exact command that made them.
        intended_use: What they are for.
        limits: What is known not to work.
        approval: Reference of the approval under which weights from data of study members may be published.
        metrics: Numbers reached, with intervals; a mapping of names to values is read as numbers of the run itself.
        run: How they were made: seed, steps, cohort, split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    stage: str = Field(min_length=1)
    license: str = Field(min_length=1)
    provenance: str = Field(min_length=1)
    trained_on: str = Field(min_length=1)
    command: str = ""
    intended_use: str = "Research on what an ECG tells about the heart that cardiac MRI sees."
    limits: str = (
        "Performance outside the population, devices and protocols of the training data is unknown. Standard 12-lead "
        "ECGs at rest only."
    )
    approval: str = ""
    metrics: tuple[Metric, ...] = ()
    run: dict[str, Any] = Field(default_factory=dict)

    @field_validator("metrics", mode="before")
    @classmethod
    def _read_mapping(cls, value: Any) -> Any:
        return metrics_of_run(value) if isinstance(value, Mapping) else value

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Card:
        """Take the card out of the content of config.json.

        Raises:
            ValueError: If a field is missing or wrong.
        """
        return cls.model_validate({name: config[name] for name in cls.model_fields if name in config})

    def to_config(self) -> dict[str, Any]:
        """Give the fields as config.json has them."""
        return self.model_dump(mode="json")


def metrics_of_run(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Turn {name: value}, as cards of format 1 and training have it, into metrics."""
    return [{"name": name, "value": value, "where": OF_THE_RUN} for name, value in values.items()]


def provenance_kinds(provenance: str) -> tuple[str, ...]:
    """Give the kinds of training data that a provenance names, in the order of `PROVENANCE_KINDS`.

    Returns:
        Empty if the part before the colon says anything else: what is not known is not called public.
    """
    named = {part.strip().lower() for part in provenance.partition(":")[0].replace(",", "+").split("+")}
    return tuple(kind for kind in PROVENANCE_KINDS if kind in named) if named <= set(PROVENANCE_KINDS) else ()


def needs_approval(provenance: str) -> bool:
    """Tell whether weights may be published only with an approval: all but those of simulated and public data."""
    kinds = provenance_kinds(provenance)
    return not kinds or "participant-derived" in kinds


def is_stated(text: str) -> bool:
    """Tell whether a field of a card says something."""
    return bool(text.strip()) and text.strip().lower() not in NOT_STATED


def cohorts_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give cohort, split and hash of the split of each cohort that a run learned from; empty if it does not say."""
    if run.get("sources"):
        return [dict(one) for one in run["sources"]]
    return [dict(run)] if "cohort" in run else []
