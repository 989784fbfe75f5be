"""The loop over any objective: it knows per-sample losses and their weights, and no objective by name."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass, field

from accelerate import Accelerator
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.mixture import AnyDataset
from ecgcmr.cohort.sampler import BatchSampler, Order
from ecgcmr.models.recompute import set_grad_checkpointing
from ecgcmr.objectives.base import Objective
from ecgcmr.training.checkpoint import Checkpoint
from ecgcmr.training.config import RunConfig
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.ema import WeightAverage
from ecgcmr.training.evaluate import evaluate, to_device
from ecgcmr.training.losses import Meter
from ecgcmr.training.micro_batches import check_micro_batches
from ecgcmr.training.optim import absolute_lr, build_optimizer, make_schedule
from ecgcmr.training.position import Position
from ecgcmr.training.prefetch import Waiting, prefetch
from ecgcmr.training.progress import ProgressCallback, ProgressEvent
from ecgcmr.training.rows import Rows
from ecgcmr.training.saver import Saver
from ecgcmr.training.sharding import agree_to_gather, prepare_objective
from ecgcmr.training.signals import RunInterrupted, StopRequest
from ecgcmr.training.state import RunState
from ecgcmr.training.step import Stepper, check_skipped
from ecgcmr.training.whole_state import gather_state

log = logging.getLogger(__name__)


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
        rows: Where rows of metrics and of skipped steps go.
        report: Gets each step.
        best_state: Weights of the best evaluation; on the main process only.
    """

    config: RunConfig
    accelerator: Accelerator
    objective: Objective
    feeds: Feeds
    rows: Rows
    report: ProgressCallback
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
        self.weights = dict(self.objective.loss_weights)
        set_grad_checkpointing(self.objective, train.grad_checkpointing)
        self.model = prepare_objective(world, self.objective)
        optimizer = world.prepare_optimizer(build_optimizer(self.objective, optim))
        ema = WeightAverage(self.objective, train.ema_decay, train.ema_warmup) if train.ema_decay else None
        self.stepper = Stepper(self.config, world, self.objective, self.model, optimizer, ema)
        stopping = EarlyStopping(train.mode, train.patience, train.max_delta)
        self.state = RunState(self.objective, optimizer, Meter(), stopping, Position(), ema)
        self.saver = Saver(
            self.config, self.rows, {"world_size": world.num_processes, "global_batch": self.global_batch}
        )
        self._started = time.monotonic()

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return self.state.position

    @property
    def stopping(self) -> EarlyStopping:
        """What the evaluations have been."""
        return self.state.stopping

    def fit(self, stop: StopRequest) -> None:
        """Train to the end, from wherever `position` stands.

        Raises:
            RunInterrupted: If any process was asked to stop; the checkpoint is written.
            ValueError: If the loss was not finite too often.
            OSError: If a checkpoint cannot be written; the one before it is whole.
        """
        self._started = time.monotonic() - self.position.seconds
        while not self.finished:
            if self._train_epoch(stop):
                self._save(force=True)
                self.saver.wait()
                raise RunInterrupted(self.config.folder, self.position.step)
            self._end_epoch()
        if self.stopping.should_stop:
            log.info(
                "stopped early: %s was worse in %d evaluations in a row", self.config.train.monitor, self.stopping.bad
            )
        self._save(force=True)
        self.saver.wait()

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
        position, train = self.position, self.config.train
        lr = self.schedule.at(position.step)
        result = self.stepper.take(batch, position, lr, stop.asked)
        if result.taken:
            self.state.meter.add(result.totals, self.global_batch, grad_norm=result.norm)
        else:
            log.warning("step %d skipped: loss %s, gradient norm %s", position.step, result.total, result.norm)
            if self.rows.skipped is not None:
                self.rows.skipped.add(position.step, position.epoch, result.total, result.norm, result.suspects)
        position.count_step(result.taken)
        check_skipped(position, train.max_nonfinite)
        if train.log_every and position.step % train.log_every == 0:
            self._log_training(lr)
        self.report(ProgressEvent(self.config.name, position.step, self.total_steps, f"loss {result.total:.4g}"))
        return result.totals.stop

    def _log_training(self, lr: float) -> None:
        row = self.state.meter.row(self.weights)
        if row:
            self._add_row("train", {**row, "lr": lr, "skipped": self.position.skipped})
        self.state.meter = Meter()

    def _add_row(self, event: str, values: dict[str, float]) -> None:
        position = self.position
        epoch = position.step / self.steps_per_epoch
        if self.rows.metrics is not None:
            self.rows.metrics.add({"event": event, "epoch": round(epoch, 6), "step": position.step, **values})
        if self.config.train.trackers:
            self.accelerator.log({f"{event}/{key}": value for key, value in values.items()}, step=position.step)

    def _end_epoch(self) -> None:
        position, train = self.position, self.config.train
        last = self.schedule.at(max(position.step - 1, 0))
        self._log_training(last)
        position.end_epoch()
        finished = position.step >= self.total_steps
        if self.feeds.val is not None and (finished or position.epoch % train.eval_every == 0):
            self._evaluate()
        position.seconds = time.monotonic() - self._started
        if not finished:
            self._save(epoch_done=position.epoch)

    def _evaluate(self) -> None:
        """Evaluate the weights, or their average where there is one; the best ones are kept as they were evaluated."""
        with self.state.evaluated_weights():
            self._evaluate_weights()

    def _evaluate_weights(self) -> None:
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
            state, _ = gather_state(self.objective)  # copies: the live weights go on changing
            if self.accelerator.is_main_process:
                self.best_state = state
                self.saver.set_best(state)
        log.info(
            "%s: epoch %d, step %d of %d: validation %s %.5g%s", self.config.name, self.position.epoch,
            self.position.step, self.total_steps, monitor, row[monitor], " (best)" if best else "",
        )  # fmt: skip

    def _save(self, force: bool = False, epoch_done: int | None = None) -> None:
        """Write checkpoints, if it is time; all processes bring the state together, the main one writes."""
        if force or agree_to_gather(self.model, self.saver.is_due(epoch_done)):
            self.position.seconds = time.monotonic() - self._started
            self.saver.save(self.state, epoch_done)

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
        self.state.load(last)
        self.best_state = best.model if best else None
        log.info("continues at step %d of %d", self.position.step, self.total_steps)
