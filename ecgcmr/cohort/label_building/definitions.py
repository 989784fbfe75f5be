"""The definition files of `ecgcmr labels build` for outcomes: which table holds what, and the labels to make of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StrictStr, model_validator

from ecgcmr.cohort.label_building.concepts import DiseaseSet, PhenotypeSet
from ecgcmr.cohort.label_building.definition_files import Strict


class Column(Strict):
    """Where a value stands: a UK Biobank `field` (with its `instance`), or a `column` of a table.

    Attributes:
        field: Number of a data field; its column is found in every spelling.
        instance: Visit of the field; "recording" takes the visit of the recording, None all of them.
        column: Name of a column.
        table: Table; None is the table of the recordings.
        values: Text -> text, for coded values.
    """

    field: int | None = None
    instance: int | Literal["recording"] | None = None
    column: str | None = None
    table: str | None = None
    values: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of(self) -> Column:
        if (self.field is None) == (self.column is None):
            raise ValueError("give either field: NUMBER or column: NAME")
        return self


class Recordings(Strict):
    """The recordings that get labels, one row of the result for each.

    Attributes:
        table: Table that lists them.
        date: When they were made.
        instances: Visits, where the date is a field: one recording for each visit that was attended.
        item: Column with the item, or a pattern of {subject} and {instance}; None labels subjects.
        keep: Further columns of the table that are copied (official folds, groups).
    """

    table: str
    date: Column
    instances: tuple[int, ...] = ()
    item: str | None = None
    keep: tuple[str, ...] = ()


class DateRules(Strict):
    """How dates are read.

    Attributes:
        formats: Formats of `datetime.strptime`, tried in this order.
        special: Dates that stand for something else, and for what; such a date is unknown.
        implausible_limit: Share of dates before birth or after death above which nothing is built.
    """

    formats: tuple[str, ...] = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S")
    special: dict[date, str] = Field(default_factory=dict)
    implausible_limit: float = Field(default=0.02, gt=0, le=1)


class FollowUp(Strict):
    """From when to when a subject can have a diagnosis.

    Attributes:
        birth: Date of birth, or year of birth.
        birth_month: Month of birth, where `birth` is a year; the first day of the month is taken.
        death: Date of death.
        lost: Date from which nothing more is known of the subject.
        last_contact: Date of the last contact (the latest is taken), where records end with the contact.
        administrative: Day up to which the diagnoses are complete.
        horizons_years: Also make a binary label for an outcome within so many years.
        death_outcome: Also make the outcome death.
    """

    birth: Column | None = None
    birth_month: Column | None = None
    death: Column | None = None
    lost: Column | None = None
    last_contact: Column | None = None
    administrative: date | None = None
    horizons_years: tuple[float, ...] = ()
    death_outcome: bool = False


class AnchoredAge(Strict):
    """Age in a given year, where only that is released (MIMIC): the age at a recording follows from its year."""

    age: Column
    year: Column


class ArraySource(Strict):
    """Diagnoses in parallel arrays of codes and dates (UK Biobank 41270 with 41280)."""

    kind: Literal["arrays"]
    table: str
    system: Literal["icd10", "icd9"]
    codes: int
    dates: int


class FirstOccurrenceSource(Strict):
    """One date field for each three-character category (UK Biobank first occurrences)."""

    kind: Literal["first_occurrence"]
    table: str
    system: Literal["icd10", "icd9"] = "icd10"
    fields: dict[StrictStr, int]


class LongSource(Strict):
    """One row for each diagnosis, dated itself or by the visit that it belongs to.

    Attributes:
        table: Table of diagnoses.
        subject: Column of the subject; None is that of the definitions.
        codes: Code system -> column with codes of that system.
        code: Column with codes of several systems, told apart by `version`.
        version: Column with the version of the system.
        versions: Version -> code system.
        visits: Table with the dates; None when the diagnoses have their own.
        by: Columns that both tables share.
        dates: Date columns; the first that is filled counts.
    """

    kind: Literal["long"]
    table: str
    subject: str | None = None
    codes: dict[Literal["icd10", "icd9"], str] = Field(default_factory=dict)
    code: str | None = None
    version: str | None = None
    versions: dict[str, Literal["icd10", "icd9"]] = Field(default_factory=dict)
    visits: str | None = None
    by: tuple[str, ...] = ()
    dates: tuple[str, ...]

    @model_validator(mode="after")
    def _whole(self) -> LongSource:
        if bool(self.codes) == bool(self.code and self.version and self.versions):
            raise ValueError("give codes: {icd10: COLUMN, ...}, or code, version and versions")
        if bool(self.visits) != bool(self.by):
            raise ValueError("visits and by belong together")
        return self


Source = Annotated[ArraySource | FirstOccurrenceSource | LongSource, Field(discriminator="kind")]


class OutcomeDefinitions(Strict):
    """The content of a definition file of kind "outcomes"."""

    kind: Literal["outcomes"]
    name: str
    provenance: str
    subject: str
    recordings: Recordings
    dates: DateRules = DateRules()
    follow_up: FollowUp = FollowUp()
    subject_fields: dict[Literal["sex", "age_years", "site"], Column] = Field(default_factory=dict)
    anchored_age: AnchoredAge | None = None
    diagnoses: tuple[Source, ...] = ()
    without_diagnoses: Literal["control", "unknown"] = "unknown"
    diseases: DiseaseSet | None = None
    phenotypes: PhenotypeSet | None = None

    def fields(self) -> set[int]:
        """Numbers of all data fields of which values are asked for; diagnoses are read on their own."""
        rules = self.follow_up
        columns = [rules.birth, rules.birth_month, rules.death, rules.lost, rules.last_contact, self.recordings.date]
        columns += self.subject_fields.values()
        if self.anchored_age:
            columns += [self.anchored_age.age, self.anchored_age.year]
        named = {column.field for column in columns if column is not None and column.field is not None}
        return named | {item.field for item in (self.phenotypes.fields if self.phenotypes else ())}

    @model_validator(mode="after")
    def _consistent(self) -> OutcomeDefinitions:
        names = [disease.name for disease in (self.diseases.diseases if self.diseases else ())]
        names += [item.name for item in (self.phenotypes.fields if self.phenotypes else ())]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"label {twice[0]!r} is defined twice")
        if self.diseases and not self.diagnoses:
            raise ValueError("diseases need diagnoses: where their codes and dates stand")
        if self.recordings.date.field is not None and not self.recordings.instances:
            raise ValueError("recordings.instances: name the visits, for instance [2]")
        return self
