"""Who was evaluated: from the files that were seen to the test subjects with a label, and who was lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.ledger import EXPLANATIONS, Reason, dropped_by_reason
from ecgcmr.cohort.splits import Split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.baselines import Rows

MOST_REASONS = 5
WORDS = {"ecg": ("ECG", "recordings"), "cmr": ("CMR", "studies")}


def cohort_flow(
    cohort: Cohort, split: Split, dataset: PairedDataset, modality: str, rows: Mapping[str, Rows]
) -> list[dict[str, Any]]:
    """Stages of the flow diagram.

    Args:
        cohort: The cohort.
        split: Its split.
        dataset: Items of all subjects of the split.
        modality: `ecg` or `cmr`.
        rows: Target -> rows of all items.

    Returns:
        One mapping for each stage: `stage` (words), `n`, `of` (what is counted), and `lost`, a list of `why` and `n`
        that left between this stage and the next. The last stage has `parts`, the number of subjects in each part,
        and `targets`: target -> test subjects with an observed label.
    """
    name, words = WORDS[modality]
    ledger = [row for row in cohort.ledger.to_dict("records") if row["kind"] == modality]
    dropped = [(_explain(reason), n) for reason, n in dropped_by_reason(ledger).items()]
    seen = sum(bool(row["status"] == "kept") for row in ledger) + sum(n for _, n in dropped)
    everyone = cohort.subjects["subject"].to_numpy()
    table = cohort.recordings if modality == "ecg" else cohort.studies
    with_data = np.intersect1d(everyone, table["subject"].to_numpy())
    members = np.concatenate([split.train, split.val, split.test])
    in_split = np.intersect1d(with_data, members)
    usable = dataset.unique_subjects
    # Who has another recording that is usable is not lost; who has several that are not is lost once.
    first = {one.subject: one.reason for one in reversed(dataset.dropped)}
    gone = np.setdiff1d(np.fromiter(first, dtype=np.int64, count=len(first)), usable)
    refused = Counter(first[int(subject)] for subject in gone).most_common()
    parts = {part: len(np.intersect1d(usable, split.part(part))) for part in ("train", "val", "test")}
    observed = {target: len(np.unique(one.subjects[one.seen("test")])) for target, one in rows.items()}
    return [
        {"stage": f"{name} files seen", "n": seen, "of": words, "lost": _lost(dropped)},
        _stage("Subjects in the cohort", everyone, [(f"without a kept {name}", len(everyone) - len(with_data))]),
        _stage(f"with {name}", with_data, [(f"in no part of the split {split.name}", len(with_data) - len(in_split))]),
        _stage("in the split", in_split, [(f"refused by the preprocessing: {why}", n) for why, n in refused]),
        _stage(f"with {'an' if modality == 'ecg' else 'a'} {name} that the model takes", usable, [])
        | {"parts": parts, "targets": observed},
    ]


def _stage(words: str, subjects: NDArray[np.int64], lost: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return {"stage": words, "n": len(subjects), "of": "subjects", "lost": _lost(lost)}


def _lost(reasons: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """The most frequent reasons, and the others together."""
    there = sorted(((why, int(n)) for why, n in reasons if n), key=lambda one: -one[1])
    rest = sum(n for _, n in there[MOST_REASONS:])
    rows = [{"why": why, "n": n} for why, n in there[:MOST_REASONS]]
    return [*rows, {"why": "for other reasons", "n": rest}] if rest else rows


def _explain(reason: str) -> str:
    return EXPLANATIONS[Reason(reason)] if reason in set(Reason) else reason
