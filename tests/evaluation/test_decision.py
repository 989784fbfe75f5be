import numpy as np
import pytest

from ecgcmr.evaluation.bootstrap import draw_subjects, paired_difference
from ecgcmr.evaluation.decision import decision_curve, net_benefits


def test_decision_curve__equals_a_hand_example():
    """Six subjects, two ill. At 0.25 five are called (2 ill): 2/6 - 3/6 * 1/3; at 0.5 three are called (2 ill)."""
    truth, risk = [1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.6, 0.3, 0.25, 0.1]
    draws = draw_subjects(np.arange(6), 10, np.random.default_rng(0))
    curve = decision_curve((truth, risk), np.arange(6), draws, (0.25, 0.5))
    assert curve["net_benefit"].tolist() == pytest.approx([2 / 6 - 3 / 6 / 3, 2 / 6 - 1 / 6])
    assert curve["treat_all"].tolist() == pytest.approx([2 / 6 - 4 / 6 / 3, 2 / 6 - 4 / 6])
    assert curve["gain"].tolist() == pytest.approx([1 / 6 - 1 / 9, 1 / 6])
    assert curve["n_subjects"].tolist() == [6, 6]


def test_decision_curve__draws_equal_resampled_rows():
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(40), 2)
    truth, risk = (rng.random(80) < 0.3).astype(float), rng.random(80)
    draws = draw_subjects(subjects, 15, rng)
    model, everyone = net_benefits((truth, risk), subjects, draws, (0.2, 0.4))
    for k, cut in enumerate((0.2, 0.4)):
        for b in range(15):
            rows = np.repeat(np.arange(80), draws.counts[b][subjects])
            y, called = truth[rows], risk[rows] >= cut
            expected = (y * called).mean() - ((1 - y) * called).mean() * cut / (1 - cut)
            assert model[k].draws[b] == pytest.approx(expected)
            assert everyone[k].draws[b] == pytest.approx(y.mean() - (1 - y.mean()) * cut / (1 - cut))


def test_decision_curve__a_calibrated_model_is_never_worse_than_the_defaults():
    rng = np.random.default_rng(2)
    risk = rng.beta(1, 5, 4000)
    truth = (rng.random(4000) < risk).astype(float)
    draws = draw_subjects(np.arange(4000), 300, rng)
    curve = decision_curve((truth, risk), np.arange(4000), draws)
    assert (curve["gain_hi"] > 0).all()
    assert (curve["gain"] > -0.002).all()
    middle = curve[(curve["threshold"] > 0.1) & (curve["threshold"] < 0.3)]
    assert (middle["gain_lo"] > 0).all()
    # Two arms over the same draws: the true risk beats a noisy one, paired.
    noisy = np.clip(risk + rng.normal(0, 0.2, 4000), 0, 1)
    cuts = (0.2,)
    arms = [net_benefits((truth, p), np.arange(4000), draws, cuts)[0][0] for p in (risk, noisy)]
    assert paired_difference(*arms).interval().lo > 0


def test_decision_curve__leaves_out_missing_and_refuses_nonsense():
    draws = draw_subjects(np.arange(3), 5, np.random.default_rng(0))
    curve = decision_curve(([1, 0, np.nan], [0.9, 0.1, 0.9]), np.arange(3), draws, (0.5,))
    assert curve["net_benefit"].tolist() == [0.5]
    assert curve["n_subjects"].tolist() == [2]
    with pytest.raises(ValueError, match="between 0 and 1"):
        decision_curve(([1, 0], [0.9, 0.1]), [0, 1], draws, (1.0,))
    with pytest.raises(ValueError, match="probabilities"):
        decision_curve(([1, 0], [1.9, 0.1]), [0, 1], draws)
    with pytest.raises(ValueError, match="every truth is NaN"):
        decision_curve(([np.nan, np.nan], [0.9, 0.1]), [0, 1], draws)
