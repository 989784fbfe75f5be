"""The loop over any objective: it knows per-sample losses and their weights, and no objective by name."""

from __future__ import annotations

import logging
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.mixture import AnyDataset
from ecgcmr.cohort.sampler import BatchSampler, Order
from ecgcmr.objectives.base import Objective
from ecgcmr.training.checkpoint import Checkpoint
from ecgcmr.training.config import RunConfig
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.evaluate import evaluate, to_device
from ecgcmr.training.keeper import Keeper
from ecgcmr.training.losses import Meter, Totals, reduce_losses, total_loss
from ecgcmr.training.micro_batches import MicroBatches, check_micro_batches
from ecgcmr.training.optim import absolute_lr, build_optimizer, make_schedule, set_lr
from ecgcmr.training.prefetch import Waiting, prefetch
from ecgcmr.training.progress import ProgressCallback, ProgressEvent
from ecgcmr.training.randomness import derive_seed, torch_generator
from ecgcmr.training.runfolder import MetricsLog
from ecgcmr.training.signals import RunInterrupted, StopRequest
from ecgcmr.training.versions import versions

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Where a run stands; together with the seed it decides everything random that follows.

    Attributes:
        epoch: Epoch that is under way, from 0.
        step_in_epoch: Steps done in it.
        step: Optimizer steps done in all, skipped ones included.
        skipped: Steps that were skipped because they were not finite.
        skipped_in_row: How many of them at the end.
        best_epoch: Epochs done at the best evaluation; 0 before the first.
        seconds: Time spent [s], over all parts of a resumed run.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass
class Feeds:
    """The data of a run; `val` is None without validation subjects, `order` where each sample comes once an epoch."""

    train: AnyDataset
    val: AnyDataset | None
    order: Order | None = None


@dataclass
class Trainer:
    """One run of one objective on this process.

    Attributes:
        config: The run, resolved.
        accelerator: Started for the run's precision.
        objective: Initialized; it freezes its own parts.
        feeds: Training and validation data.
        metrics: Where rows go; None on all but the main process.
        report: Gets each step.
    """

    config: RunConfig
    accelerator: Accelerator
    objective: Objective
    feeds: Feeds
    metrics: MetricsLog | None
    report: ProgressCallback
    position: Position = field(default_factory=Position)
    meter: Meter = field(default_factory=Meter)
    best_state: dict[str, Tensor] | None = None
    waiting: Waiting = field(default_factory=Waiting)

    def __post_init__(self) -> None:
        train, optim, world = self.config.train, self.config.optim, self.accelerator
        n, order, seed = len(self.feeds.train), self.feeds.order, self.config.seed
        self.sampler = BatchSampler(n, train.batch_size, seed, world.process_index, world.num_processes, order)
        self.steps_per_epoch = len(self.sampler)
        whole = self.steps_per_epoch * train.epochs
        self.total_steps = min(whole, train.max_steps or whole)
        self.global_batch = self.sampler.rows_per_rank * world.num_processes
        lr = absolute_lr(optim, self.global_batch)
        self.schedule = make_schedule(optim, lr, self.steps_per_epoch, self.total_steps)
        check_micro_batches(self.objective, self.sampler.rows_per_rank, train.micro_batches, train.micro_batch_norm)
        self.stopping = EarlyStopping(train.mode, train.patience, train.max_delta)
        self.weights = dict(self.objective.loss_weights)
        optimizer = build_optimizer(self.objective, optim)
        self.model, self.optimizer = world.prepare(self.objective, optimizer)
        self.keeper = Keeper(self.config.folder / "checkpoints", train.save_seconds, train.keep_every, train.keep)
        self._best_on_disk = True
        self._started = time.monotonic()

    def fit(self, stop: StopRequest) -> None:
        """Train to the end, from wherever `position` stands.

        Raises:
            RunInterrupted: If any process was asked to stop; the checkpoint is written.
            ValueError: If the loss was not finite too often.
        """
        self._started = time.monotonic() - self.position.seconds
        while not self.finished:
            if self._train_epoch(stop):
                self._save(force=True)
                raise RunInterrupted(self.config.folder, self.position.step)
            self._end_epoch()
        if self.stopping.should_stop:
            log.info(
                "stopped early: %s was worse in %d evaluations in a row", self.config.train.monitor, self.stopping.bad
            )
        self._save(force=True)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: all steps are done and evaluated, or the run stopped early."""
        done = self.position.step >= self.total_steps and not self.position.step_in_epoch
        return done or self.stopping.should_stop

    def _train_epoch(self, stop: StopRequest) -> bool:
        """Train what is left of this epoch; True if the run must stop."""
        position = self.position
        steps = min(self.steps_per_epoch - position.step_in_epoch, self.total_steps - position.step)
        if steps <= 0:
            return False
        start = position.step_in_epoch * self.global_batch
        self.sampler.load_state_dict({"epoch": position.epoch, "position": start})
        self.model.train()
        with closing(prefetch(self.sampler, self.feeds.train.batch, waiting=self.waiting)) as batches:
            for batch in batches:
                asked = self._step(to_device(batch, self.accelerator.device), stop)
                steps -= 1
                if asked and position.step < self.total_steps:
                    return True
                if steps == 0:
                    return False
                self._save()
        return False

    def _step(self, batch: Batch, stop: StopRequest) -> bool:
        """One optimizer step; True if any process was asked to stop."""
        lr = self.schedule.at(self.position.step)
        set_lr(self.optimizer, lr)
        pieces = MicroBatches(
            self.accelerator, self.model, self.objective, batch, self.config.train.micro_batches, self._start_draws
        )
        output = self.model(batch, self._start_draws(0)) if pieces.parts == 1 else pieces.output()
        loss, totals = reduce_losses(output, self.weights, self.accelerator.num_processes, stop.asked)
        total, norm = total_loss(totals, self.weights), math.nan
        if math.isfinite(total):
            if pieces.parts == 1:
                self.accelerator.backward(loss)
            else:
                pieces.backward(loss)
            norm = self._clipped_norm()
        self._finish_step(total, norm, totals, lr)
        return totals.stop

    def _start_draws(self, part: int) -> torch.Generator:
        """Seed all that is random in one piece of a step: a function of the position alone."""
        position, seed, world = self.position, self.config.seed, self.accelerator
        # Layers of other libraries draw from the global stream: seeding it each step makes it part of the position.
        index = world.process_index * self.config.train.micro_batches + part
        torch.manual_seed(derive_seed(seed, "layers", position.step, index))
        return torch_generator(world.device, seed, "step", position.epoch, position.step_in_epoch)

    def _clipped_norm(self) -> float:
        """Clip the gradient, which is averaged and so alike on all processes; gives its norm before clipping."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        value, limit = float(norm), self.config.optim.clip_grad
        if limit is not None and limit < value < math.inf:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return value

    def _finish_step(self, total: float, norm: float, totals: Totals, lr: float) -> None:
        position = self.position
        if math.isfinite(total) and math.isfinite(norm):
            self.optimizer.step()
            self.objective.after_step()
            self.meter.add(totals, self.global_batch, grad_norm=norm)
            position.skipped_in_row = 0
        else:
            position.skipped, position.skipped_in_row = position.skipped + 1, position.skipped_in_row + 1
            log.warning("step %d skipped: loss %s, gradient norm %s", position.step, total, norm)
            self._check_skipped()
        self.optimizer.zero_grad(set_to_none=True)
        position.step, position.step_in_epoch = position.step + 1, position.step_in_epoch + 1
        every = self.config.train.log_every
        if every and position.step % every == 0:
            self._log_training(lr)
        self.report(ProgressEvent(self.config.name, position.step, self.total_steps, f"loss {total:.4g}"))

    def _check_skipped(self) -> None:
        allowed = self.config.train.max_nonfinite
        if self.position.skipped_in_row > allowed:
            raise ValueError(
                f"the loss or its gradient was not finite in {self.position.skipped_in_row} steps in a row "
                f"(train.max_nonfinite={allowed}), the last at step {self.position.step}; lower optim.lr, set "
                "train.precision=no, or look for values that are not finite in the cohort"
            )

    def _log_training(self, lr: float) -> None:
        row = self.meter.row(self.weights)
        if row:
            self._add_row("train", {**row, "lr": lr, "skipped": self.position.skipped})
        self.meter = Meter()

    def _add_row(self, event: str, values: dict[str, float]) -> None:
        position = self.position
        epoch = position.step / self.steps_per_epoch
        if self.metrics is not None:
            self.metrics.add({"event": event, "epoch": round(epoch, 6), "step": position.step, **values})
        if self.config.train.trackers:
            self.accelerator.log({f"{event}/{key}": value for key, value in values.items()}, step=position.step)

    def _end_epoch(self) -> None:
        position, train = self.position, self.config.train
        last = self.schedule.at(max(position.step - 1, 0))
        self._log_training(last)
        position.epoch, position.step_in_epoch = position.epoch + 1, 0
        finished = position.step >= self.total_steps
        if self.feeds.val is not None and (finished or position.epoch % train.eval_every == 0):
            self._evaluate()
        position.seconds = time.monotonic() - self._started
        if not finished:
            self._save(evaluated=True)

    def _evaluate(self) -> None:
        assert self.feeds.val is not None
        row = evaluate(self.objective, self.feeds.val, self.config, self.accelerator)
        monitor = self.config.train.monitor
        if monitor not in row:
            raise ValueError(
                f"train.monitor is {monitor!r}, the validation gives: {', '.join(sorted(row))} "
                "(r and auroc need a label that differs among the validation subjects)"
            )
        self._add_row("val", row)
        best = self.stopping.update(row[monitor])
        if best:
            self.position.best_epoch = self.position.epoch
            if self.accelerator.is_main_process:
                # A copy, not a reference: the live weights go on changing.
                self.best_state = {k: v.detach().cpu().clone() for k, v in self.objective.state_dict().items()}
                self._best_on_disk = False
        log.info(
            "%s: epoch %d, step %d of %d: validation %s %.5g%s", self.config.name, self.position.epoch,
            self.position.step, self.total_steps, monitor, row[monitor], " (best)" if best else "",
        )  # fmt: skip

    def _save(self, force: bool = False, evaluated: bool = False) -> None:
        """Write checkpoints on the main process, if it is time: the best first, so that `last` never points past it."""
        done = self.position.epoch if evaluated else None
        if self.metrics is None or not (force or self.keeper.is_due(done)):
            return
        self.position.seconds = time.monotonic() - self._started
        if self.best_state is not None and not self._best_on_disk:
            self.keeper.save_best(self.best_state, self._meta(self.position.best_epoch))
            self._best_on_disk = True
        train = {
            "optimizer": self.optimizer.state_dict(),
            "meter": self.meter.state_dict(),
            "stopping": self.stopping.state_dict(),
        }
        self.keeper.save(self.objective.state_dict(), train, self._meta(self.position.epoch), done)

    def _meta(self, epoch: int) -> dict[str, Any]:
        assert self.metrics is not None
        return {
            "epoch": epoch,
            "position": asdict(self.position),
            "samples_seen": self.position.step * self.global_batch,
            "seed": self.config.seed,
            "world_size": self.accelerator.num_processes,
            "global_batch": self.global_batch,
            "best": self.stopping.best,
            "monitor": self.config.train.monitor,
            "metrics_bytes": self.metrics.sync(),
            "versions": versions(),
        }

    def resume(self, last: Checkpoint, best: Checkpoint | None) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: If the checkpoint was made with another global batch.
        """
        if last.meta["global_batch"] != self.global_batch:
            raise ValueError(
                f"the checkpoint was made with {last.meta['global_batch']} samples a step, this run has "
                f"{self.global_batch}; resume with the same train.batch_size times processes"
            )
        self.objective.load_state_dict(last.model)
        self.optimizer.load_state_dict(last.train["optimizer"])
        self.meter = Meter.from_state(last.train["meter"])
        self.stopping.load_state_dict(last.train["stopping"])
        self.position = Position(**last.meta["position"])
        self.best_state = best.model if best else None
        log.info("continues at step %d of %d", self.position.step, self.total_steps)
