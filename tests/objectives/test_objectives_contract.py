"""What every objective owes the training loop, whatever it learns."""

import math
from typing import get_args

import pytest
import torch
from objective_cases import CASES, build, generator, make_batch, model_config, total_loss

from ecgcmr.models import build_module
from ecgcmr.objectives import Objective, contrast
from ecgcmr.objectives.registry import OBJECTIVES, ObjectiveConfig

EXPORTED = {"ecg", "cmr", "ecg_projection", "cmr_projection", "head", "ecg_decoder", "tabular", "tabular_projection"}


@pytest.fixture(params=CASES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return build(CASES[request.param], model_config(drop_path=0.2)).train()


def test_cases__cover_every_objective() -> None:
    assert {case["name"] for case in CASES.values()} == set(OBJECTIVES)
    kinds = get_args(get_args(ObjectiveConfig)[0])
    assert {kind.model_fields["name"].default for kind in kinds} == set(OBJECTIVES), "a run file can name all of them"


def test_objective__gives_per_sample_losses_under_fixed_names(objective: Objective) -> None:
    out = objective(make_batch(8, name=objective.config.name), generator(0))
    assert set(out.losses) == set(out.valid) == set(objective.loss_weights)
    for name, loss in out.losses.items():
        assert loss.shape == out.valid[name].shape == (8,)
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert (loss[~out.valid[name]] == 0).all()
    for name, mean in out.metrics.items():
        assert mean.total.ndim == mean.count.ndim == 0, name
        assert not mean.total.requires_grad, name
        assert math.isfinite(mean.value), name


def test_objective__forward_is_compare_after_represent(objective: Objective) -> None:
    """And `compare` reads no signal and no image: an evaluation does not keep them."""
    objective.eval()
    batch = make_batch(8, name=objective.config.name)
    rows = objective(batch, generator(0), rows_only=True)
    assert all(value.shape[0] == 8 and value.element_size() >= 4 for value in rows.values())
    bare = {key: value for key, value in batch.items() if key not in ("ecg", "cmr")}
    apart, at_once = objective.compare(rows, bare), objective(batch, generator(0))
    for name, loss in at_once.losses.items():
        assert torch.equal(apart.losses[name], loss)


def test_objective__compares_many_samples_in_pieces(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole validation set has more pairs than fit into memory at once."""
    objective.eval()
    batch = make_batch(8, name=objective.config.name)
    with torch.no_grad():
        rows = objective(batch, generator(0), rows_only=True)
        whole = objective.compare(rows, batch)
        monkeypatch.setattr(contrast, "MAX_LOGITS", 24)  # three rows of eight
        pieces = objective.compare(rows, batch)
    for name, loss in whole.losses.items():
        torch.testing.assert_close(pieces.losses[name], loss)
    for name, mean in whole.metrics.items():
        assert pieces.metrics[name].value == pytest.approx(mean.value, rel=1e-6, abs=3e-6), name  # float32


def test_objective__keeps_its_graph_when_nothing_is_valid(objective: Objective) -> None:
    batch = make_batch(8, name=objective.config.name)
    batch["has_ecg"][:] = batch["has_cmr"][:] = False
    total_loss(objective, objective(batch, generator(0))).backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_objective__is_decided_by_its_generator(objective: Objective) -> None:
    batch = make_batch(8, name=objective.config.name)
    state = {name: value.clone() for name, value in objective.state_dict().items()}

    def losses(seed: int) -> torch.Tensor:
        objective.load_state_dict(state)  # BatchNorm statistics move
        torch.manual_seed(torch.seed())  # the global generator must not matter
        return torch.cat(list(objective(batch, generator(seed)).losses.values()))

    assert torch.equal(losses(1), losses(1))
    assert not torch.equal(losses(1), losses(2))


def test_objective__learns_its_batch(objective: Objective) -> None:
    batch = make_batch(8, name=objective.config.name)
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
    batch = make_batch(8, name=objective.config.name)
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
