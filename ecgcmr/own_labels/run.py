"""finetune_labels: a table of own labels in, a weights folder and a report out; read from the top to the bottom."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.cohort.schema import SCHEMA_FILE, LabelSpec
from ecgcmr.cohort.splits import Split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256
from ecgcmr.hub.folder import write_text
from ecgcmr.own_labels.labelled import label_cohort
from ecgcmr.own_labels.outcome import evaluate_run, pack_run
from ecgcmr.own_labels.parts import SPLIT, forget_parts, make_parts, parts_of_folds, stored, with_split_file
from ecgcmr.own_labels.recipe import Start, make_recipe, open_start, write_recipe
from ecgcmr.own_labels.recordings import ingest_recordings
from ecgcmr.own_labels.request import Bar, FinetuneRequest, FinetuneResult
from ecgcmr.own_labels.table import OwnLabels, read_own_labels
from ecgcmr.training.config import RunConfig, load_config
from ecgcmr.training.progress import ProgressCallback
from ecgcmr.training.run import finetune

log = logging.getLogger(__name__)

BEGUN = "finetune.json"
_AFTER_READING = frozenset({"method", "overrides", "model", "model_sha256", "test_share", "val_share"})
Say = Callable[[str], None]


def finetune_labels(
    request: FinetuneRequest,
    say: Say = log.info,
    bar: Bar | None = None,
    progress: ProgressCallback | bool = False,
) -> FinetuneResult:
    """Fine-tune on own labels; a killed run goes on when it is repeated with the same request.

    Args:
        request: What to learn, from what, and how.
        say: Gets each sentence that a reader must know, as it comes up.
        bar: Called with a word and a unit while ECG files are read; gives a context with a callback(done, total).
        progress: As in `ecgcmr.training.finetune`.

    Returns:
        Where everything is.

    Raises:
        ValueError: The table, the files, the split or the model do not fit; one message that says where and what to do.
        FileNotFoundError: A file or folder is not there.
        RunInterrupted: After Ctrl-C in training, when the checkpoint is written.
    """
    request.check()
    notes: list[str] = []

    def note(texts: list[str]) -> None:
        for text in texts:
            notes.append(text)
            say(text)

    start = open_start(request.model)
    own = read_own_labels(request.labels, request) if request.labels is not None else None
    if own is not None:
        own = with_split_file(own, request)
        note(list(own.notes))
    elif request.split_file is not None or request.task != "auto":
        raise ValueError("--split-file and --task speak of a table: give --labels, or leave them out")
    _begin(request, start)
    cohort, official = _cohort(request, start, own, note, bar)
    names = [spec.name for spec in own.specs] if own is not None else list(request.label_columns)
    specs = _specs(cohort, names)
    if stored(cohort.path):
        split = open_split(cohort, SPLIT)
    else:
        split, told = make_parts(cohort, names, request, official)
        note(told)
    config = _config(request, start, cohort, specs, split)
    note([_plan(request, config, split)])
    run = finetune(config, resume=config.folder.exists(), progress=progress)
    evaluation = evaluate_run(request, run, cohort.path, bar)
    weights = pack_run(request, run, evaluation, len(split.test), say)
    return FinetuneResult(
        out=request.out,
        weights=weights,
        report=evaluation / "report.html",
        results=evaluation / "results.json",
        predictions=evaluation / "predictions.parquet",
        notes=tuple(notes),
    )


def finetune_on_labels(
    labels: str | Path | None, model: str | Path, out: str | Path, say: Say | None = None, **options: Any
) -> FinetuneResult:
    """Fine-tune on own labels, in one call: `ecgcmr finetune` for notebooks and programs.

    Args:
        labels: Table of labels, CSV; None takes labels that the cohort has.
        model: Weights to start from: a released name, `local-dir:PATH`, or a folder.
        out: Folder of all that is written; with an unfinished job of the same arguments the job goes on.
        say: Gets each sentence that a reader must know, `print` for instance; None logs them.
        **options: Further fields of `FinetuneRequest`: `ecg` or `cohort`, `label_columns`, `method`, ...

    Returns:
        Where everything is.

    Raises:
        ValueError: There is no such option; names those there are. Otherwise as `finetune_labels`.
        FileNotFoundError: A file or folder is not there.
    """
    known = {field.name for field in fields(FinetuneRequest)} - {"labels", "model", "out"}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}")
    request = FinetuneRequest(
        out=Path(out), model=str(model), labels=None if labels is None else Path(labels), **options
    )
    return finetune_labels(request, say or log.info)


def _begin(request: FinetuneRequest, start: Start) -> None:
    """Remember what the folder is for, and refuse to mix two jobs in it.

    A job that has not begun to train may be changed, for instance because its table was corrected: then the ECGs are
    read again only if what was read depends on the change.

    Raises:
        ValueError: The folder holds a trained job of another request, or something else; names what differs.
    """
    identity = {
        **request.identity(),
        "labels_sha256": sha256(request.labels) if request.labels is not None else None,
        "split_file_sha256": sha256(request.split_file) if request.split_file is not None else None,
        "model_sha256": start.weights.config["sha256"],
    }
    out, path = request.out, request.out / BEGUN
    now = json.loads(json.dumps(identity))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        different = sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))
        if not different:
            return
        if (out / "run").exists():
            raise ValueError(
                f"{out} holds the job of other arguments ({', '.join(different)} differ); repeat those to go on with "
                "it, choose another --out, or delete the folder"
            )
        if not set(different) <= _AFTER_READING:
            for name in ("cohort", "cohort.partial"):
                shutil.rmtree(out / name, ignore_errors=True)
        forget_parts(out / "cohort")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is no folder of `ecgcmr finetune`; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(now, indent=1) + "\n")


def _cohort(
    request: FinetuneRequest,
    start: Start,
    own: OwnLabels | None,
    note: Callable[[list[str]], None],
    bar: Bar | None,
) -> tuple[Cohort, bool]:
    """The labelled cohort, and whether its default split has the folds of the table."""
    out = request.out / "cohort"
    folds: dict[str, tuple[str, ...]] = {}
    if own is not None and own.folds is not None and request.ecg is not None:
        folds = parts_of_folds(own.folds, request.folds, str(own.fold_column))
        note([f"split by {own.fold_column!r}: " + ", ".join(f"{part} {'+'.join(f)}" for part, f in folds.items())])
    if not (out / SCHEMA_FILE).is_file():
        if request.ecg is not None:
            assert own is not None, "request.check() asks for labels with files"
            if request.unit == "z" and start.needs_mv:
                raise ValueError(_needs_mv(request.model, "--unit z says that the files have lost their voltage"))
            with bar("reading", "files") if bar else nullcontext() as update:
                _, told = ingest_recordings(own, request, folds, out, update)
        else:
            assert request.cohort is not None
            _, told = label_cohort(Cohort.open(request.cohort), own, request, out)
        note(told)
    cohort = Cohort.open(out)
    lost = int((cohort.recordings["unit"] != "mV").sum())
    if lost and start.needs_mv:
        raise ValueError(_needs_mv(request.model, f"{lost} of {len(cohort.recordings)} recordings have lost theirs"))
    return cohort, bool(folds)


def _needs_mv(model: str, why: str) -> str:
    return f"--model {model} reads voltages [mV], and {why}; take a model of z-scored ECGs, such as ecg_nano_zscored"


def _specs(cohort: Cohort, names: list[str]) -> list[LabelSpec]:
    unknown = [name for name in names if name not in cohort.label_specs]
    if unknown:
        raise ValueError(f"--label {unknown[0]}: {cohort.path} has the labels {', '.join(cohort.label_specs)}")
    return [cohort.label_specs[name] for name in names]


def _config(request: FinetuneRequest, start: Start, cohort: Cohort, specs: list[LabelSpec], split: Split) -> RunConfig:
    owners = cohort.recordings["subject"].to_numpy()
    n_train = int(np.isin(owners, split.train).sum())
    recipe = make_recipe(request, start, cohort.path, specs, (n_train, _monitor(cohort, specs, split)))
    if _may_share(request, start, split):
        recipe["init"]["allow_other_split"] = True
    return load_config(write_recipe(recipe, request.out / "recipe.yaml"), request.overrides)


def _monitor(cohort: Cohort, specs: list[LabelSpec], split: Split) -> str:
    """What decides on the subjects to select on: a rank statistic where they can carry one, else the loss."""
    kinds = {spec.kind for spec in specs}
    values = cohort.labels.loc[split.val]
    if kinds == {"regression"}:
        return "r" if len(values) >= 10 else "loss"
    if kinds <= {"time", "event"}:
        events = sum(float(values[spec.name].sum()) for spec in specs if spec.kind == "event")
        return "c_index" if events >= 3 else "loss"
    if kinds <= {"binary", "category"}:
        rare = [int(values[spec.name].value_counts().reindex([0.0, 1.0]).fillna(0).min()) for spec in specs]
        return "auroc" if max(rare) >= 3 else "loss"
    return "loss"


def _may_share(request: FinetuneRequest, start: Start, split: Split) -> bool:
    """Whether the split may be another one than that of the weights: only if it keeps their test subjects apart.

    Files that were just read have no split in common with anything. In a cohort the parts of its own split, without
    the subjects that have no label, are those that the weights were trained with.
    """
    if request.cohort is None:
        return True
    stored_as = Cohort.open(request.cohort).schema.files.get(f"splits/{split.how.get('of')}.json", "")
    return bool(stored_as) and start.weights.config["run"].get("split_sha256") == stored_as[:16]


def _plan(request: FinetuneRequest, config: RunConfig, split: Split) -> str:
    size: Any = config.model.ecg.preset
    probe = f" after a probe of {config.probe.epochs}" if config.probe else ""
    return (
        f"method {request.method}: {request.model} ({size}) on {len(split.train)} subjects, at most "
        f"{config.train.epochs} epochs{probe}, selected by {config.train.monitor} on {len(split.val)} others"
    )
