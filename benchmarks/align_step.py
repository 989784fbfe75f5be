"""One training step of the alignment: the reference's arithmetic against ours, interleaved, each in its own process.

    python benchmarks/align_step.py [--rounds 5] [--memory] [--sides reference ours_fp32 ...]

Batch 16, ECG 12 x 2500, CMR 3 x 210 x 210, ViT 384/3/6, ResNet-50, heads 2048 -> 128. The reference side is written
from its description: attention in separate steps, images in the layout they come in, float32, Adam as torch has it,
similarities and two cross entropies one by one, and the second pass of the ECG encoder that its online classifier
takes. Both sides hold the same weights and inputs; the run first says how far losses and gradients agree.
Augmentation is left to benchmarks/loader.py.

`--memory` measures the peak of a process at batch 16 and 32 and extrapolates to 256, where float32 does not fit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from functools import partial
from typing import Any, cast

import torch
from mae_step import reference_block
from sides import QUICK, Group, Side, agreement, gradient_check, measure, ratio, spread
from torch import Tensor, nn

from ecgcmr.models.blocks import Block
from ecgcmr.objectives.align import ClipAlign
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.registry import build_objective
from ecgcmr.training.config import check_config
from ecgcmr.training.losses import reduce_losses
from ecgcmr.training.optim import build_optimizer

BATCH = 4 if QUICK else 16
TAU = 0.1


def make_objective(channels_last: bool) -> tuple[ClipAlign, Any]:
    """The published sizes with the same random weights in every process."""
    tree = {
        "name": "align_step",
        "out": "none",
        "data": {"cohort": "none"},
        "model": {
            "ecg": {"preset": "tiny", "learn_positions": True},
            "cmr": {"name": "resnet50", "centered": False, "channels_last": channels_last},
            "projection": {"hidden": 2048, "out": 128},
        },
        "objective": {"name": "clip_align", "temperature": TAU, "ecg_augment": "none", "cmr_augment": "none"},
        "optim": {"name": "adam", "lr": 1e-4, "decay_all": True, "weight_decay": 1e-4, "clip_grad": None},
    }
    config = check_config(tree, "benchmark")
    torch.manual_seed(0)
    objective = build_objective(config.objective, config.model, DataFacts(2500, 500.0, (3, 210, 210)))
    return cast(ClipAlign, objective.train()), config


def make_batch(n: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    return {
        "ecg": torch.randn(n, 12, 2500, generator=random),
        "cmr": torch.rand(n, 3, 210, 210, generator=random),
        "has_ecg": yes,
        "has_cmr": yes,
        "subject": torch.arange(n),
        "labels": torch.zeros(n, 0),
        "label_mask": torch.zeros(n, 0, dtype=torch.bool),
        "group": torch.zeros(n, dtype=torch.int64),
    }


def reference_embed(objective: ClipAlign, ecg: Tensor) -> Tensor:
    """Patches by a convolution, blocks step by step, mean of the patch tokens, norm."""
    encoder = objective.ecg_encoder
    x = encoder.patch_embed.proj(ecg[:, None]).flatten(2).transpose(1, 2) + encoder.pos_embed[:, 1:]
    cls = encoder.cls_token + encoder.pos_embed[:, :1]
    x = torch.cat([cls.expand(len(x), -1, -1), x], dim=1)
    for block in cast(list[Block], encoder.blocks):
        x = reference_block(x, block)
    embedding: Tensor = encoder.fc_norm(x[:, 1:].mean(dim=1))
    return embedding


def reference_loss(objective: ClipAlign, batch: dict[str, Tensor]) -> Tensor:
    """Rows are images, columns ECGs; both directions weigh one half."""
    image = objective.cmr_projection(objective.cmr_encoder(batch["cmr"]))
    ecg = objective.ecg_projection(reference_embed(objective, batch["ecg"]))
    image = image / image.norm(dim=1, keepdim=True)
    ecg = ecg / ecg.norm(dim=1, keepdim=True)
    similarity = torch.matmul(image, ecg.T) / TAU
    own = torch.arange(len(image))
    rows = nn.functional.cross_entropy(similarity, own)
    columns = nn.functional.cross_entropy(similarity.T, own)
    return 0.5 * rows + 0.5 * columns


def reference_side(n: int = BATCH) -> Side:
    objective, config = make_objective(channels_last=False)
    batch = make_batch(n)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    classifier = nn.Linear(objective.ecg_encoder.embed_dim, 2)

    def step() -> None:
        optimizer.zero_grad()
        loss = reference_loss(objective, batch)
        loss.backward()
        optimizer.step()
        with torch.no_grad():  # the online classifier sees embeddings of a pass of its own
            classifier(reference_embed(objective, batch["ecg"]))

    return Side(step, n, _check(objective, lambda: reference_loss(objective, batch)))


def our_side(low: bool, n: int = BATCH) -> Side:
    objective, config = make_objective(channels_last=True)
    batch, optimizer = make_batch(n), build_optimizer(objective, config.optim)

    def loss() -> Tensor:
        precision = torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext()
        with precision:
            output = objective(batch, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        return reduce_losses(output, objective.loss_weights, 1)[0]

    def step() -> None:
        loss().backward()
        optimizer.step()
        objective.after_step()
        optimizer.zero_grad(set_to_none=True)

    return Side(step, n, _check(objective, loss))


def _check(objective: ClipAlign, loss: Any) -> dict[str, Any]:
    """Loss and gradient at the start; what BatchNorm has seen meanwhile is taken back."""
    before = {name: value.clone() for name, value in objective.named_buffers()}
    value = loss()
    value.backward()
    names = sorted(name for name, p in objective.named_parameters() if p.grad is not None)
    parameters = dict(objective.named_parameters())
    found = gradient_check(float(value.detach()), [cast(Tensor, parameters[name].grad) for name in names])
    objective.zero_grad(set_to_none=True)
    for name, buffer in objective.named_buffers():
        buffer.copy_(before[name])
    return found


GROUPS = {
    "align": Group(
        {
            "reference": reference_side,
            "reference+malloc": reference_side,
            "ours_fp32": partial(our_side, False),
            "ours_bf16": partial(our_side, True),
        }
    )
}

MEMORY = {"reference": reference_side, "ours_fp32": partial(our_side, False), "ours_bf16": partial(our_side, True)}
SIZES = (2, 4) if QUICK else (16, 32)


def peak_mib(side: str, n: int) -> float:
    """Peak of a fresh process that does two steps [MiB]."""
    program = (
        f"import resource, align_step; side = align_step.MEMORY[{side!r}](n={n}); side.step(); side.step(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=sys.path[0])
    return float(out.stdout.split()[-1])


def memory_at(n: int = 256) -> dict[str, dict[str, float]]:
    """Measured peaks, and the line through them at `n` samples; pieces keep the graph of one piece only."""
    found = {}
    for side in MEMORY:
        peaks = [peak_mib(side, size) for size in SIZES]
        a_sample = (peaks[1] - peaks[0]) / (SIZES[1] - SIZES[0])
        at = {f"mib_at_{size}": peak for size, peak in zip(SIZES, peaks, strict=True)}
        whole = peaks[1] + a_sample * (n - SIZES[1])
        found[side] = {**at, "mib_a_sample": a_sample, f"gib_at_{n}": whole / 1024}
        if side != "reference":  # train.micro_batches: the graph of n / 16 samples, inputs of all
            inputs = n * (12 * 2500 + 3 * 210 * 210) * 4 / 2**20
            found[side][f"gib_at_{n}_in_16_pieces"] = (peaks[0] + inputs) / 1024
    return found


def report(rounds: int, sides: list[str]) -> dict[str, Any]:
    group = Group(GROUPS["align"].sides, rounds=rounds)
    found = measure("align_step", "align", group, sides)
    out: dict[str, Any] = {"samples_per_second": {s: spread(about["samples_per_second"]) for s, about in found.items()}}
    for to in ("reference", "reference+malloc"):
        if to in found:
            ours = [side for side in found if side.startswith("ours")]
            out[f"times {to}"] = {side: ratio(found, side, to) for side in ours}
            out[f"agreement with {to}"] = {side: agreement(found[side]["check"], found[to]["check"]) for side in ours}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", default=list(GROUPS["align"].sides), choices=list(GROUPS["align"].sides))
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = memory_at() if arguments.memory else report(arguments.rounds, arguments.sides)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
