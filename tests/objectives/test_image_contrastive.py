"""NT-Xent against a plain loop, and what the two views of SimCLR are."""

import math

import pytest
import torch
from objective_cases import build, generator, make_batch
from torch import Tensor

from ecgcmr.objectives.contrast import excluded_columns, unit_rows
from ecgcmr.objectives.image_contrastive import nt_xent


def views(n: int) -> tuple[Tensor, Tensor]:
    both = unit_rows(torch.randn(2 * n, 5, generator=generator(3), dtype=torch.float64))
    return both[:n], both[n:]


def plain_nt_xent(a: Tensor, b: Tensor, temperature: float, subject: list[int], valid: list[bool]) -> list[float]:
    """SimCLR's loss of each sample by its formula, over a list of 2n views."""
    points = [(a[i], i) for i in range(len(a))] + [(b[i], i) for i in range(len(a))]
    losses = []
    for i in range(len(a)):
        both = []
        for anchor, positive in ((i, i + len(a)), (i + len(a), i)):
            denominator = 0.0
            for other, (point, sample) in enumerate(points):
                same = sample != i and (subject[sample] == subject[i] or not valid[sample])
                if other == anchor or same:
                    continue
                denominator += math.exp(float(points[anchor][0] @ point) / temperature)
            numerator = math.exp(float(points[anchor][0] @ points[positive][0]) / temperature)
            both.append(-math.log(numerator / denominator))
        losses.append(sum(both) / 2)
    return losses


@pytest.mark.parametrize(
    ("subject", "valid"),
    [([0, 1, 2, 3, 4], [True] * 5), ([0, 1, 0, 3, 4], [True, True, True, False, True])],
    ids=["all", "repeat and missing"],
)
def test_nt_xent__equals_a_plain_loop(subject: list[int], valid: list[bool]) -> None:
    a, b = views(5)
    excluded, own = excluded_columns(torch.tensor(subject), torch.tensor(valid))
    loss, _ = nt_xent(a, b, excluded, own, 0.1)
    assert loss[torch.tensor(valid)].tolist() == pytest.approx(
        [value for value, ok in zip(plain_nt_xent(a, b, 0.1, subject, valid), valid, strict=True) if ok], rel=1e-10
    )


def test_nt_xent__identical_views_far_from_others_cost_nothing() -> None:
    a = torch.eye(5, dtype=torch.float64)
    excluded, own = excluded_columns(torch.arange(5), torch.ones(5, dtype=torch.bool))
    loss, place = nt_xent(a, a, excluded, own, 0.05)
    assert loss.max() < 1e-6
    assert place.tolist() == [0] * 5


def test_cmr_simclr__two_views_differ_and_evaluation_repeats_itself() -> None:
    objective = build({"name": "cmr_simclr"}).eval()
    batch = make_batch(4)
    first = objective(batch)
    assert first.metrics["alignment"].value > 0
    assert torch.equal(objective(batch).losses["nt_xent"], first.losses["nt_xent"])
    still = build({"name": "cmr_simclr", "cmr_augment": "none"}).eval()
    assert still(batch).metrics["alignment"].value < 1e-6


def test_cmr_simclr__accepts_cines_and_spelled_out_augmentation() -> None:
    from objective_cases import FACTS, model_config

    from ecgcmr.objectives import DataFacts

    facts = DataFacts(FACTS.ecg_samples, 100.0, (2, 3, 32, 32))
    model = model_config().model_copy(
        update={
            "cmr": type(model_config().cmr)(
                name="cine_transformer", cine={"width": 16, "depth": 1, "heads": 2, "stem": 8}
            )
        }
    )
    objective = build({"name": "cmr_simclr", "cmr_augment": {"rotation_deg": 10.0}}, model, facts)
    batch = make_batch(4)
    batch["cmr"] = torch.rand(4, 2, 3, 32, 32, generator=generator(0))
    out = objective(batch, generator(0))
    assert out.losses["nt_xent"].shape == (4,)
    assert out.losses["nt_xent"].isfinite().all()
