"""Orders of an epoch in which not every sample comes once: by weight, or by shares of groups or of cohorts.

Like `epoch_order` they are functions of (seed, epoch) alone, so that runs resume at any step on any number of
processes. An epoch has as many places as there are samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.cohort.sampler import epoch_order

_PURPOSE_WEIGHTED, _PURPOSE_GROUP = 0x3E16, 0x6209


class WeightedOrder:
    """Each sample comes n * weight / sum of weights times an epoch, rounded up or down at random; then shuffled.

    The places are drawn by systematic resampling, which varies less than independent draws and has the same mean.

    Args:
        weights: (n,) not negative, with a sum above 0.

    Raises:
        ValueError: If a weight is negative or not finite, or all are 0.
    """

    def __init__(self, weights: ArrayLike) -> None:
        values = np.asarray(weights, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
        if len(bad):
            raise ValueError(f"the weight of item {bad[0]} is {values[bad[0]]}, expected a finite number from 0 on")
        if not values.sum() > 0:
            raise ValueError(f"all {len(values)} weights are 0: there is nothing to draw from")
        self._edges = np.cumsum(values) / values.sum()
        self._edges[np.flatnonzero(values)[-1] :] = 1.0  # against rounding: nothing of weight 0 lies beyond

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch (n,)."""
        n = len(self._edges)
        sequence = np.random.SeedSequence(entropy=seed, spawn_key=(_PURPOSE_WEIGHTED, epoch))
        start = np.random.Philox(sequence).random_raw(1)[0] / 2.0**64
        places = np.minimum((np.arange(n) + start) / n, np.nextafter(1.0, 0.0))
        picked = np.searchsorted(self._edges, places, side="right").astype(np.int64)
        return picked[epoch_order(n, seed, epoch)]


class GroupedOrder:
    """Each group has its share of every epoch; within a group all samples come equally often, none twice too early.

    A group goes through its samples in one random order after the other and takes up where the last epoch stopped.
    Groups may be sexes, sites, or the cohorts of a run that learns from several.

    Args:
        groups: Group of each sample (n,), any integers.
        shares: Share of each group by its number, not negative; scaled to a sum of 1. None gives all groups alike.

    Raises:
        ValueError: If a share is missing, negative or not finite, or all are 0.
    """

    def __init__(self, groups: ArrayLike, shares: dict[int, float] | None = None) -> None:
        codes, inverse = np.unique(np.asarray(groups, dtype=np.int64), return_inverse=True)
        self.groups: tuple[int, ...] = tuple(codes.tolist())
        wanted = np.array([1.0 if shares is None else shares.get(code, np.nan) for code in self.groups])
        if not np.isfinite(wanted).all() or (wanted < 0).any() or not wanted.sum() > 0:
            raise ValueError(f"shares must have a number from 0 on for each of the groups {self.groups}, got {shares}")
        self.n = len(inverse)
        self._members = [np.flatnonzero(inverse == place) for place in range(len(codes))]
        self.quotas = _largest_remainders(self.n * wanted / wanted.sum())

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch (n,)."""
        parts = [self._draw(place, seed, epoch) for place in range(len(self.groups))]
        return np.concatenate(parts)[epoch_order(self.n, seed, epoch)]

    def _draw(self, place: int, seed: int, epoch: int) -> NDArray[np.int64]:
        members, quota = self._members[place], self.quotas[place]
        first, last = epoch * quota // len(members), -(-(epoch + 1) * quota // len(members))
        rounds = []
        for number in range(first, last):
            key = (_PURPOSE_GROUP, self.groups[place] % 2**32, number)
            sequence = np.random.SeedSequence(entropy=seed, spawn_key=key)
            keys = np.random.Philox(sequence).random_raw(len(members))
            rounds.append(members[np.argsort(keys, kind="stable")])
        start = epoch * quota - first * len(members)
        drawn = np.concatenate(rounds) if rounds else members[:0]
        return drawn[start : start + quota].astype(np.int64)


def balanced_shares(groups: ArrayLike, balance: float) -> dict[int, float]:
    """Give shares between those of the data and equal ones: proportional to size ** (1 - balance).

    Args:
        groups: Group of each sample (n,).
        balance: 0 keeps the shares of the data, 1 gives all groups the same, 0.5 is in between (arXiv 1907.05019).
    """
    codes, sizes = np.unique(np.asarray(groups, dtype=np.int64), return_counts=True)
    shares = sizes ** (1.0 - balance)
    return dict(zip(codes.tolist(), (shares / shares.sum()).tolist(), strict=True))


def _largest_remainders(wanted: NDArray[np.float64]) -> list[int]:
    """Round to integers with the same sum; who loses most by rounding down gets what is left."""
    quotas = np.floor(wanted + 1e-9).astype(np.int64)
    left = round(float(wanted.sum())) - int(quotas.sum())
    quotas[np.argsort(quotas - wanted, kind="stable")[:left]] += 1
    return [int(quota) for quota in quotas]
