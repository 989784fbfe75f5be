"""When a run writes checkpoints, and what they say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ecgcmr.training.config import RunConfig
from ecgcmr.training.keeper import Keeper
from ecgcmr.training.runfolder import MetricsLog
from ecgcmr.training.state import RunState, model_state
from ecgcmr.training.versions import versions


class Saver:
    """Writes the checkpoints of a run; processes other than the main one have no `metrics` and write nothing."""

    def __init__(self, config: RunConfig, metrics: MetricsLog | None, run: Mapping[str, Any]) -> None:
        """Start the clock.

        Args:
            config: The run.
            metrics: Whose length the checkpoint holds.
            run: What stays the same in all checkpoints: world size, global batch, ...
        """
        train = config.train
        self.keeper = Keeper(config.folder / "checkpoints", train.save_seconds, train.keep_every, train.keep)
        self._config, self._metrics, self._run = config, metrics, run
        self._best: dict[str, Tensor] | None = None

    def is_due(self, epoch_done: int | None) -> bool:
        """Whether it is time to write, after an epoch (its number from 1) or in the middle of one (None)."""
        return self._metrics is not None and self.keeper.is_due(epoch_done)

    def set_best(self, model: dict[str, Tensor]) -> None:
        """Hand over the weights of the best evaluation, which nobody changes any more, for the next save."""
        self._best = model

    def save(self, state: RunState, epoch_done: int | None = None) -> None:
        """Write checkpoints on the main process: the best first, so that `last` never points past it.

        Raises:
            OSError: If one cannot be written; what was there before is whole.
        """
        if self._metrics is None:
            return
        if self._best is not None:
            self.keeper.save_best(self._best, self._meta(state, state.position.best_epoch))
            self._best = None
        self.keeper.save(
            model_state(state.objective), state.train_state(), self._meta(state, state.position.epoch), epoch_done
        )

    def _meta(self, state: RunState, epoch: int) -> dict[str, Any]:
        assert self._metrics is not None
        return {
            "epoch": epoch,
            "position": asdict(state.position),
            "samples_seen": state.position.step * self._run["global_batch"],
            "seed": self._config.seed,
            **self._run,
            "best": state.stopping.best,
            "monitor": self._config.train.monitor,
            "metrics_bytes": self._metrics.sync(),
            "versions": versions(),
        }
