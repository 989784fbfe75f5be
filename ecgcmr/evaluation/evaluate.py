"""Evaluate a fine-tuned weights folder on a cohort: predictions, baselines, scores, group audit, all in one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.evaluation.arm_tables import ArmTables, Items, make_tables, needs_train
from ecgcmr.evaluation.audit_all import audit_all
from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.covariates import read_covariates
from ecgcmr.evaluation.describe import arm_titles, describe
from ecgcmr.evaluation.embeddings import EmbedOptions
from ecgcmr.evaluation.evaluand import (
    Evaluand,
    crop_samples,
    evaluated_items,
    identity,
    open_evaluand,
    tabular_inputs,
)
from ecgcmr.evaluation.group_columns import find_groups
from ecgcmr.evaluation.item_embeddings import Progress, embed_items, fingerprint
from ecgcmr.evaluation.predictions import write_predictions
from ecgcmr.evaluation.results import write_results
from ecgcmr.evaluation.scores import ArmKey, rows
from ecgcmr.evaluation.target_scores import ArmScores, add_macro, added_value, score_arm
from ecgcmr.evaluation.targets import predict_targets
from ecgcmr.hub.assemble import choose_device

PREDICTIONS, RESULTS, AUDIT, ABOUT = "predictions.parquet", "results.json", "audit.json", "evaluation.json"
EMBEDDINGS, COVARIATES, BOTH = "embeddings.npz", "predictions_covariates.parquet", "predictions_both.parquet"
REPORT = "report.html"
FILES = (PREDICTIONS, RESULTS, AUDIT, ABOUT, EMBEDDINGS, COVARIATES, BOTH)
_DRAWS, _AUDIT = 41, 43  # purposes of random streams


def evaluate_weights(
    weights: str | Path,
    cohort: str | Path,
    split: str,
    out: str | Path,
    *,
    parts: Sequence[str] = ("val", "test"),
    n_draws: int = 2000,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    horizons: Sequence[float] | None = None,
    n_permutations: int = 1000,
    device: str = "cpu",
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Path:
    """Evaluate weights on the test subjects of a split, beside age, sex and BMI, and by groups.

    The same arguments give the same numbers. Embeddings, which take the time, are written in parts and kept: a killed
    run goes on, and a run with other settings of the statistics reads them.

    Args:
        weights: Fine-tuned weights folder (with a head), as `load_weights` takes it.
        cohort: Folder of the cohort.
        split: Name of its split; the one that the weights were trained with, where they were trained on this cohort.
        out: New folder, or one of an earlier evaluation, which is replaced.
        parts: Parts that are predicted; `test` is scored, `val` gives the thresholds and the combination with the
            covariates. Training subjects are added where a Cox head needs their baseline hazard.
        n_draws: Bootstrap draws of subjects.
        groups: Group columns to audit, `sex:age_band` for intersections of two; None for all single ones that the
            cohort knows, empty for none.
        seed: Seed of draws and permutations.
        horizons: Times for outcomes of a Cox head, in the unit of the follow-up; round ones when absent.
        n_permutations: Permutations of group labels.
        device: Where the encoder runs.
        batch_size: Items for each forward pass.
        progress: Called with (items embedded, items in all).

    Returns:
        The folder: predictions.parquet with the group columns, the same of the covariates alone
        (predictions_covariates.parquet) and of both together (predictions_both.parquet), results.json, audit.json,
        embeddings.npz, and evaluation.json, which says what was done and is written last.

    Raises:
        FileNotFoundError, ValueError: Weights, cohort, split or groups are missing or do not fit together, or the
            weights were trained on another split of this cohort.
        FileExistsError: `out` holds files of something else.
    """
    folder = Path(out)
    wrong = sorted(set(parts) - {"train", "val", "test"})
    if wrong or "test" not in parts:
        raise ValueError(f"parts {tuple(parts)} must hold 'test', and of 'train' and 'val' what is wanted")
    if n_draws < 2 or n_permutations < 1:
        raise ValueError(f"need at least 2 draws and 1 permutation, got {n_draws} and {n_permutations}")
    _check_out(folder)
    what = open_evaluand(weights, cohort, split)
    columns, left_out = find_groups(what.cohort, groups)
    covariates = read_covariates(what.cohort)
    dataset, items = evaluated_items(what, columns)
    wanted = [*parts, *(["train"] if needs_train(what.targets, items) and "train" not in parts else [])]
    chosen = np.flatnonzero(np.isin(items.split, wanted))
    if not (items.split == "test").any():
        raise ValueError(f"{what.cohort.path}: no test subject of the split {split!r} has usable data to evaluate")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ABOUT, REPORT):  # from here on the folder is unfinished, and an old page would be about other numbers
        (folder / name).unlink(missing_ok=True)
    cache = (folder / EMBEDDINGS, fingerprint(identity(what, wanted)))
    options = EmbedOptions(batch_size, str(choose_device(device)), crop_samples=crop_samples(what))
    embedded = embed_items(what.weights, dataset, what.modality, chosen, cache, options, progress)
    for module in what.weights.modules.values():
        module.to("cpu")
    outputs = np.full((len(items.subjects), len(what.weights.config["labels"])), np.nan)
    outputs[chosen] = predict_targets(
        what.weights, what.modality, embedded.values, tabular_inputs(what, dataset, chosen)
    )
    tables = make_tables(what.targets, items, outputs, covariates, horizons)
    _write_tables(folder, tables, items)
    arms, draws_of = _score(tables, what, arm_titles(what, covariates), (n_draws, seed))
    write_results(folder / RESULTS, _result_rows(arms))
    audited = audit_all(
        tables.model, what.targets, tables.horizons, arms["model"].thresholds, [str(name) for name in columns],
        (n_draws, n_permutations), np.random.default_rng([seed, _AUDIT]),
    )  # fmt: skip
    _write_json(folder / AUDIT, audited)
    settings = {"seed": seed, "n_draws": n_draws, "n_permutations": n_permutations, "parts": wanted}
    about = describe(what, dataset, items, (covariates, columns, left_out), tables, arms)
    about["settings"] = settings | {"groups": None if groups is None else list(groups), "device": options.device}
    about |= {"embeddings_fingerprint": cache[1], "test_subjects": draws_of}
    _write_json(folder / ABOUT, about)
    return folder


def _check_out(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose a new folder for --out")
    mine = {*FILES, REPORT}
    strangers = (
        [p.name for p in folder.iterdir() if p.name not in mine and not p.name.startswith(".")]
        if folder.is_dir()
        else []
    )
    if strangers:
        raise FileExistsError(
            f"{folder} holds {', '.join(sorted(strangers)[:3])}, which no evaluation wrote; choose a new folder"
        )


def _score(
    tables: ArmTables, what: Evaluand, titles: dict[str, str], how: tuple[int, int]
) -> tuple[dict[str, ArmScores], int]:
    """Scores of the arms that there are, and the number of test subjects."""
    n_draws, seed = how
    test = tables.model[tables.model["split"] == "test"]["subject"].unique()
    draws = draw_subjects(test, n_draws, np.random.default_rng([seed, _DRAWS]))
    kinds = {target.name: target.kind for target in what.targets}
    arms = {}
    for arm, table in (("model", tables.model), ("covariates", tables.covariates), ("both", tables.both)):
        if table is not None:
            there = {name: kind for name, kind in kinds.items() if name in set(table["target"])}
            arms[arm] = score_arm(table, there, draws, ArmKey(titles[arm], arm), tables.horizons)
    add_macro(list(arms.values()), kinds)
    return arms, len(test)


def _result_rows(arms: dict[str, ArmScores]) -> list[dict[str, Any]]:
    found = [row for arm in arms.values() for row in arm.result_rows()]
    for first, second in (("both", "covariates"), ("model", "covariates"), ("both", "model")):
        if first in arms and second in arms:
            found += rows(added_value(arms[first], arms[second]), per_seed=False)
    return found


def _write_tables(folder: Path, tables: ArmTables, items: Items) -> None:
    write_predictions(folder / PREDICTIONS, tables.model)
    for name, table in ((COVARIATES, tables.covariates), (BOTH, tables.both)):
        if table is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_predictions(folder / name, table.drop(columns=list(items.groups.columns)))


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
