"""What a label means: the codes of a disease, and the field, unit and plausible range of a measurement."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, StrictStr, model_validator

from ecgcmr.cohort.label_building.codes import CodeSet
from ecgcmr.cohort.label_building.definition_files import Strict

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Codes(Strict):
    """Codes by system; strings only, because YAML reads 402.10 as a number and drops its last digit."""

    icd10: tuple[StrictStr, ...] = ()
    icd9: tuple[StrictStr, ...] = ()

    def code_set(self) -> CodeSet:
        """The codes as prefixes."""
        return CodeSet.parse({"icd10": self.icd10, "icd9": self.icd9})


class Option(Codes):
    """Codes that belong to a disease by choice.

    Attributes:
        include: Whether they are cases; if not, who has them is neither case nor control.
        dated: False for codes that say that the disease was there, but not since when ("old infarction").
        why: Why this is a choice.
    """

    include: bool = False
    dated: bool = True
    why: str


class Disease(Strict):
    """A disease by its codes.

    Attributes:
        name: Name of the label of prevalent disease; incident disease is NAME_time_years and NAME_event.
        title: Words for a report.
        codes: Codes of a case.
        options: Codes that are cases by choice.
        not_controls: Codes that make a subject without a case code neither case nor control.
        controls: Who counts as a control, in words.
        source: Where the codes come from.
    """

    name: str = Field(pattern=NAME.pattern)
    title: str
    codes: Codes
    options: dict[str, Option] = Field(default_factory=dict)
    not_controls: Codes = Codes()
    controls: str
    source: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _codes_are_codes(self) -> Disease:
        if not self.codes.code_set():
            raise ValueError(f"disease {self.name}: no codes")
        for group in (self.not_controls, *self.options.values()):
            group.code_set()
        return self


class PhenotypeField(Strict):
    """A measurement with a data field of its own.

    Attributes:
        name: Name of the label.
        field: Number of the data field.
        unit: Unit.
        description: One sentence.
        low: Smallest plausible value.
        high: Largest plausible value.
        unverified: What could not be checked against the owner's pages; "" when nothing.
    """

    name: str = Field(pattern=NAME.pattern)
    field: int
    unit: str
    description: str
    low: float
    high: float
    unverified: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> PhenotypeField:
        if not self.low < self.high:
            raise ValueError(f"phenotype {self.name}: low {self.low} is not below high {self.high}")
        return self


class PhenotypeSet(Strict):
    """Measurements of one table.

    Attributes:
        table: Table; None is that of the recordings.
        instance: Visit; "recording" takes that of the recording.
        sources: Where names, units and ranges come from.
        fields: The measurements.
    """

    table: str | None = None
    instance: int | Literal["recording"] = "recording"
    sources: tuple[str, ...] = ()
    fields: tuple[PhenotypeField, ...]


class DiseaseSet(Strict):
    """Diseases, and where their codes come from."""

    sources: tuple[str, ...] = ()
    diseases: tuple[Disease, ...]
