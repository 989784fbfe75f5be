"""What is timed: an optimizer step of a run, an embedding, a batch of the loader; each fed as in a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.mixture import AnyDataset
from ecgcmr.cohort.sampler import BatchSampler
from ecgcmr.models.pieces import encode
from ecgcmr.objectives.base import Objective
from ecgcmr.objectives.registry import build_objective
from ecgcmr.training.bench.flops import count_flops
from ecgcmr.training.bench.machine import synchronize
from ecgcmr.training.config import RunConfig
from ecgcmr.training.data import check_labels, find_facts, open_feeds
from ecgcmr.training.evaluate import to_device
from ecgcmr.training.losses import reduce_losses
from ecgcmr.training.optim import build_optimizer
from ecgcmr.training.prefetch import prefetch
from ecgcmr.training.randomness import torch_generator
from ecgcmr.training.sources import open_source

COUNTED = 2
"""Samples of the pass whose operations are counted; contrastive losses want at least two."""

LEAST = 3
"""Steps that are timed at least, after one that warms up."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each step and how much of the whole was spent waiting for batches."""

    seconds: tuple[float, ...]
    share_waited: float


class TrainingStep:
    """One optimizer step of a run in one process, as `ecgcmr.training.loop` does it."""

    def __init__(self, objective: Objective, config: RunConfig, device: torch.device, low: bool) -> None:
        self.objective = objective.to(device).train()
        self.optimizer = build_optimizer(self.objective, config.optim)
        self.weights = dict(objective.loss_weights)
        self.device, self.low, self.limit = device, low, config.optim.clip_grad
        self.number = 0

    def loss(self, batch: Batch) -> Tensor:
        """Give the loss that is differentiated."""
        generator = torch_generator(self.device, 0, "step", self.number)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            output = self.objective(batch, generator)
        loss, _ = reduce_losses(output, self.weights, 1)
        return loss

    def __call__(self, batch: Batch) -> None:
        """Forward, backward, clip, update."""
        self.loss(batch).backward()
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.limit is not None and float(norm) > self.limit:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.limit, norm)
        self.optimizer.step()
        self.objective.after_step()
        self.optimizer.zero_grad(set_to_none=True)
        self.number += 1


class Embedding:
    """Embeddings of ECGs that lie in memory, without gradient."""

    def __init__(self, objective: Any, device: torch.device, low: bool) -> None:
        self.encoder = objective.ecg_encoder.to(device).eval()
        self.device, self.low = device, low

    def embed(self, batch: Batch) -> Tensor:
        """Embed the first window of each recording, (B, D)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            return encode(self.encoder, batch["ecg"][..., : self.encoder.n_samples])

    @torch.no_grad()
    def __call__(self, batch: Batch) -> None:
        """Embed and forget."""
        self.embed(batch)


def build(config: RunConfig) -> tuple[Objective, AnyDataset]:
    """Open the data of a run and build its objective with random weights.

    Raises:
        FileNotFoundError, ValueError: If the cohort has not what the stage reads.
    """
    source = open_source(config.data)
    check_labels(source, config.data)
    modalities = {"ecg"} if config.objective.name in ("masked_ecg", "supervised") else {"ecg", "cmr"}
    dataset = open_feeds(source, config.data, modalities).train
    facts = find_facts(source, config.data, dataset if config.data.labels else None)
    torch.manual_seed(0)
    return build_objective(config.objective, config.model, facts), dataset


def endless(dataset: AnyDataset, batch_size: int) -> Iterator[Any]:
    """Give places of one epoch after the other, in the order of a run."""
    sampler = BatchSampler(len(dataset), batch_size, seed=0)
    while True:
        yield from sampler


def time_steps(
    step: Callable[[Batch], None], dataset: AnyDataset, batch_size: int, device: torch.device, seconds: float
) -> Timing:
    """Run steps for a while, fed by the prefetching loader of a run.

    Args:
        step: What is timed.
        dataset: Where batches come from.
        batch_size: Samples of a step.
        device: Where it computes.
        seconds: Time to spend after the first step [s]; at least `LEAST` steps are timed.
    """
    taken: list[float] = []
    waited = 0.0
    with closing(prefetch(endless(dataset, batch_size), dataset.batch)) as batches:
        step(to_device(next(batches), device))
        synchronize(device)
        begin = time.perf_counter()
        while len(taken) < LEAST or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - start
            step(to_device(batch, device))
            synchronize(device)
            taken.append(time.perf_counter() - start)
    return Timing(tuple(taken), min(waited / sum(taken), 1.0))


def time_in_memory(step: Callable[[Batch], None], batch: Batch, device: torch.device, seconds: float) -> Timing:
    """Run steps on one batch that is there already; arguments as `time_steps`."""
    batch = to_device(batch, device)
    taken: list[float] = []
    step(batch)
    synchronize(device)
    begin = time.perf_counter()
    while len(taken) < LEAST or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        step(batch)
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return Timing(tuple(taken), 0.0)


def flops_of_step(objective: Objective, config: RunConfig, dataset: AnyDataset, device: torch.device) -> float:
    """Count the operations of a step for each sample, forward and backward."""
    step = TrainingStep(objective, config, device, low=False)
    batch = to_device(dataset.batch(range(COUNTED)), device)
    found = count_flops(lambda: step.loss(batch)) / COUNTED
    objective.zero_grad(set_to_none=True)
    return found


def flops_of_embedding(embedding: Embedding, dataset: AnyDataset) -> float:
    """Count the operations of an embedding for each sample."""
    batch = to_device(dataset.batch(range(1)), embedding.device)
    return count_flops(lambda: embedding.embed(batch), backward=False)
