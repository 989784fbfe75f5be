"""When a run writes checkpoints, and what they say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from ecgcmr.training.config import RunConfig
from ecgcmr.training.keeper import Keeper
from ecgcmr.training.rows import Rows
from ecgcmr.training.sharding import is_sharded
from ecgcmr.training.state import RunState
from ecgcmr.training.versions import versions
from ecgcmr.training.writer import BackgroundWriter


class Saver:
    """Writes the checkpoints of a run; processes other than the main one have no `rows` and write nothing.

    A step waits for the copy of the state only: packing, hashing, writing and renaming go on in a background thread
    (`train.async_save`). As a context manager it waits for the last one at the end.
    """

    def __init__(self, config: RunConfig, rows: Rows, run: Mapping[str, Any]) -> None:
        """Start the clock.

        Args:
            config: The run.
            rows: Files whose length the checkpoint holds.
            run: What stays the same in all checkpoints: world size, global batch, ...
        """
        train = config.train
        self.keeper = Keeper(config.folder / "checkpoints", train.save_seconds, train.keep_every, train.keep)
        self._config, self._rows, self._run = config, rows, {**run, "versions": versions()}
        self._best: dict[str, Tensor] | None = None
        self._writer = BackgroundWriter(train.async_save and rows.metrics is not None)

    def is_due(self, epoch_done: int | None) -> bool:
        """Whether it is time to write, after an epoch (its number from 1) or in the middle of one (None).

        In the middle of an epoch a writing that is under way is not waited for: the state of a later step is saved.

        Raises:
            OSError: If the writing before failed; what was there before that is whole.
        """
        if self._rows.metrics is None:
            return False
        self._writer.check()
        return self.keeper.is_due(epoch_done) and not (epoch_done is None and self._writer.busy)

    def set_best(self, model: dict[str, Tensor]) -> None:
        """Hand over the weights of the best evaluation, which nobody changes any more, for the next save."""
        self._best = model

    def save(self, state: RunState, epoch_done: int | None = None) -> None:
        """Copy the state and begin to write it on the main process, after the writing before is over.

        Of a sharded objective all processes must call this: the state is brought together.

        The best comes first, so that `last` never points past it; the rows of metrics before both.

        Raises:
            OSError: If the writing before failed, or without `train.async_save` this one; what was there is whole.
        """
        self._writer.wait()  # before the copy: memory never holds two
        if self._rows.metrics is None and not is_sharded(state.objective):
            return
        model, train = state.gathered()
        if self._rows.metrics is None:
            return
        best, best_meta = self._best, self._meta(state, state.position.best_epoch)
        self._best = None
        meta = self._meta(state, state.position.epoch)

        def write() -> None:
            self._rows.sync()
            if best is not None:
                self.keeper.save_best(best, best_meta)
            self.keeper.save(model, train, meta, epoch_done)

        self._writer.submit(write)

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: If it could not be; what was there before is whole.
        """
        self._writer.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def _meta(self, state: RunState, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "position": asdict(state.position),
            "samples_seen": state.position.step * self._run["global_batch"],
            "seed": self._config.seed,
            **self._run,
            "best": state.stopping.best,
            "monitor": self._config.train.monitor,
            **self._rows.n_bytes,
        }
