"""The part of `validate_cohort` that looks at labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ecgcmr.cohort.schema import CohortSchema, LabelSpec

if TYPE_CHECKING:
    from ecgcmr.cohort.validate import Findings


def check_labels(schema: CohortSchema, tables: dict[str, pd.DataFrame], found: Findings) -> None:
    """Check that columns and specs agree and that values are of their kind and within the plausible range."""
    specs = {spec.name: spec for spec in schema.labels}
    if len(specs) != len(schema.labels):
        found.add("cohort.json", None, "labels", "a label is described twice")
    for name, key in (("labels", "subject"), ("recording_labels", "recording")):
        if name not in tables:
            continue
        table, file = tables[name], f"{name}.parquet"
        expected = {spec.name for spec in schema.labels if name == "labels" or spec.level == "recording"}
        for column in sorted(set(table.columns) - {key} - expected):
            found.add(file, None, column, "cohort.json does not describe this label")
        for column in sorted(expected - set(table.columns)):
            found.add(file, None, column, "cohort.json describes this label, but the column is missing")
        for column in sorted(expected & set(table.columns)):
            _check_values(file, table[column], specs[column], found)
    _check_pairs(specs, found)


def _check_values(file: str, column: pd.Series, spec: LabelSpec, found: Findings) -> None:
    if not pd.api.types.is_numeric_dtype(column):
        found.add(file, None, spec.name, f"a {spec.kind} label must hold numbers, the column is {column.dtype}")
        return
    values = column.to_numpy(dtype=np.float64)
    seen = ~np.isnan(values)
    if spec.kind in ("binary", "event"):
        wrong = seen & ~np.isin(values, (0.0, 1.0))
        found.add_rows(file, spec.name, wrong, f"{{}} is no {spec.kind} value; expected 0, 1 or NaN", values)
        return
    if spec.kind == "category":
        wrong = seen & ~np.isin(values, np.arange(len(spec.values)))
        found.add_rows(file, spec.name, wrong, f"{{}} is no code of {list(spec.values)}", values)
        return
    found.add_rows(file, spec.name, np.isinf(values), "{} is not finite", values)
    low = spec.low if spec.low is not None else (0.0 if spec.kind == "time" else -np.inf)
    high = spec.high if spec.high is not None else np.inf
    wrong = np.isfinite(values) & ((values < low) | (values > high))
    unit = f" {spec.unit}" if spec.unit else ""
    found.add_rows(file, spec.name, wrong, f"{{}}{unit} lies outside the plausible {low:g} to {high:g}{unit}", values)


def _check_pairs(specs: dict[str, LabelSpec], found: Findings) -> None:
    times = [name for name, spec in specs.items() if spec.kind == "time"]
    events = [name for name, spec in specs.items() if spec.kind == "event"]
    if len(times) != len(events):
        found.add(
            "cohort.json",
            None,
            "labels",
            f"times {times} and events {events} must come in pairs: one of each an outcome",
        )
