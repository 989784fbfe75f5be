"""Cox and discrete-time losses against closed forms, lifelines and plain loops."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from objective_cases import SURVIVAL_FACTS, build, generator, make_batch, total_loss
from torch import Tensor

from ecgcmr.objectives import DataFacts, LabelFact
from ecgcmr.objectives.survival import cox_terms, discrete_terms, find_outcomes, interval_risks


def cox(score: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Terms (N,) of a batch in which everybody is known."""
    at_risk = time[None] >= time[:, None]
    tied = event[:, None] & event[None] & (time[None] == time[:, None])
    return cox_terms(score, score, at_risk, tied)


def test_cox_terms__of_two_subjects_is_a_logistic_loss() -> None:
    score = torch.tensor([0.3, 1.0], dtype=torch.float64)
    found = cox(score, torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(0.7)), 0.0])


def test_cox_terms__efron_ties_equal_a_hand_computation() -> None:
    """Three at risk with hazards 1, 2, 3; the first two die together: 1 * 2 / (6 * (6 - 3/2))."""
    score = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).log()
    found = cox(score, torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, True, False]))
    assert found.sum().item() == pytest.approx(-math.log(2 / (6 * 4.5)))
    shared = (math.log(6) + math.log(4.5)) / 2
    assert found.tolist() == pytest.approx([shared - math.log(1), shared - math.log(2), 0.0])


@pytest.mark.parametrize("ties", [False, True])
def test_cox_terms__equal_the_log_likelihood_of_lifelines(ties: bool) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=150)
    time = random.exponential(np.exp(-x))
    time = np.ceil(3 * time) if ties else time
    event = random.random(150) < 0.7
    fitted = CoxPHFitter().fit(pd.DataFrame({"t": time, "e": event.astype(int), "x": x}), "t", "e")
    beta = torch.tensor(float(fitted.params_["x"]), dtype=torch.float64, requires_grad=True)
    loss = cox(beta * torch.from_numpy(x), torch.from_numpy(time), torch.from_numpy(event)).sum()
    assert loss.item() == pytest.approx(-fitted.log_likelihood_, rel=1e-9)
    loss.backward()
    assert abs(beta.grad.item()) < 0.01  # lifelines stands at its maximum, where the curvature is about 80
    second = torch.autograd.functional.hessian(
        lambda b: cox(b * torch.from_numpy(x), torch.from_numpy(time), torch.from_numpy(event)).sum(), beta.detach()
    )
    assert 1 / math.sqrt(second.item()) == pytest.approx(float(fitted.standard_errors_["x"]), rel=1e-4)


def test_cox_terms__gradient_is_right_and_a_shift_changes_nothing() -> None:
    score = torch.randn(7, generator=generator(0), dtype=torch.float64, requires_grad=True)
    time = torch.tensor([3.0, 1.0, 1.0, 4.0, 4.0, 2.0, 5.0])
    event = torch.tensor([True, True, True, False, True, False, True])
    assert torch.autograd.gradcheck(lambda s: cox(s, time, event), (score,))
    far = cox(score + 500, time, event)
    torch.testing.assert_close(far, cox(score, time, event), rtol=1e-9, atol=1e-9)


def plain_discrete(hazards: list[float], time: float, event: bool, cuts: list[float]) -> float:
    loss, start = 0.0, 0.0
    for hazard, end in zip(hazards, cuts, strict=True):
        if time > end:
            loss -= math.log(1 - hazard)
        else:
            if event:
                loss -= math.log(hazard)
            elif time >= (start + end) / 2:
                loss -= math.log(1 - hazard)
            break
        start = end
    return loss


def test_discrete_terms__equal_a_plain_loop() -> None:
    cuts = [1.0, 2.0, 5.0]
    time = torch.tensor([0.0, 0.4, 0.6, 1.0, 1.2, 3.4, 3.6, 5.0, 9.0], dtype=torch.float64).repeat(2)
    event = torch.arange(18) < 9
    logits = torch.randn(18, 3, generator=generator(1), dtype=torch.float64)
    found = discrete_terms(logits, time, event, torch.tensor(cuts, dtype=torch.float64))
    expected = [plain_discrete(logits[i].sigmoid().tolist(), time[i].item(), bool(event[i]), cuts) for i in range(18)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_discrete_terms__are_best_at_the_life_table() -> None:
    """Without covariates the likelihood is largest at events / subjects who enter: 2 of 10, then 4 of 8."""
    time = torch.tensor([0.5] * 2 + [1.5] * 4 + [3.0] * 4, dtype=torch.float64)
    event = torch.tensor([True] * 6 + [False] * 4)
    logits = torch.tensor([0.2, 0.5], dtype=torch.float64).logit().requires_grad_()
    discrete_terms(logits.expand(10, 2), time, event, torch.tensor([1.0, 2.0], dtype=torch.float64)).sum().backward()
    assert logits.grad.abs().max() < 1e-12
    assert interval_risks(torch.tensor([0.2, 0.5])).tolist() == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize("fields", [{"loss": "cox"}, {"loss": "discrete", "cuts": [120.0, 150.0]}])
def test_survival__loss_equals_a_plain_computation_over_those_at_risk(fields: dict[str, object]) -> None:
    objective = build({"name": "survival", "ecg_augment": "none", **fields}).double().eval()
    batch = make_batch(8, torch.float64)
    batch["label_mask"][:6] = True
    batch["labels"][:, 0] = torch.tensor([130.0, 110.0, 125.0, 140.0, 115.0, 150.0, 120.0, 145.0])
    batch["labels"][:, 1] = torch.tensor([1.0, 0, 1, 0, 1, 0, 0, 1])
    out = objective(batch)
    raw = objective.represent(batch)["raw"]
    seen = batch["label_mask"][:, 0] & batch["label_mask"][:, 1] & batch["has_ecg"]
    time, event = batch["labels"][:, 0], batch["labels"][:, 1] > 0.5
    rows = [i for i in range(8) if seen[i]]
    if fields["loss"] == "cox":
        values = []
        for i in (i for i in rows if event[i]):
            # Row 5 is another recording of the subject of row 0: no one to compare it with.
            others = [j for j in rows if time[j] >= time[i] and {i, j} != {0, 5}]
            values.append(torch.logsumexp(raw[others, 0], 0) - raw[i, 0])
        assert len(values) >= 2
        expected = torch.stack(values).mean()
    else:
        terms = [
            plain_discrete(raw[i].sigmoid().tolist(), float(time[i]), bool(event[i]), fields["cuts"]) for i in rows
        ]
        expected = torch.tensor(sum(terms) / len(rows), dtype=torch.float64)
    torch.testing.assert_close(total_loss(objective, out), expected)


def test_survival__missing_follow_up_leaves_no_trace() -> None:
    objective = build({"name": "survival", "ecg_augment": "none"}).eval()
    batch = make_batch(8)
    before = objective(batch)
    batch["labels"] = torch.where(batch["label_mask"], batch["labels"], torch.nan)
    after = objective(batch)
    torch.testing.assert_close(after.losses["cox"], before.losses["cox"])
    assert after.metrics["c_index"].value == before.metrics["c_index"].value
    total_loss(objective, after).backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)


def test_survival__concordance_is_that_of_lifelines() -> None:
    from lifelines.utils import concordance_index

    objective = build({"name": "survival", "ecg_augment": "none"}).eval()
    batch = make_batch(24)
    batch["subject"] = torch.arange(24)
    batch["has_ecg"][:] = batch["label_mask"][:] = True
    batch["labels"][:, 0] = torch.arange(24) % 10 + 1.0
    risk = objective.represent(batch)["raw"][:, 0].detach().numpy()
    expected = concordance_index(batch["labels"][:, 0].numpy(), -risk, batch["labels"][:, 1].numpy())
    assert objective(batch).metrics["c_index_MI"].value == pytest.approx(expected)


def test_survival__learns_who_dies_first() -> None:
    """The level of the ECG is the log hazard; the fitted scores order unseen subjects."""
    for fields in ({"loss": "cox"}, {"loss": "discrete", "cuts": [0.5, 1.0, 2.0]}):
        objective = build({"name": "survival", "ecg_augment": "none", **fields})
        optimizer = torch.optim.Adam(objective.parameters(), 3e-3)

        def sample(seed: int, n: int = 32):
            random = generator(seed)
            level = 2 * torch.rand(n, generator=random) - 1
            batch = make_batch(n)
            batch["has_ecg"][:] = batch["label_mask"][:] = True
            batch["subject"] = torch.arange(n)
            batch["ecg"] = level[:, None, None] + 0.1 * torch.randn(n, 12, 100, generator=random)
            batch["labels"][:, 0] = -torch.rand(n, generator=random).log() * (-2 * level).exp()
            batch["labels"][:, 1] = (torch.rand(n, generator=random) < 0.8).float()
            return batch

        for step in range(30):
            optimizer.zero_grad()
            total_loss(objective, objective(sample(step), generator(step))).backward()
            optimizer.step()
        assert objective.eval()(sample(1000, 200)).metrics["c_index"].value > 0.68


def test_find_outcomes__pairs_by_name_and_says_what_is_missing() -> None:
    found = find_outcomes(SURVIVAL_FACTS)
    assert [(one.name, one.time, one.event) for one in found] == [("MI", 0, 1)]
    with pytest.raises(ValueError, match="'hf' lacks one"):
        find_outcomes(DataFacts(100, 100.0, None, (LabelFact("hf_event", "event"),)))
    with pytest.raises(ValueError, match="there is none"):
        find_outcomes(DataFacts(100, 100.0, None, (LabelFact("LVM", "regression", "g", 1.0, 1.0),)))
    with pytest.raises(ValueError, match="cuts must be rising"):
        build({"name": "survival", "loss": "discrete"})
    with pytest.raises(ValueError, match="belongs to the discrete loss"):
        build({"name": "survival", "cuts": [1.0]})
    with pytest.raises(ValueError, match="survival learns outcomes"):
        build({"name": "supervised"}, facts=SURVIVAL_FACTS)
