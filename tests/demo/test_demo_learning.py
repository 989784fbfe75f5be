"""Does alignment learn what ECG and MRI share? With true pairs it must, with shuffled pairs it must not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo import learning
from ecgcmr.demo.arms import embed_arm
from ecgcmr.demo.compare import gallery, shared_space
from ecgcmr.demo.context import MEASUREMENTS, PRETRAINED, SHUFFLED, DemoContext
from ecgcmr.demo.lanes import Task, learn
from ecgcmr.demo.presets import DemoPreset
from ecgcmr.evaluation.bootstrap import Bootstrapped, SubjectDraws, bootstrap_metrics, draw_subjects, paired_difference
from ecgcmr.evaluation.probes import RidgeProbe
from ecgcmr.evaluation.retrieval import retrieve_both_ways

# Three quarters of the standard demo: with fewer pairs or steps an alignment learns too little to tell it from chance.
SMALL = DemoPreset(
    "small",
    n_subjects=3000,
    mae_steps=600,
    cmr_steps=96,
    align_steps=320,
    finetune_steps=(1, 1, 1),
    outcome_steps=1,
    gallery=200,
    shuffled_control=True,
)
LANES = (
    (Task("ecg_mae", 1), Task("mae_aligned", 1, needs=("cmr_simclr",))),
    (Task("cmr_simclr", 1), Task("shuffled", 1, needs=("ecg_mae",))),
)
ARMS = {arm.key: arm for arm in (*PRETRAINED, SHUFFLED)}


@dataclass(frozen=True)
class Learned:
    """The demo's folders, and R2 of probes on all training labels over the same draws of held-out subjects."""

    context: DemoContext
    draws: SubjectDraws

    def r2(self, arm: str, target: str) -> Bootstrapped:
        found = embed_arm(self.context, ARMS[arm])
        split = open_split(Cohort.open(self.context.cohort))
        column = found.labels[:, MEASUREMENTS.index(target)]
        train, test = found.rows(split.train), found.rows(split.test)
        probe = RidgeProbe().fit(found.encoder[train], column[train], split.train)
        columns = (column[test], probe.predict(found.encoder[test])[:, 0])
        return bootstrap_metrics(["r2"], columns, split.test, self.draws)["r2"]

    def retrieval(self, arm: str, n_null: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall at 10 and mean rank in the gallery of 200, the mean of both directions; and under random pairing.

        An alignment that learned nothing may map everybody to a line, where the ranks of all queries move together:
        the spread of chance is that of these very embeddings in another order, not that of independent queries.

        Returns:
            Observed (2,) and null (n_null, 2).
        """
        ecg, cmr = shared_space(self.context, arm)
        who = gallery(self.context)
        assert len(who) == 200
        assert ecg.projection is not None
        assert cmr.projection is not None
        queries, candidates = ecg.projection[ecg.rows(who)], cmr.projection[cmr.rows(who)]

        def measure(order: NDArray[np.int64]) -> tuple[float, float]:
            both = retrieve_both_ways(queries[order], candidates, who)
            return float(np.mean([one.ranks <= 10 for one in both])), float(np.mean([one.ranks for one in both]))

        rng = np.random.default_rng(5)
        null = [measure(rng.permutation(len(who))) for _ in range(n_null)]
        return np.array(measure(np.arange(len(who)))), np.array(null)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """The same cohort, the same initial encoders, the same steps: once on true pairs, once on shuffled ones."""
    context = DemoContext(tmp_path_factory.mktemp("learning"), SMALL, 1, 2)

    def silent(_: float) -> None:
        return

    learning.simulate(context, silent)
    learn(context, silent, LANES)
    test = open_split(Cohort.open(context.cohort)).test
    return Learned(context, draw_subjects(test, 1000, np.random.default_rng(3)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_align__held_out_pairs_find_each_other_only_if_training_pairs_were_true(learned: Learned) -> None:
    (recall, rank), null = learned.retrieval("mae_aligned")
    (shuffled_recall, shuffled_rank), shuffled_null = learned.retrieval("shuffled")
    said = f"true pairs {recall:.3f} {rank:.1f}, shuffled {shuffled_recall:.3f} {shuffled_rank:.1f}"
    assert abs(null[:, 0].mean() - 10 / 200) < 0.01
    assert abs(null[:, 1].mean() - 100.5) < 2
    assert recall > 4 * 10 / 200, said
    assert rank < null[:, 1].mean() - 10 * null[:, 1].std(), said
    far = np.abs([shuffled_recall, shuffled_rank] - shuffled_null.mean(axis=0)) / shuffled_null.std(axis=0)
    assert (far < 5).all(), f"{said}: {far} standard deviations of chance"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", ["LVEDV", "LVM"])
def test_align__the_heart_is_in_the_embedding_only_if_training_pairs_were_true(learned: Learned, target: str) -> None:
    true, shuffled, mae = (learned.r2(arm, target) for arm in ("mae_aligned", "shuffled", "ecg_mae"))
    said = f"R2 of {target}: true pairs {true.value:.3f}, shuffled {shuffled.value:.3f}, MAE alone {mae.value:.3f}"
    assert paired_difference(true, shuffled).interval().lo > 0, said
    gain = paired_difference(true, mae)
    assert gain.interval().lo > 0, said
    # An encoder changes on shuffled pairs too, and so does what a probe reads from it, but not by what the MRI shows.
    assert paired_difference(shuffled, mae).value < gain.value / 2, said
