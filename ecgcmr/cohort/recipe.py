"""Recipes: where the files of a data set lie, how they are read, and which table tells subjects, labels and folds.

A recipe is a YAML file (`configs/data/`). A data set that lies in another way needs another file, not another program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ecgcmr.config_errors import explain

PATH_GROUPS = ("subject", "item", "visit", "site", "fold")


class Strict(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EcgFiles(Strict):
    """Where ECG files lie and what they do not say of themselves.

    Attributes:
        folder: Folder below the root.
        files: Globs below the folder; `**` is any depth. Files that no glob takes are `ignored` in the ledger.
        unit: Unit of files that state none: "mV", "uV", "V", or "z" for standardised arrays.
        rate_hz: Sampling rate of files that state none [Hz].
        leads: Lead names of files that state none.
        gain_uv_per_unit: Microvolts per digital unit, replacing the gains of WFDB headers.
        signal: Name of the array with the samples in array files, where it is none of the usual ones.
        trim_zeros: Cut off samples at both ends at which every lead is exactly zero (padding).
    """

    folder: str = "."
    files: tuple[str, ...] = ("**/*",)
    unit: str | None = None
    rate_hz: float | None = Field(default=None, gt=0)
    leads: tuple[str, ...] | None = None
    gain_uv_per_unit: float | None = Field(default=None, gt=0)
    signal: str | None = None
    trim_zeros: bool = False


class CmrFiles(Strict):
    """Where CMR files lie.

    Attributes:
        folder: Folder below the root.
        files: Globs below the folder.
        level: Depth of the folders that hold one study each.
        layout: Layout of each study folder (`ecgcmr.cmr.readers.layouts`: "acdc", "mnms", "mnms2", "sunnybrook"), read
            as a whole with masks, ED and ES. None takes every NIfTI file and zip and every folder of DICOM files as a
            study.
        incomplete: "error" drops a study in which a frame is missing, "drop" only the slices concerned.
    """

    folder: str = "."
    files: tuple[str, ...] = ("**/*",)
    level: int = Field(default=1, ge=1)
    layout: Literal["acdc", "mnms", "mnms2", "sunnybrook"] | None = None
    incomplete: Literal["error", "drop"] = "error"


class Column(Strict):
    """A column of the table whose values are written in their own way.

    Attributes:
        column: Its name.
        values: Value in the table -> value in the cohort.
        missing: Values that mean "unknown".
    """

    column: str
    values: dict[str, str] = Field(default_factory=dict)
    missing: tuple[str, ...] = ()


class Codes(Strict):
    """Binary labels from a column that lists codes.

    Attributes:
        column: The column.
        pattern: Regular expression; its first group (or all of it) is one code, found again and again.
        labels: Label -> codes, any of which makes it 1.
    """

    column: str
    pattern: str = r"\w+"
    labels: dict[str, tuple[str, ...]]


class Table(Strict):
    """The table with one row for each item or subject.

    Attributes:
        file: CSV, TSV or parquet file below the root; a glob takes the first that matches. With `sidecar` a glob of
            small files of `key: value` lines, one in the folder of each study.
        sidecar: Whether the table lies in pieces beside the studies; the item is then the name of the folder.
        required: Whether it is an error when the table is not there.
        subject: Column with the subject.
        item: Column with the item: record name, relative path, array key.
        date: Column with the day of the recording.
        sex: Column with the sex.
        age: Column with the age [years].
        site: Column with the site.
        fold: Column with official folds.
        groups: Columns to take as groups.
        labels: Columns to take as labels; empty for all that can be, None for none.
        codes: Binary labels from listed codes.
        only: Leave out the files that the table does not know; they stand in the ledger as not wanted.
    """

    file: str
    sidecar: bool = False
    required: bool = True
    subject: str | None = None
    item: str | None = None
    date: str | None = None
    sex: Column | None = None
    age: Column | None = None
    site: Column | None = None
    fold: str | None = None
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = ()
    codes: tuple[Codes, ...] = ()
    only: bool = False

    @field_validator("sex", "age", "site", mode="before")
    @classmethod
    def _plain_column(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value


class Visits(Strict):
    """A table with the day of each visit of a subject.

    Attributes:
        file: CSV, TSV or parquet file below the root.
        subject: Column with the subject.
        columns: Visit (as the path says it) -> column with its day.
        required: Whether it is an error when the table is not there.
    """

    file: str
    subject: str
    columns: dict[str, str]
    required: bool = True


class Parts(Strict):
    """Fold values of each part; "1..160" is a range of numbers."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str | int) else value
        return tuple(str(item) for item in values) if isinstance(values, list | tuple) else values

    def folds(self) -> dict[str, tuple[str, ...]]:
        """Part -> fold values, ranges written out; parts without any are left out."""
        found = {part: tuple(fold for text in values for fold in _expand(text)) for part, values in self}
        return {part: values for part, values in found.items() if values}


class Recipe(Strict):
    """How a data set lies on disk.

    Attributes:
        name: Name of the data set.
        about: Version and where the layout is written down.
        provenance: Where the data come from; goes into cohort.json and every card.
        ecg: The ECG files, or None.
        cmr: The CMR files, or None.
        path: Regular expression searched in each path (relative to its folder). Its named groups say `subject`, `item`
            (key in the table), `visit`, `site` and `fold`; other named groups become group columns.
        table: The table of items or subjects, or None.
        visits: The table of visit days, or None.
        split: Which official folds are which part; empty draws a split.
    """

    name: str
    about: str = ""
    provenance: str = "ingested"
    ecg: EcgFiles | None = None
    cmr: CmrFiles | None = None
    path: str | None = None
    table: Table | None = None
    visits: Visits | None = None
    split: Parts = Parts()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.ecg is None and self.cmr is None:
            raise ValueError("nothing to ingest: give a section ecg, cmr, or both")
        groups: set[str] = set()
        if self.path is not None:
            try:
                groups = set(re.compile(self.path).groupindex)
            except re.error as error:
                raise ValueError(f"path is no regular expression: {error}") from error
        has_folds = "fold" in groups or (self.table is not None and self.table.fold is not None)
        if bool(self.split.folds()) != has_folds:
            raise ValueError("folds (table.fold, or a group 'fold' in path) and split belong together: one is missing")
        if self.visits is not None and "visit" not in groups:
            raise ValueError("visits needs a group named 'visit' in path, to know which visit a file is of")
        return self

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Group columns, from the table and from the paths."""
        named = re.compile(self.path).groupindex if self.path else {}
        own = self.table.groups if self.table is not None else ()
        return (*own, *(name for name in named if name not in PATH_GROUPS and name not in own))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file.
        overrides: KEY=VALUE with dotted keys, such as `ecg.unit=uV`; VALUE is YAML.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not YAML, an unknown key (the message has the nearest valid name), or a wrong value.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(item.stem for item in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"--recipe {path}: there is no such file" + (f"; here are {near}" if near else ""))
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected the keys of a recipe, got {type(tree).__name__}")
    changed: dict[str, Any] = {}
    for text in overrides:
        _set(tree, changed, text)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, Recipe, tree, str(path), changed)) from error


def _set(tree: dict[str, Any], changed: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ValueError(f"{text!r}: expected KEY=VALUE, such as ecg.unit=uV")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r}: the value is not valid YAML ({error})") from error
    for node in (tree, changed):
        *sections, last = key.split(".")
        for section in sections:
            below = node.get(section)
            if below is not None and not isinstance(below, dict):
                raise ValueError(f"{text!r}: {section} is a value, not a section")
            node[section] = {} if below is None else below
            node = node[section]
        node[last] = parsed


def _expand(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if not match:
        return [text]
    first, last = match.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
