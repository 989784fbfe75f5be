"""Pairs of an ECG and a CMR study of one subject, nearest visit first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class PairCounts:
    """How pairing went.

    Attributes:
        paired: Recordings with a study.
        unpaired: Why -> recordings without one.
        studies_alone: Studies that are in no pair.
    """

    paired: int
    unpaired: dict[str, int] = field(default_factory=dict)
    studies_alone: int = 0


def pair(recordings: pd.DataFrame, studies: pd.DataFrame, within_days: float | None) -> pd.DataFrame:
    """All pairs of a recording and a study of the same subject that lie close enough.

    Several recordings may share a study, and a recording has one pair for each study within reach; `rank` 0 is the
    nearest of its view. Of two studies equally far, the later one is nearer (an ECG before the scan says more about it
    than one long after), then the one that comes first in `studies`. Where a day is unknown, the pair counts only
    without a limit, and ranks behind all that are known, in the order of `studies`.

    Args:
        recordings: Columns recording, subject, visit_days.
        studies: Columns study, subject, visit_days, view.
        within_days: Largest distance [days], or None for any.

    Returns:
        Columns recording, study, view, days_apart (study minus recording [days], NaN if unknown) and rank; sorted by
        recording, view and rank.
    """
    left = recordings[["recording", "subject", "visit_days"]]
    right = studies[["study", "subject", "visit_days", "view"]]
    both = left.merge(right, on="subject", suffixes=("", "_study"))
    both["days_apart"] = both["visit_days_study"] - both["visit_days"]
    if within_days is not None:
        both = both[both["days_apart"].abs() <= within_days]
    order = both.assign(far=both["days_apart"].abs(), before=both["days_apart"] < 0)
    order = order.sort_values(["recording", "view", "far", "before", "study"], kind="stable", na_position="last")
    order["rank"] = order.groupby(["recording", "view"], sort=False).cumcount().astype(np.int64)
    return order[["recording", "study", "view", "days_apart", "rank"]].reset_index(drop=True)


def count_pairs(recordings: pd.DataFrame, studies: pd.DataFrame, pairs: pd.DataFrame) -> PairCounts:
    """Count what is paired and why the rest is not."""
    alone = recordings[~recordings["recording"].isin(pairs["recording"])]
    no_study = ~alone["subject"].isin(studies["subject"])
    dated = studies[studies["visit_days"].notna()]
    no_day = ~no_study & (alone["visit_days"].isna() | ~alone["subject"].isin(dated["subject"]))
    reasons = {
        "subject has no study": int(no_study.sum()),
        "day of the visit unknown": int(no_day.sum()),
        "no study close enough": int((~no_study & ~no_day).sum()),
    }
    return PairCounts(
        paired=len(recordings) - len(alone),
        unpaired={reason: count for reason, count in reasons.items() if count},
        studies_alone=int((~studies["study"].isin(pairs["study"])).sum()),
    )


def nearest_studies(recordings: pd.DataFrame, studies: pd.DataFrame, pairs: pd.DataFrame | None) -> NDArray[np.int64]:
    """Row of the study that each recording is paired with (n,), -1 without.

    Args:
        recordings: Columns subject and row, of the recordings that can be used.
        studies: The same of the studies.
        pairs: As `pair` made them; None pairs a recording with the subject's first study.
    """
    if pairs is None:
        keys, first = recordings["subject"], studies.drop_duplicates("subject").set_index("subject")["row"]
    else:
        near = pairs[pairs["study"].isin(studies["row"])]
        near = near.sort_values(["recording", "rank"], kind="stable").drop_duplicates("recording")
        keys, first = recordings["row"], near.set_index("recording")["study"]
    return keys.map(first).fillna(-1).to_numpy(dtype=np.int64)
