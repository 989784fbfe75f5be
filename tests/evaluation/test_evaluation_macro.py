"""The macro mean over targets: its value, and an interval that knows how the targets vary together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.macro import macro_mean
from ecgcmr.evaluation.predictions import make_predictions
from ecgcmr.evaluation.scores import ArmKey, difference, score_predictions


def table(seed: int, copies: bool = False) -> pd.DataFrame:
    """Two noisy classifiers of 300 subjects; with `copies`, the second is the first again."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((300, 2)) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-(truth + rng.normal(0, 1, (300, 2)))))
    if copies:
        truth[:, 1], score[:, 1] = truth[:, 0], score[:, 0]
    return make_predictions(np.arange(300), ("a", "b"), (truth, score), ["test"] * 300)


def scores_of(*, copies: bool = False, arm: str = "x"):
    draws = draw_subjects(np.arange(300), 400, np.random.default_rng(1))
    tables = {seed: table(seed, copies) for seed in (0, 1)}
    return score_predictions(tables, {"a": "binary", "b": "binary"}, draws, ArmKey(arm, "probe", 50))


def test_macro__is_the_mean_of_values_and_of_draws():
    scores = [score for score in scores_of() if score.metric == "auroc"]
    macro = macro_mean(scores_of(), "auroc")
    assert macro.target == "macro"
    np.testing.assert_allclose(macro.values, (scores[0].values + scores[1].values) / 2)
    np.testing.assert_allclose(macro.draws, (scores[0].draws + scores[1].draws) / 2)


def test_macro__of_copies_has_the_interval_of_one_and_of_independent_targets_a_shorter_one():
    same = scores_of(copies=True)
    one = next(score for score in same if score.metric == "auroc")
    np.testing.assert_allclose(macro_mean(same, "auroc").interval(), one.interval())
    apart = scores_of()
    single = [score.interval(label_draws=False) for score in apart if score.metric == "auroc"]
    macro = macro_mean(apart, "auroc").interval(label_draws=False)
    # Independent targets of equal precision: the standard error falls by the square root of 2.
    widths = [one.hi - one.lo for one in single]
    assert (macro.hi - macro.lo) / np.mean(widths) == pytest.approx(2**-0.5, abs=0.12)


def test_macro__of_a_difference_is_the_difference_of_macros():
    a, b = scores_of(), scores_of(copies=True, arm="y")
    first = macro_mean(difference(a, b), "auroc_diff")
    second = difference([macro_mean(a, "auroc")], [macro_mean(b, "auroc")])[0]
    np.testing.assert_allclose(first.draws, second.draws)
    assert first.compared_to == second.compared_to == "y"


def test_macro__refuses_a_metric_nobody_has_and_scores_of_two_arms():
    with pytest.raises(ValueError, match="no target was scored by 'r2'"):
        macro_mean(scores_of(), "r2")
    with pytest.raises(ValueError, match="several arms"):
        macro_mean([*scores_of(), *scores_of(arm="y")], "auroc")
