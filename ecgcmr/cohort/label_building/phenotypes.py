"""Measurements by data field: numbers in their unit, and nothing outside the plausible range."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_building.concepts import PhenotypeField, PhenotypeSet
from ecgcmr.cohort.label_building.dates import Counts
from ecgcmr.cohort.label_building.definitions import Column
from ecgcmr.cohort.label_building.recordings import People
from ecgcmr.cohort.label_file import numbers, shape

WRONG_UNIT_SHARE = 0.2
MIN_FOR_UNIT = 20


def read_phenotypes(
    phenotypes: PhenotypeSet, people: People, counts: Counts
) -> tuple[dict[str, NDArray[np.float64]], pd.DataFrame]:
    """Values of each measurement for each recording (n,), and what was set aside.

    Args:
        phenotypes: What to read.
        people: The recordings.
        counts: What is set aside is counted here.

    Returns:
        Name -> values (n,), for the measurements that the tables hold; and one row for each value that was set aside:
        row of the recording, label, value, reason.

    Raises:
        ValueError: None of the fields is there, or so many values lie outside the range that the unit must be another.
    """
    values: dict[str, NDArray[np.float64]] = {}
    aside: list[pd.DataFrame] = []
    for item in phenotypes.fields:
        table = phenotypes.table or people.definitions.recordings.table
        instances = (
            sorted(people.rows["instance"].unique()) if phenotypes.instance == "recording" else [phenotypes.instance]
        )
        if not any(people.tables.fields(table, item.field, int(instance)) for instance in instances):
            continue
        texts = people.texts(Column(field=item.field, instance=phenotypes.instance, table=phenotypes.table))
        values[item.name], problems = _plausible(item, texts, counts)
        aside.append(problems)
    if phenotypes.fields and not values:
        first, last = phenotypes.fields[0].field, phenotypes.fields[-1].field
        raise ValueError(
            f"none of the fields {first} to {last} is in the tables for instance {phenotypes.instance}; spellings such "
            f"as {first}-2.0, f.{first}.2.0 and p{first}_i2 are understood"
        )
    absent = [item.name for item in phenotypes.fields if item.name not in values]
    if absent:
        counts.add(
            f"measurements in no table, left out ({', '.join(absent[:5])}{', ...' * (len(absent) > 5)})", len(absent)
        )
    return values, pd.concat(aside, ignore_index=True) if aside else pd.DataFrame()


def _plausible(item: PhenotypeField, texts: pd.Series, counts: Counts) -> tuple[NDArray[np.float64], pd.DataFrame]:
    found = numbers(texts)
    no_number = (texts != "").to_numpy() & np.isnan(found)
    outside = ~np.isnan(found) & ~((found >= item.low) & (found <= item.high))
    observed = int((~np.isnan(found)).sum())
    if observed >= MIN_FOR_UNIT and outside.sum() > WRONG_UNIT_SHARE * observed:
        middle = float(np.median(found[np.isfinite(found)])) if np.isfinite(found).any() else float("nan")
        raise ValueError(
            f"{item.name} (field {item.field}): {int(outside.sum())} of {observed} values lie outside {item.low:g} to "
            f"{item.high:g} {item.unit}, their median is {middle:g}: another unit or another field? Convert the "
            "column, or change low and high in the definitions"
        )
    if no_number.any():
        looks = shape(str(texts[no_number].iloc[0]))
        counts.add(f"{item.name}: no number (like {looks}), set to missing", int(no_number.sum()))
    counts.add(f"{item.name}: outside {item.low:g} to {item.high:g} {item.unit}, set to missing", int(outside.sum()))
    bad = np.flatnonzero(no_number | outside)
    reasons = np.where(outside[bad], f"outside {item.low:g} to {item.high:g} {item.unit}", "no number")
    problems = pd.DataFrame({"row": bad, "label": item.name, "value": texts.iloc[bad].to_numpy(), "reason": reasons})
    return np.where(outside, np.nan, found), problems
