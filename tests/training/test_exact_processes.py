"""Two gloo processes and micro-batches compute what one process computes with one batch, for every objective.

The loss and the gradient of a step, and all values of an evaluation. One pair of processes computes all cases.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "objectives"))
from objective_cases import CASES, LABELS, build, generator, make_batch, model_config

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import alone, part_of_draw, row_shard, world
from ecgcmr.objectives import Objective
from ecgcmr.objectives.distributed import my_rows, sum_over_processes
from ecgcmr.objectives.registry import OBJECTIVES
from ecgcmr.training.distributed import start_accelerator
from ecgcmr.training.evaluate import DRAW_ROWS, evaluate, pieces
from ecgcmr.training.losses import Meter, reduce_losses, total_loss
from ecgcmr.training.micro_batches import MicroBatches, check_micro_batches
from ecgcmr.training.randomness import torch_generator

pytestmark = pytest.mark.slow  # two processes and a dozen objectives: most of a minute

ROWS, PARTS, VAL, SEED = 8, 2, 13, 4
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
IN_FLOAT32 = (
    "masked", "simclr", "align learned", "supervised ecg", "siglip", "barlow", "vicreg", "soft positives", "cox",
    "tabular",
    "ntxent", "phenotype weights", "relations", "two phases", "phases of beats", "two views",
)  # fmt: skip
STEPS = [(name, torch.float64) for name in CASES] + [(name, torch.float32) for name in IN_FLOAT32]


def objective_of(name: str, dtype: torch.dtype) -> Objective:
    """With stochastic depth; without BatchNorm, which would see a piece at a time."""
    return build(CASES[name], model_config(drop_path=0.3, image_norm="groupnorm1")).to(dtype)


class ThirteenSubjects:
    """Stands for a dataset: the last batches are ragged, modalities and labels are missing."""

    label_names = tuple(fact.name for fact in LABELS)

    def __init__(self, name: str) -> None:
        self.whole = make_batch(VAL, torch.float64, CASES[name]["name"])

    def __len__(self) -> int:
        return VAL

    def batch(self, indices: Any) -> Batch:
        chosen = torch.as_tensor(np.asarray(indices))
        return Batch(**{key: value[chosen] for key, value in self.whole.items()})  # type: ignore[typeddict-item]


def gradients(objective: Objective) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.requires_grad and p.grad is not None}


def step_in_pieces(name: str, dtype: torch.dtype, parts: int) -> dict[str, Tensor]:
    accelerator = start_accelerator("no", (), Path())
    objective = objective_of(name, dtype).train()
    model = accelerator.prepare_model(objective)
    batch = Batch(**{key: my_rows(value) for key, value in make_batch(ROWS, dtype, CASES[name]["name"]).items()})  # type: ignore[typeddict-item,arg-type]
    step = MicroBatches(accelerator, model, objective, batch, parts, lambda part: generator(42))
    loss, totals = reduce_losses(step.output(), objective.loss_weights, world()[1])
    step.backward(loss)
    return {
        "loss": torch.tensor(total_loss(totals, objective.loss_weights), dtype=torch.float64),
        **gradients(objective),
    }


def validation_row(name: str, at_once: int) -> dict[str, float]:
    accelerator = start_accelerator("no", (), Path())
    train = SimpleNamespace(eval_batch_size=at_once, batch_size=1, label_metrics=True)
    config: Any = SimpleNamespace(seed=SEED, train=train)
    objective = objective_of(name, torch.float64).train()
    row = evaluate(objective, ThirteenSubjects(name), config, accelerator)  # type: ignore[arg-type]
    assert objective.training, "evaluation leaves the mode as it was"
    return row


def one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ |= where | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    results: dict[Any, Any] = {key: step_in_pieces(*key, parts=PARTS) for key in STEPS}
    results |= {name: validation_row(name, at_once=3) for name in CASES}
    with alone(), part_of_draw(1, 4):
        results["alone"] = [*world(), *row_shard(), float(sum_over_processes(torch.ones(())))]
    with part_of_draw(1, 4):
        results["together"] = [*world(), *row_shard(), float(sum_over_processes(torch.ones(())))]
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder, here = tmp_path_factory.mktemp("two"), Path(__file__).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]))
    try:
        torch.multiprocessing.spawn(one_of_two, (port, str(folder)), nprocs=2)
    finally:
        patch.undo()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def step_at_once(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The plain way, with nothing of the code under test: forward, total, backward."""
    objective = objective_of(name, dtype).train()
    out = objective(make_batch(ROWS, dtype, CASES[name]["name"]), generator(42))
    total = sum(weight * out.losses[key][out.valid[key]].mean() for key, weight in objective.loss_weights.items())
    assert isinstance(total, Tensor)
    total.backward()
    return {"loss": total.detach(), **gradients(objective)}


def check_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert set(found) == set(wanted), "every trained parameter has a gradient"
    scale = math.sqrt(sum(float(value.double().square().sum()) for key, value in wanted.items() if key != "loss"))
    assert scale > 0
    assert float(found["loss"]) == pytest.approx(float(wanted["loss"]), rel=tolerance)
    for key, value in wanted.items():
        error = float((found[key].double() - value.double()).abs().max()) / scale
        assert error <= tolerance or key == "loss", f"{key}: {error:.1e} of the gradient's norm"


def test_cases__no_registered_objective_escapes() -> None:
    assert {case["name"] for case in CASES.values()} == set(OBJECTIVES)
    assert {CASES[name]["name"] for name in IN_FLOAT32} == set(OBJECTIVES)
    assert any(case.get("learn_temperature") for case in CASES.values())


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_micro_batches__equal_the_whole_batch(name: str, parts: int) -> None:
    check_equal(step_in_pieces(name, torch.float64, parts), step_at_once(name, torch.float64), 1e-9)


@pytest.mark.ddp
@pytest.mark.parametrize(("name", "dtype"), STEPS, ids=lambda value: str(value).removeprefix("torch."))
def test_micro_batches__of_two_processes_equal_one_whole_batch(
    parallel: list[dict[Any, Any]], name: str, dtype: torch.dtype
) -> None:
    wanted = step_at_once(name, dtype)
    for results in parallel:
        check_equal(results[name, dtype], wanted, TOLERANCE[dtype])


def validation_by_hand(name: str) -> dict[str, float]:
    """All samples in one pass, as the first rows of one draw, and one comparison."""
    objective = objective_of(name, torch.float64).eval()
    whole = make_batch(VAL, torch.float64, CASES[name]["name"])
    places = torch.arange(DRAW_ROWS) % VAL
    padded = Batch(**{key: value[places] for key, value in whole.items()})  # type: ignore[typeddict-item,index]
    with torch.no_grad():
        rows = objective(padded, torch_generator("cpu", SEED, "evaluation", 0), rows_only=True)
        rows = {key: value[:VAL] for key, value in rows.items()}
        out = objective.compare(rows, whole)
    losses = {f"loss_{key}": out.losses[key][out.valid[key]].mean().item() for key in out.losses}
    row = losses | {"loss": sum(w * losses[f"loss_{key}"] for key, w in objective.loss_weights.items())}
    row |= {key: mean.value for key, mean in out.metrics.items()}
    if hasattr(objective, "label_values"):
        predicted, truth = objective.label_values(rows).numpy(), whole["labels"].numpy()
        for k, fact in enumerate(LABELS):
            seen = whole["label_mask"][:, k].numpy()
            y, x = truth[seen, k], predicted[seen, k]
            binary = fact.kind == "binary"
            row[f"{'auroc' if binary else 'r'}_{fact.name}"] = (
                roc_auc_score(y, x) if binary else float(np.corrcoef(x, y)[0, 1])
            )
        row["r"], row["auroc"] = (row["r_LVEDV"] + row["r_LVM"]) / 2, row["auroc_MI"]
    return row


@pytest.mark.parametrize("at_once", [1, 5, 64])
@pytest.mark.parametrize("name", CASES)
def test_evaluate__does_not_depend_on_the_batch_size(name: str, at_once: int) -> None:
    assert validation_row(name, at_once) == pytest.approx(validation_by_hand(name), rel=1e-9, abs=1e-12)


@pytest.mark.ddp
@pytest.mark.parametrize("name", CASES)
def test_evaluate__of_two_processes_equals_one_batch(parallel: list[dict[Any, Any]], name: str) -> None:
    wanted = validation_by_hand(name)
    for results in parallel:
        assert results[name] == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.ddp
def test_alone__is_a_world_of_one(parallel: list[dict[Any, Any]]) -> None:
    assert [results["alone"] for results in parallel] == [[0, 1, 1, 4, 1.0]] * 2
    assert [results["together"] for results in parallel] == [[0, 2, 1, 8, 2.0], [1, 2, 5, 8, 2.0]]


@given(st.integers(1, 600), st.integers(1, 300))
def test_pieces__cover_each_sample_once_and_lie_in_one_draw(n: int, at_once: int) -> None:
    found = list(pieces(n, at_once))
    assert [i for piece in found for i in range(n)[piece.indices]] == list(range(n))
    for piece in found:
        part, parts = piece.part
        assert piece.rows <= at_once
        assert part * piece.rows + piece.block * DRAW_ROWS == piece.start
        assert parts * piece.rows == DRAW_ROWS
        assert piece.start // DRAW_ROWS == (piece.start + piece.rows - 1) // DRAW_ROWS


def test_micro_batches__leave_batch_norm_statistics_as_one_pass_does() -> None:
    """Each piece is represented twice, and counted once."""
    objective = build(CASES["simclr"], model_config()).train()
    step = MicroBatches(
        start_accelerator("no", (), Path()), objective, objective, make_batch(ROWS), PARTS, lambda part: generator(42)
    )
    loss, _ = reduce_losses(step.output(), objective.loss_weights, 1)
    counts = [value for name, value in objective.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert {int(value) for value in counts} == {0}
    step.backward(loss)
    assert {int(value) for value in counts} == {PARTS}


def test_check_micro_batches__refuses_what_would_be_another_loss() -> None:
    with_norm = build(CASES["simclr"], model_config()).train()
    check_micro_batches(with_norm, 8, 1, False)
    check_micro_batches(with_norm, 8, 2, True)
    with pytest.raises(ValueError, match=r"BatchNorm layers \(encoder\..*train\.micro_batch_norm=true"):
        check_micro_batches(with_norm, 8, 2, False)
    with pytest.raises(ValueError, match=r"micro_batches is 3, but a process has 8 samples"):
        check_micro_batches(with_norm, 8, 3, True)
    frozen = build(CASES["align frozen cmr"], model_config()).train()
    check_micro_batches(frozen, 8, 2, False)


def test_meter__a_whole_row_survives_a_checkpoint() -> None:
    objective = objective_of("align", torch.float64).train()
    out = objective(make_batch(ROWS, torch.float64), generator(0))
    _, totals = reduce_losses(out, objective.loss_weights, 1)
    meter = Meter()
    meter.add(totals, ROWS)
    assert Meter.from_state(meter.state_dict()).row(objective.loss_weights) == meter.row(objective.loss_weights)
    assert meter.row(objective.loss_weights)["temperature"] == pytest.approx(0.1)


@pytest.mark.parametrize("rows", [4, 32])
def test_clip_align__a_process_holds_its_own_rows_of_the_logits_only(rows: int) -> None:
    """B x PB and not PB x PB: of 4 processes with the others' rows given, no tensor is larger than B x 4B."""
    from ecgcmr.objectives.align import clip_loss
    from ecgcmr.objectives.contrast import unit_rows

    everything = tuple(unit_rows(torch.randn(4 * rows, 6, generator=generator(s), dtype=torch.float64)) for s in (0, 1))
    image, ecg = (part[rows : 2 * rows].clone().requires_grad_() for part in everything)
    pool = tuple(
        torch.cat([part[:rows], own, part[2 * rows :]]) for part, own in zip(everything, (image, ecg), strict=True)
    )
    own = torch.arange(rows) + rows
    scale = torch.tensor(10.0, dtype=torch.float64)
    sizes: list[int] = []

    def pack(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss, *_ = clip_loss(image, ecg, scale, 0.5, (torch.zeros(rows, 4 * rows, dtype=torch.bool), own), pool)  # type: ignore[arg-type]
    assert max(sizes) <= max(rows * 4 * rows, 4 * rows * 6)
    logits = 10 * everything[0] @ everything[1].T
    full = 0.5 * (logits.logsumexp(1) - logits.diagonal()) + 0.5 * (logits.logsumexp(0) - logits.diagonal())
    torch.testing.assert_close(loss, full[rows : 2 * rows])
