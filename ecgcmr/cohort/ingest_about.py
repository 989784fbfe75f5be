"""What an ingest knows before it reads a signal: subjects, labels, folds and the words for cohort.json.

It is written beside the chunks when a run begins, so that a resumed run and `cohort merge` end in the same way without
the tables of the data set. There is no identifier in it: subjects have provisional numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import __version__
from ecgcmr.cohort.ingest_labels import LabelTable, aggregate
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.ingest_plan import KINDS, Plan
from ecgcmr.cohort.privacy import Pseudonymizer
from ecgcmr.cohort.recipe import Recipe
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.splits import PARTS
from ecgcmr.cohort.tables import to_table

_FILES = ("subjects", "labels", "row_labels", "ignored")


@dataclass(frozen=True)
class About:
    """All that a finished cohort says apart from what was read.

    Attributes:
        subjects: Row k is the provisional subject k: sex, age_years, site, group columns, and `part` of the split.
        labels: Row k is the provisional subject k, one column for each label.
        row_labels: Row k is row k of the labels table; without rows when labels belong to subjects.
        ignored: Rows of the ledger for files that are not read.
        specs: The labels.
        groups: Group columns.
        folds: {"column": ..., "mapping": ...} of official folds, or None for a drawn split.
        facts: Provenance, origin, seed, pair_days, qc and counts.
        statements: What was inferred, one sentence each.
    """

    subjects: pd.DataFrame
    labels: pd.DataFrame
    row_labels: pd.DataFrame
    ignored: pa.Table
    specs: list[LabelSpec]
    groups: tuple[str, ...]
    folds: dict[str, Any] | None
    facts: dict[str, Any]
    statements: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        folder.mkdir(exist_ok=True)
        for name in _FILES:
            table = getattr(self, name)
            table = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        words = {
            "specs": [asdict(spec) for spec in self.specs],
            "groups": self.groups,
            "folds": self.folds,
            "facts": self.facts,
            "statements": self.statements,
        }
        temporary = folder / "about.tmp"
        temporary.write_text(json.dumps(words, indent=1, sort_keys=True))
        temporary.replace(folder / "about.json")  # last: where it stands, the rest is whole

    @classmethod
    def load(cls, folder: Path) -> About:
        """Read what `save` wrote."""
        words = json.loads((folder / "about.json").read_text())
        tables: dict[str, Any] = {name: pq.read_table(folder / f"{name}.parquet") for name in _FILES}
        frames = {name: table if name == "ignored" else table.to_pandas() for name, table in tables.items()}
        specs = [LabelSpec(**{**spec, "values": tuple(spec["values"])}) for spec in words.pop("specs")]
        return cls(**frames, specs=specs, groups=tuple(words.pop("groups")), **words)


def make_about(
    recipe: Recipe, options: IngestOptions, plan: Plan, labels: LabelTable | None, salt: bytes | None
) -> About:
    """Gather what is known before reading.

    Raises:
        ValueError: A subject's rows lie in two parts of the official split, or a column cannot be a label.
    """
    size = len(plan.subject_keys)
    statements = list(labels.statements) if labels is not None else []
    subjects = pd.DataFrame({"sex": [""] * size, "age_years": np.full(size, np.nan), "site": [""] * size})
    specs: list[LabelSpec] = []
    values, row_labels = pd.DataFrame(index=range(size)), pd.DataFrame()
    if labels is not None:
        of_rows = labels.subject_of_rows(plan.subject_keys)
        subjects = _first_rows(labels.subject_fields(), of_rows, size)
        labels.statements.clear()
        specs, found = labels.labels()
        statements += labels.statements
        table = pd.DataFrame(found, columns=[spec.name for spec in specs])
        values = aggregate(specs, table, of_rows, size)
        known = of_rows[of_rows >= 0]
        if specs and len(known) and np.bincount(known).max() > 1:
            row_labels = table
            specs = [LabelSpec(**{**asdict(spec), "level": "recording"}) for spec in specs]
            statements.append(
                "some subjects have several rows: labels belong to recordings, and a subject's label is their maximum "
                "(binary, event), minimum (time), first (category) or mean (number)"
            )
        statements += _matches(plan, labels, of_rows)
    elif not plan.path_values and recipe.path is None:
        statements.append("no labels table: every item is its own subject")
    for name, column in plan.path_values.items():
        subjects[name] = [text.lower() if name in ("sex",) else text for text in column]
    if salt is not None:
        subjects["pseudonym"] = Pseudonymizer(salt).pseudonyms(plan.subject_keys)
    folds = _folds(recipe, plan, labels, subjects)
    if labels is None or labels.subject_column is None:
        counts = Counter(zip(plan.kinds, plan.subjects, strict=True))
        shared = sum(count for count in counts.values() if count > 1)
        if shared and recipe.path is None:
            statements.append(f"{shared} items share their name with another one: taken as items of one subject")
    ignored = to_table("ledger", [asdict(row) for row in plan.ignored_rows()])
    groups = recipe.group_columns
    return About(subjects, values, row_labels, ignored, specs, groups, folds, _facts(recipe, options, plan), statements)


def _facts(recipe: Recipe, options: IngestOptions, plan: Plan) -> dict[str, Any]:
    """Words for cohort.json and for the end of the run; no path."""
    content = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"provenance", "about"})
    for section in ("ecg", "cmr"):
        if section in content and Path(content[section].get("folder", "")).is_absolute():
            del content[section]["folder"]
    for section in ("table", "visits"):
        if section in content:
            content[section]["file"] = Path(content[section]["file"]).name
    origin = {
        "kind": "ingested",
        "recipe": content.pop("name"),
        "recipe_content": content,
        "seed": options.seed,
        "qc": options.qc,
        "pair_days": options.pair_days,
    }
    provenance = recipe.provenance if recipe.provenance != "ingested" else options.provenance
    return {
        "provenance": provenance,
        "origin": origin,
        "ignored": dict(plan.ignored.most_common()),
        "kinds": {kind: plan.kinds.count(number) for number, kind in enumerate(KINDS) if plan.kinds.count(number)},
        "version": __version__,
    }


def _first_rows(fields: pd.DataFrame, of_rows: np.ndarray, size: int) -> pd.DataFrame:
    """What the first row of each subject says."""
    known = np.flatnonzero(of_rows >= 0)
    subjects, first = np.unique(of_rows[known], return_index=True)
    out = fields.iloc[known[first]].set_axis(subjects, axis=0).reindex(range(size))
    return out.fillna({name: "" for name in out.columns if name != "age_years"})


def _matches(plan: Plan, labels: LabelTable, of_rows: np.ndarray) -> list[str]:
    """What the table and the folders do not have in common."""
    said = []
    unlabeled = sum(row < 0 for row in plan.label_rows)
    if unlabeled:
        said.append(f"{unlabeled} of {len(plan)} items have no row in the labels table")
    unknown = np.flatnonzero(of_rows < 0)
    if len(unknown):
        rows = ", ".join(str(row + 1) for row in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        said.append(f"{len(unknown)} of {len(of_rows)} rows of the labels table know no file (data rows {rows})")
    return said


def _folds(recipe: Recipe, plan: Plan, labels: LabelTable | None, subjects: pd.DataFrame) -> dict[str, Any] | None:
    """Give every subject its official part, in the column `part`; None when there are no folds."""
    mapping = recipe.split.folds()
    if not mapping:
        return None
    part_of: dict[str, str] = {}
    for part, values in mapping.items():
        for value in values:
            if part_of.setdefault(value, part) != part:
                raise ValueError(f"split: fold {value} is given to {part_of[value]} and to {part}")
    if plan.path_folds:
        column, place, owners, folds = "fold in the path", "file", plan.subjects, plan.path_folds
    else:
        assert labels is not None
        assert recipe.table is not None
        column, place = str(recipe.table.fold), "data row"
        owners, folds = labels.subject_of_rows(plan.subject_keys).tolist(), labels.folds()
    parts, where = [""] * len(subjects), [0] * len(subjects)
    for row, (subject, fold) in enumerate(zip(owners, folds, strict=True), 1):
        part = part_of.get(fold, "")
        if subject < 0 or not part:
            continue
        if parts[subject] not in ("", part):
            raise ValueError(
                f"column {column}: subject {subject} has recordings in {' and '.join(sorted((parts[subject], part)))} "
                f"({place}s {where[subject]} and {row}); parts must be disjoint by subject: map those folds to one part"
            )
        parts[subject], where[subject] = part, row
    unused = [fold for fold in part_of if fold not in set(folds)]
    if len(unused) == len(part_of):
        have = ", ".join(sorted(set(folds))[:12])
        raise ValueError(f"column {column}: none of the folds {', '.join(part_of)} occurs; it holds {have}")
    subjects["part"] = parts
    shown = {part: list(mapping[part]) for part in PARTS if part in mapping}
    return {"column": recipe.table.fold if recipe.table and not plan.path_folds else "path", "mapping": shown}
