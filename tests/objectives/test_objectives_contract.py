"""What every objective owes the training loop, whatever it learns."""

import pytest
import torch
from objective_cases import CASES, build, generator, make_batch, model_config, total_loss

from ecgcmr.models import build_module
from ecgcmr.objectives import Objective
from ecgcmr.objectives.registry import OBJECTIVES

EXPORTED = {"ecg", "cmr", "ecg_projection", "cmr_projection", "head", "ecg_decoder"}


@pytest.fixture(params=CASES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return build(CASES[request.param], model_config(drop_path=0.2)).train()


def test_cases__cover_every_objective() -> None:
    assert {case["name"] for case in CASES.values()} == set(OBJECTIVES)


def test_objective__gives_per_sample_losses_under_fixed_names(objective: Objective) -> None:
    out = objective(make_batch(8), generator(0))
    assert set(out.losses) == set(out.valid) == set(objective.loss_weights)
    for name, loss in out.losses.items():
        assert loss.shape == out.valid[name].shape == (8,)
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert (loss[~out.valid[name]] == 0).all()
    assert all(value.ndim == 0 and not value.requires_grad for value in out.metrics.values())


def test_objective__keeps_its_graph_when_nothing_is_valid(objective: Objective) -> None:
    batch = make_batch(8)
    batch["has_ecg"][:] = batch["has_cmr"][:] = False
    total_loss(objective, objective(batch, generator(0))).backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_objective__is_decided_by_its_generator(objective: Objective) -> None:
    batch = make_batch(8)
    state = {name: value.clone() for name, value in objective.state_dict().items()}

    def losses(seed: int) -> torch.Tensor:
        objective.load_state_dict(state)  # BatchNorm statistics move
        torch.manual_seed(torch.seed())  # the global generator must not matter
        return torch.cat(list(objective(batch, generator(seed)).losses.values()))

    assert torch.equal(losses(1), losses(1))
    assert not torch.equal(losses(1), losses(2))


def test_objective__learns_its_batch(objective: Objective) -> None:
    batch = make_batch(8)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = total_loss(objective, objective(batch, generator(0)))
        loss.backward()
        optimizer.step()
        objective.after_step()
        values.append(loss.item())
    assert values[-1] < values[0]


def test_objective__bf16_autocast_stays_near_float32(objective: Objective) -> None:
    batch = make_batch(8)
    exact = objective(batch, generator(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective(batch, generator(0))
    for name, loss in rounded.losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.mean(), exact.losses[name].mean(), rtol=0.1, atol=0.05)


def test_objective__exports_parts_that_can_be_rebuilt(objective: Objective) -> None:
    parts = objective.encoders()
    assert parts
    assert set(parts) <= EXPORTED
    for part in parts.values():
        rebuilt = build_module(part.config)
        rebuilt.load_state_dict(part.state_dict())
        assert type(rebuilt) is type(part)


def test_views__are_not_rounded_by_autocast() -> None:
    from ecgcmr.objectives.views import cmr_view, make_cmr_augment

    cmr, augment = make_batch(4)["cmr"], make_cmr_augment("reference")
    exact = cmr_view(cmr, augment, generator(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cmr_view(cmr, augment, generator(0)), exact)
