"""Which subjects of a part a run takes: balanced by undersampling, limited to a number or a share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.mixture import AnyDataset
from ecgcmr.training.config import DataConfig
from ecgcmr.training.randomness import derive_seed


def drawn_subjects(dataset: AnyDataset, config: DataConfig, part: str) -> NDArray[np.int64] | None:
    """Draw the subjects of a part; smaller draws of one seed are nested in larger ones.

    Args:
        dataset: All items of the part.
        config: With the limits and, for the training part, the label to balance.
        part: "train" or "val".

    Returns:
        Subjects (n,), or None where the run takes all.

    Raises:
        ValueError: If there are fewer subjects than asked for, or the label cannot be balanced.
    """
    training = part == "train"
    limit, share = (config.train_subjects, config.train_share) if training else (config.val_subjects, None)
    balance = config.undersample if training else None
    if limit is None and share is None and balance is None:
        return None
    draw = np.random.default_rng(derive_seed(config.draw_seed, f"{part} subjects"))
    subjects = draw.permutation(dataset.unique_subjects)
    if balance is not None:
        subjects = _balanced(dataset, balance, subjects)
    if share is not None:
        limit = max(round(share * len(subjects)), 1)
    if limit is not None and limit > len(subjects):
        raise ValueError(f"data.{part}_subjects is {limit}, but {len(subjects)} {part} subjects can be used")
    return subjects[:limit]


def _balanced(dataset: AnyDataset, label: str, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Take as many subjects with a binary label as without, one after the other, so that each even number balances."""
    spec = dataset.label_specs.get(label)
    if spec is None or spec.kind != "binary":
        what = "no label" if spec is None else f"a label of kind {spec.kind}"
        raise ValueError(f"data.undersample: {label!r} is {what} in {dataset.where}; name a binary label of it")
    values = dataset.label_values(label)
    with_label = np.isin(order, dataset.subjects[values == 1])  # in any of the subject's recordings
    without = np.isin(order, dataset.subjects[values == 0]) & ~with_label
    cases, controls = order[with_label], order[without]
    n = min(len(cases), len(controls))
    if n == 0:
        raise ValueError(
            f"data.undersample: of the training subjects {len(cases)} have {label!r} and {len(controls)} do not; "
            "balancing needs at least one of each: take another label, or leave it out"
        )
    return np.stack([cases[:n], controls[:n]], axis=1).ravel()
