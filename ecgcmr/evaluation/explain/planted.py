"""Planted truth: on simulated hearts it is known where the scar is, so a map of infarction can be wrong.

Two null hypotheses. Own scar: a map is compared with the scars of other subjects, drawn by permutation; a model that
looks at the same place in everybody does not pass. Place: the places of each map are shuffled; a map that points
anywhere but at scars does not pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ecgcmr.cohort.store import Cohort
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.population import draw_heart

Array = NDArray[np.float64]
PERMUTATIONS = 5000


@dataclass(frozen=True)
class PlantedCheck:
    """Agreement of maps with the planted truth.

    Attributes:
        method: Method of the maps, with its settings.
        target: Explained output.
        statistic: What is compared: `rank correlation` over places, or `share` of the map in the true places.
        value: Mean over subjects.
        lo: Lower end of the 95 % bootstrap interval by subject.
        hi: Upper end.
        other_scars: Mean when maps are compared with other subjects' scars.
        p_own: Two-sided permutation p-value that the own scar is met as others' are.
        shuffled: Mean when the places of the maps are shuffled.
        p_place: Two-sided permutation p-value that the places are met as shuffled ones are.
        subjects: Subjects (n,).
        profiles: Map of each subject over the places (n, P).
        truth: Truth over the places (n, P).
    """

    method: str
    target: str
    statistic: str
    value: float
    lo: float
    hi: float
    other_scars: float
    p_own: float
    shuffled: float
    p_place: float
    subjects: NDArray[np.int64]
    profiles: Array
    truth: Array

    @property
    def points_to_scar(self) -> bool:
        """Whether the own scar is met above chance (above both null hypotheses, each with p below .05)."""
        return self.verdict == "points to the scar"

    @property
    def verdict(self) -> str:
        """What the numbers say, in words."""
        if self.p_own < 0.05 and self.value < self.other_scars:
            return "points away from the scar"
        if self.p_own < 0.05 and self.p_place < 0.05 and self.value > max(self.other_scars, self.shuffled):
            return "points to the scar"
        return "no better than chance"

    def row(self) -> dict[str, object]:
        """The numbers alone, for a table."""
        names = ("method", "target", "statistic", "value", "lo", "hi", "other_scars", "p_own", "shuffled", "p_place")
        return {name: getattr(self, name) for name in names} | {
            "n": len(self.subjects),
            "verdict": self.verdict,
        }


def compare(
    about: tuple[str, str, str],
    subjects: NDArray[np.int64],
    profiles: Array,
    truth: Array,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> PlantedCheck:
    """Compare maps with the truth of each subject.

    Args:
        about: Method, target and statistic (`rank correlation` or `share`).
        subjects: (n,).
        profiles: Maps over places (n, P); for `share` not negative.
        truth: Size of the truth (n, P); for `share` 0 or 1.
        permutations: Of each null hypothesis.
        seed: Of the permutations.

    Raises:
        ValueError: Fewer than three subjects, or an unknown statistic.
    """
    if len(subjects) < 3:
        raise ValueError(f"{len(subjects)} subjects with a scar: a permutation test needs at least 3, simulate more")
    if about[2] == "rank correlation":
        a, b = _unit_ranks(profiles), _unit_ranks(truth)
    elif about[2] == "share":
        total = profiles.sum(axis=1, keepdims=True)
        a = np.divide(profiles, total, out=np.full_like(profiles, 1 / profiles.shape[1]), where=total > 0)
        b = (truth > 0).astype(np.float64)
    else:
        raise ValueError(f"statistic is {about[2]!r}, expected 'rank correlation' or 'share'")
    rng = np.random.default_rng(seed)
    agreement = a @ b.T
    own = np.diag(agreement).copy()
    n, value = len(own), float(own.mean())
    orders = rng.permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)
    others = agreement[np.arange(n), orders].mean(axis=1)
    places = np.empty(permutations)
    for i in range(permutations):
        places[i] = (rng.permuted(a, axis=1) * b).sum(axis=1).mean()
    boot = own[rng.integers(0, n, (permutations, n))].mean(axis=1)
    lo, hi = (float(x) for x in np.quantile(boot, [0.025, 0.975]))
    return PlantedCheck(
        *about, value, lo, hi, float(others.mean()), _p(others, value), float(places.mean()), _p(places, value),
        subjects, profiles, truth,
    )  # fmt: skip


def _p(null: Array, value: float) -> float:
    """Two-sided: twice the smaller tail, at most 1."""
    # rounding must not decide between equal sums
    tails = (1 + (null >= value - 1e-12).sum(), 1 + (null <= value + 1e-12).sum())
    return float(min(1.0, 2 * min(tails) / (1 + len(null))))


def _unit_ranks(values: Array) -> Array:
    """Ranks of each row, centred and of length 1: their products are Spearman's correlations; 0 for a flat row."""
    ranks = rankdata(values, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.asarray(np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0))


def scarred(cohort: Cohort, subjects: NDArray[np.int64] | None = None) -> list[tuple[int, Heart, Design]]:
    """Subjects of a simulated cohort that have an old infarction, with their latent hearts.

    Raises:
        ValueError: The cohort is not simulated, or nobody has a scar.
    """
    origin = cohort.schema.origin or {}
    if origin.get("kind") != "simulated":
        raise ValueError(f"{cohort.path}: not a simulated cohort; only there is it known where the scar is")
    design = Design.from_dict(origin["design"])
    wanted = cohort.subjects["subject"].to_numpy() if subjects is None else subjects
    found = [(int(one), draw_heart(design, int(origin["seed"]), int(one)), design) for one in wanted]
    found = [one for one in found if one[1].old_mi]
    if not found:
        raise ValueError(f"{cohort.path}: none of {len(wanted)} subjects has a scar; simulate more")
    return found


def brief(value: object) -> str:
    """A setting in a word; a list by its length."""
    return f"({len(value)})" if isinstance(value, list | tuple) else str(value)
