"""The macro mean of a metric: over targets, in every draw, so that its interval knows how the targets vary together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecgcmr.evaluation.scores import Score

MACRO = "macro"


def macro_mean(scores: Sequence[Score], metric: str) -> Score:
    """Average one metric of one arm over its targets.

    Args:
        scores: Scores of one arm; those of other metrics are left out.
        metric: Name of the metric.

    Returns:
        A score of the target `macro`. Its number of subjects is the smallest of the targets'.

    Raises:
        ValueError: If no target has this metric, or the scores are of several arms, seeds or draws.
    """
    found = [score for score in scores if score.metric == metric]
    if not found:
        raise ValueError(f"no target was scored by {metric!r}; there are {sorted({s.metric for s in scores})}")
    if len({(score.key, score.seeds, score.draws.shape) for score in found}) != 1:
        raise ValueError(f"the scores of {metric!r} are of several arms, label draws or bootstrap draws")
    return replace(
        found[0],
        target=MACRO,
        values=np.mean([score.values for score in found], axis=0),
        draws=np.mean([score.draws for score in found], axis=0),
        n_subjects=min(score.n_subjects for score in found),
    )
