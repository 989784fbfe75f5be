"""Who was evaluated: from the files that were seen to the test subjects with a label, and who was lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.ledger import EXPLANATIONS, Reason, dropped_by_reason
from ecgcmr.cohort.splits import Split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.baselines import Rows

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
    dropped = [{"why": _explain(reason), "n": n} for reason, n in dropped_by_reason(ledger).items()]
    kept = sum(row["status"] == "kept" for row in ledger)
    everyone = cohort.subjects["subject"].to_numpy()
    table = cohort.recordings if modality == "ecg" else cohort.studies
    with_data = np.intersect1d(everyone, table["subject"].to_numpy())
    members = np.concatenate([split.train, split.val, split.test])
    in_split = np.intersect1d(with_data, members)
    usable = dataset.unique_subjects
    refused = Counter(one.reason for one in dataset.dropped if one.subject not in set(usable.tolist()))
    parts = {part: len(np.intersect1d(usable, split.part(part))) for part in ("train", "val", "test")}
    observed = {target: len(np.unique(one.subjects[one.seen("test")])) for target, one in rows.items()}
    return [
        {"stage": f"{name} files seen", "n": kept + sum(row["n"] for row in dropped), "of": words, "lost": dropped},
        _stage("Subjects in the cohort", everyone, [(f"without a kept {name}", len(everyone) - len(with_data))]),
        _stage(f"with {name}", with_data, [(f"in no part of the split {split.name}", len(with_data) - len(in_split))]),
        _stage("in the split", in_split, [(f"refused by the preprocessing: {why}", n) for why, n in refused.items()]),
        _stage(f"with an {name} that the model takes", usable, []) | {"parts": parts, "targets": observed},
    ]


def _stage(words: str, subjects: Any, lost: list[tuple[str, int]]) -> dict[str, Any]:
    gone = [{"why": why, "n": int(n)} for why, n in lost if n]
    return {"stage": words, "n": len(subjects), "of": "subjects", "lost": gone}


def _explain(reason: str) -> str:
    return EXPLANATIONS[Reason(reason)] if reason in set(Reason) else reason
