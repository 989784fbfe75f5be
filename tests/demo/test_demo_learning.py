"""Does alignment learn what ECG and MRI share? With true pairs it must, with shuffled pairs it must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo import learning
from ecgcmr.demo.compare import retrieve_pairs
from ecgcmr.demo.context import DemoContext
from ecgcmr.demo.presets import DemoPreset

SMALL = DemoPreset("small", 800, 30, 20, 220, 1, gallery=160, shuffled_control=True)
# Many small steps: with so few subjects the number of updates counts, not the number of negatives.
FAST: dict[str, Any] = {"train__batch_size": 32, "train__eval_every": 2, "optim__lr": 3e-3}


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> DemoContext:
    """The same cohort, the same initial encoders, the same steps: once on true pairs, once on shuffled ones."""
    context = DemoContext(tmp_path_factory.mktemp("learning"), SMALL, 1, 1)

    def silent(_: float) -> None:
        return

    learning.simulate(context, silent)
    learning.pretrain_ecg(context, silent)
    learning.pretrain_cmr(context, silent)
    learning.align(context, silent, "mae_aligned", "ecg_mae", **FAST)
    learning.align_shuffled(context, silent, "shuffled", **FAST)
    return context


def recall_and_rank(context: DemoContext, run: str) -> tuple[float, float]:
    """Recall at 10 and mean rank among the held-out subjects, the mean of both directions."""
    both = retrieve_pairs(context, run)
    assert all(len(one.ranks) == one.gallery == 160 for one in both)
    return float(np.mean([one.ranks <= 10 for one in both])), float(np.mean([one.ranks for one in both]))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_align__held_out_pairs_find_each_other_only_if_training_pairs_were_true(aligned: DemoContext) -> None:
    assert len(open_split(Cohort.open(aligned.cohort)).test) == 160
    # By chance recall is 10/160 = .0625 and the mean rank 80.5; standard errors of 160 queries are .019 and 3.65.
    chance, chance_error, middle, rank_error = 10 / 160, 0.019, 80.5, 3.65
    true_recall, true_rank = recall_and_rank(aligned, "mae_aligned")
    shuffled_recall, shuffled_rank = recall_and_rank(aligned, "shuffled")
    said = f"true pairs {true_recall:.3f} {true_rank:.1f}, shuffled {shuffled_recall:.3f} {shuffled_rank:.1f}"
    assert true_recall > chance + 2.5 * chance_error, said
    assert true_rank < middle - 4 * rank_error, said
    assert abs(shuffled_recall - chance) < 2.5 * chance_error, said
    assert abs(shuffled_rank - middle) < 2.5 * rank_error, said
