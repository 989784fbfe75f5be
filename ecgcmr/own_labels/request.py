"""What a user asks of `finetune_labels`, and what comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Called with a word and a unit; gives a context with a callback(done, total)."""

TASKS = ("auto", "regression", "binary", "classes", "survival")
METHODS = ("full", "linear", "attention", "mlp", "lp-ft")
TEST_SHARE, VAL_SHARE = 0.2, 0.15


_PATHS = ("out", "labels", "ecg", "cohort", "split_file")
_LISTS = ("label_columns", "group_columns", "leads", "overrides")


@dataclass(frozen=True)
class FinetuneRequest:
    """How to fine-tune on own labels. Paths may be given as text, and names as any sequence of texts.

    Attributes:
        out: Folder of all that is written.
        model: Weights to start from: a released name, `local-dir:PATH`, or a folder.
        labels: Table of labels, CSV; None takes labels that the cohort has.
        ecg: Folder of ECG files, or None.
        cohort: Folder of a cohort, or None; one of the two must be given.
        task: What every label is: "auto" infers it, "regression", "binary", "classes" (values that exclude each
            other), or "survival" (pairs NAME_time and NAME_event).
        method: "full" trains all weights, "linear", "attention" and "mlp" train a head on the frozen encoder, "lp-ft"
            trains a linear head first and then all weights.
        label_columns: Labels to learn; empty for all that can be.
        group_columns: Columns to report by, beside sex and age.
        item_column: Column with the recording; None for the first column.
        subject_column: Column with the subject; None recognizes the usual names.
        path_pattern: Regular expression whose first group, found in a file's path, is its key in the table.
        fold_column: Column with folds, or with train, val and test; None recognizes a column `split`.
        folds: Part -> folds; empty takes the last fold as test and the one before as val.
        cohort_split: Split of the cohort to use where no folds are given.
        split_file: CSV with the columns subject (or the key of the table) and split, or None.
        test_share: Share of the subjects to test on where no split is given.
        val_share: Share of the subjects to select on.
        unit: Unit of ECG files that state none: mV, uV, V, or z for standardized arrays.
        rate_hz: Sampling rate of files that state none [Hz].
        leads: Lead names of files that state none.
        provenance: Where the data come from; stands in the card of the weights.
        seed: Seed of split and training.
        workers: Processes that read files.
        allow_unmatched: Go on when more than half of the rows match no recording.
        overrides: KEY=VALUE for the recipe of the run, for instance `train.epochs=5`.
        evaluation: Options of `ecgcmr.evaluation.evaluate.evaluate_weights`, for instance {"n_draws": 500}.
    """

    out: Path
    model: str
    labels: Path | None = None
    ecg: Path | None = None
    cohort: Path | None = None
    task: str = "auto"
    method: str = "full"
    label_columns: tuple[str, ...] = ()
    group_columns: tuple[str, ...] = ()
    item_column: str | None = None
    subject_column: str | None = None
    path_pattern: str | None = None
    fold_column: str | None = None
    folds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cohort_split: str = "default"
    split_file: Path | None = None
    test_share: float | None = None
    val_share: float = VAL_SHARE
    unit: str | None = None
    rate_hz: float | None = None
    leads: tuple[str, ...] | None = None
    provenance: str = "participant-derived: own labels"
    seed: int = 0
    workers: int = 1
    allow_unmatched: bool = False
    overrides: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring what a notebook writes, text for a path and a list for a tuple, to the types of the fields.

        Raises:
            ValueError: One text where several are expected, of which each letter would be taken for a name.
        """
        for name in _PATHS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in _LISTS:
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name}={value!r}: expected a list of texts, such as [{value!r}]")
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "model", str(self.model))

    def check(self) -> None:
        """Refuse what contradicts itself or names what is not there.

        Raises:
            ValueError: Options that do not go together, or a value that is none of those there are.
            FileNotFoundError: A file or folder that is not there.
        """
        if (self.ecg is None) == (self.cohort is None):
            raise ValueError("give --ecg FOLDER with ECG files, or --cohort COHORT: one of the two")
        if self.labels is None and (self.cohort is None or not self.label_columns):
            raise ValueError(
                "give --labels FILE.csv; only with --cohort its own labels can be named by --label instead"
            )
        for name, value, known in (("--task", self.task, TASKS), ("--method", self.method, METHODS)):
            if value not in known:
                raise ValueError(f"{name} {value}: expected one of {', '.join(known)}")
        files = (("--labels", self.labels), ("--split-file", self.split_file))
        for name, path in files:
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"{name} {path}: there is no such file")
        if self.ecg is not None and not self.ecg.is_dir():
            raise FileNotFoundError(f"--ecg {self.ecg}: there is no such folder")
        for name, share in (("--test-share", self.test_share or TEST_SHARE), ("--val-share", self.val_share)):
            if not 0 < share < 1:
                raise ValueError(f"{name} {share:g}: expected a share between 0 and 1")
        if (self.test_share or TEST_SHARE) + self.val_share >= 1:
            raise ValueError("--test-share and --val-share leave no subject to train on: their sum must be below 1")
        if self.split_file is not None and self.fold_column is not None:
            raise ValueError("--split-file and --by-folds both say who is tested: give one of them")
        if self.test_share is not None and (self.split_file or self.fold_column):
            raise ValueError("--test-share has no meaning where the split is given")

    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain JSON; paths only by their last part, for they may name people."""
        plain = asdict(self)
        for name in ("out", "workers", "evaluation"):
            del plain[name]
        for name in ("labels", "ecg", "cohort", "split_file"):
            plain[name] = plain[name].name if plain[name] is not None else None
        return plain


@dataclass(frozen=True)
class FinetuneResult:
    """What was written.

    Attributes:
        out: The folder.
        weights: Weights folder with the fine-tuned encoder, its head and its card.
        report: One page, HTML.
        results: results.json.
        predictions: Table of predictions of the test subjects.
        notes: What a reader must know, one sentence each.
    """

    out: Path
    weights: Path
    report: Path
    results: Path
    predictions: Path
    notes: tuple[str, ...] = ()

    @property
    def evaluation(self) -> Path:
        """Folder of the evaluation, for `read_evaluation` and `headline_table`."""
        return self.results.parent

    @property
    def cohort(self) -> Path:
        """The labelled cohort, as it was read."""
        return self.out / "cohort"


def run_name(out: Path) -> str:
    """A name for run and weights, from the name of the folder."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", out.resolve().name).lstrip("._-") or "finetuned"
