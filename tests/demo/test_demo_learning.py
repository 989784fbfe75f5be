"""Does alignment learn what ECG and MRI share? With true pairs it must, with shuffled pairs it must not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo import learning
from ecgcmr.demo.arms import embed_arm
from ecgcmr.demo.compare import retrieve_pairs
from ecgcmr.demo.context import MEASUREMENTS, PRETRAINED, SHUFFLED, DemoContext
from ecgcmr.demo.presets import DemoPreset
from ecgcmr.evaluation.bootstrap import Bootstrapped, SubjectDraws, bootstrap_metrics, draw_subjects, paired_difference
from ecgcmr.evaluation.probes import RidgeProbe

# Three quarters of the standard demo: with fewer pairs or steps an alignment learns too little to tell it from chance.
SMALL = DemoPreset(
    "small",
    n_subjects=3000,
    mae_steps=600,
    cmr_steps=96,
    align_steps=320,
    finetune_steps=(1, 1, 1),
    gallery=200,
    shuffled_control=True,
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

    def retrieval(self, arm: str) -> tuple[float, float]:
        """Recall at 10 and mean rank in the gallery of 200, the mean of both directions."""
        both = retrieve_pairs(self.context, arm)
        assert all(len(one.ranks) == one.gallery == 200 for one in both)
        return float(np.mean([one.ranks <= 10 for one in both])), float(np.mean([one.ranks for one in both]))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """The same cohort, the same initial encoders, the same steps: once on true pairs, once on shuffled ones."""
    context = DemoContext(tmp_path_factory.mktemp("learning"), SMALL, 1, 2)

    def silent(_: float) -> None:
        return

    learning.simulate(context, silent)
    learning.pretrain_ecg(context, silent)
    learning.pretrain_cmr(context, silent)
    learning.align(context, silent, "mae_aligned", "ecg_mae")
    learning.align_shuffled(context, silent, "shuffled")
    test = open_split(Cohort.open(context.cohort)).test
    return Learned(context, draw_subjects(test, 1000, np.random.default_rng(3)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_align__held_out_pairs_find_each_other_only_if_training_pairs_were_true(learned: Learned) -> None:
    # By chance recall is 10/200 = .05 and the mean rank 100.5; standard errors of 200 queries are .0154 and 4.08.
    chance, chance_error, middle, rank_error = 10 / 200, 0.0154, 100.5, 4.08
    true_recall, true_rank = learned.retrieval("mae_aligned")
    shuffled_recall, shuffled_rank = learned.retrieval("shuffled")
    said = f"true pairs {true_recall:.3f} {true_rank:.1f}, shuffled {shuffled_recall:.3f} {shuffled_rank:.1f}"
    assert true_recall > chance + 3 * chance_error, said
    assert true_rank < middle - 5 * rank_error, said
    assert abs(shuffled_recall - chance) < 3 * chance_error, said
    assert abs(shuffled_rank - middle) < 3 * rank_error, said


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
