"""evaluation.json: what was evaluated, how, on whom, and what stands in the way of a number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.evaluation.arm_tables import ArmTables, Items
from ecgcmr.evaluation.covariates import Covariates
from ecgcmr.evaluation.evaluand import Evaluand
from ecgcmr.evaluation.flow import cohort_flow
from ecgcmr.evaluation.target_scores import ArmScores
from ecgcmr.evaluation.targets import Target
from ecgcmr.training.versions import versions

FORMAT_VERSION = 1


def arm_titles(what: Evaluand, covariates: Covariates) -> dict[str, str]:
    """Names of the arms in results.json: ECG, age + sex, ECG + age + sex."""
    name = what.modality.upper()
    return {"model": name, "covariates": covariates.title, "both": f"{name} + {covariates.title}"}


def describe(
    what: Evaluand,
    dataset: PairedDataset,
    items: Items,
    cohort_parts: tuple[Covariates, pd.DataFrame, dict[str, str]],
    tables: ArmTables,
    arms: dict[str, ArmScores],
) -> dict[str, Any]:
    """The content of evaluation.json, but for the settings.

    Args:
        what: What was evaluated.
        dataset: Items of all subjects of the split.
        items: Their labels.
        cohort_parts: Covariates, group columns, and groups that were left out with the reason.
        tables: Predictions tables of the arms.
        arms: Their scores.
    """
    covariates, columns, left_out = cohort_parts
    config = what.weights.config
    card = what.weights.card.to_config()
    train = items.subjects[items.split == "train"]
    flags = [flag for arm in arms.values() for flag in arm.flags]
    names = arm_titles(what, covariates)
    titles = {arm: names[arm] for arm in arms}
    flags += [
        {"arm": names.get(arm, arm), "target": target, "metric": None, "why": why}
        for arm, target, why in tables.not_fitted
    ]
    return {
        "format_version": FORMAT_VERSION,
        "status": "finished",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": versions(),
        "modality": what.modality,
        "weights": card
        | {"folder": what.weights.folder.name, "sha256": config["sha256"], "without_label": what.absent},
        "cohort": {
            "name": what.cohort.schema.name,
            "provenance": what.cohort.schema.provenance,
            "created_with": what.cohort.schema.created_with,
            "subjects": len(what.cohort),
            "folder": what.cohort.path.name,
        },
        "split": {"name": what.split.name, "how": dict(what.split.how)},
        "flow": cohort_flow(what.cohort, what.split, dataset, what.modality, items.rows),
        "targets": [_target_facts(target, items, tables) for target in what.targets],
        "arms": titles,
        "covariates": {
            "names": list(covariates.names),
            "source": covariates.source,
            "missing_in_train": covariates.missing(train) if len(train) else {},
        },
        "characteristics": _characteristics(items, covariates),
        "fitted_on": tables.fitted_on,
        "stacks": tables.stacks,
        "thresholds": {titles[arm]: scores.thresholds for arm, scores in arms.items()},
        "groups": list(columns.columns),
        "groups_left_out": left_out,
        "flags": flags,
    }


def _characteristics(items: Items, covariates: Covariates) -> dict[str, dict[str, Any]]:
    """Subjects of each part, and mean, standard deviation and unknown values of each encoded covariate."""
    found: dict[str, dict[str, Any]] = {}
    for part in ("train", "val", "test"):
        who = np.unique(items.subjects[items.split == part])
        known = covariates.values.loc[who]
        columns = {
            name: {
                "mean": _number(column.mean()),
                "sd": _number(column.std(ddof=0)),
                "unknown": int(column.isna().sum()),
            }
            for name, column in known.items()
        }
        found[part] = {"subjects": len(who), "covariates": columns}
    return found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _target_facts(target: Target, items: Items, tables: ArmTables) -> dict[str, Any]:
    rows = items.rows[target.name]
    found = {"name": target.name, "kind": target.kind, "unit": target.unit, "description": target.description}
    counts: dict[str, dict[str, Any]] = {}
    for part in ("train", "val", "test"):
        seen = rows.seen(part)
        counts[part] = {"subjects": len(np.unique(rows.subjects[seen])), "items": int(seen.sum())}
        if target.kind != "regression":
            counts[part]["positive"] = int(np.nansum(rows.truth[seen]))
        if target.kind == "survival" and seen.any():
            counts[part]["median_follow_up"] = float(np.median(rows.time[seen]))
    return found | {"n": counts, "horizons": list(tables.horizons.get(target.name, ()))}
