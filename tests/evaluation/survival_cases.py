"""Censored outcomes with a planted hazard, and plain loops that the vectorized metrics must equal."""

import numpy as np

from ecgcmr.evaluation.survival import Survival


def cohort(n, seed=0, ties=False, censoring=0.15):
    """Exponential times with hazard 0.1 exp(score); censored at random and at 12 years. Ties: whole years."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    event_time = rng.exponential(10 * np.exp(-score))
    censored = np.minimum(rng.exponential(1 / censoring, n) if censoring else np.full(n, np.inf), 12.0)
    event = (event_time <= censored).astype(float)
    time = np.minimum(event_time, censored)
    return (np.ceil(time) if ties else time), event, (np.round(score, 1) if ties else score)


def data(n, seed=0, ties=False, censoring=0.15, horizons=(2.0, 4.0, 6.0)):
    time, event, score = cohort(n, seed, ties, censoring)
    risks = np.stack([1 - np.exp(-0.1 * h * np.exp(score)) for h in horizons], axis=1)
    return Survival(time, event, score, np.arange(n), risks, tuple(horizons))


def censoring_left(time, event, t):
    """P(C >= t) by its product over earlier censorings, events at the same time gone first."""
    value = 1.0
    for u in sorted(set(time[(event == 0) & (time < t)])):
        at_risk = (time > u).sum() + ((time == u) & (event == 0)).sum()
        value *= 1 - ((time == u) & (event == 0)).sum() / at_risk
    return value


def plain_concordance(time, event, score, tau=np.inf, uno=False):
    good, pairs = 0.0, 0.0
    for i in np.flatnonzero(event == 1):
        if uno and not time[i] < tau:
            continue
        weight = censoring_left(time, event, time[i]) ** -2 if uno else 1.0
        later = (time > time[i]) | ((time == time[i]) & (event == 0))
        good += weight * ((score[i] > score[later]).sum() + 0.5 * (score[i] == score[later]).sum())
        pairs += weight * later.sum()
    return good / pairs


def plain_auc(time, event, score, horizon):
    case, control = (time <= horizon) & (event == 1), time > horizon
    weight = np.array([1 / censoring_left(time, event, t) for t in time[case]])
    higher = score[case][:, None] - score[control][None]
    return (weight[:, None] * ((higher > 0) + 0.5 * (higher == 0))).sum() / (weight.sum() * control.sum())


def plain_brier(time, event, risk, horizon):
    case, control = (time <= horizon) & (event == 1), time > horizon
    left = np.array([censoring_left(time, event, t) for t in time[case]])
    beyond = censoring_left(time, event, np.nextafter(horizon, np.inf))
    return (((1 - risk[case]) ** 2 / left).sum() + (risk[control] ** 2).sum() / beyond) / len(time)
