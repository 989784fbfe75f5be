"""Which checkpoints a run keeps: last, the one before it, best, and one of every N epochs; and which can be resumed."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ecgcmr.hub.folder import recover
from ecgcmr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

LAST, PREVIOUS, BEST = "last", "previous", "best"
_EPOCH = re.compile(r"epoch-(\d{5,})")


@dataclass
class Keeper:
    """Writes the checkpoints of a run; on the main process only.

    Attributes:
        folder: `checkpoints` of the run folder.
        save_seconds: Least time between two writings [s].
        keep_every: Epochs between checkpoints that stay; None for none.
        keep: How many of those stay, the newest.
    """

    folder: Path
    save_seconds: float
    keep_every: int | None = None
    keep: int = 3
    _saved_at: float = field(default_factory=time.monotonic)

    def is_due(self, epoch_done: int | None) -> bool:
        """Whether it is time to write, after an epoch (its number from 1) or in the middle of one (None)."""
        if epoch_done is not None and self._stays(epoch_done):
            return True
        waited = time.monotonic() - self._saved_at >= self.save_seconds
        return waited and (epoch_done is not None or self.save_seconds > 0)

    def save(
        self, model: Mapping[str, Tensor], train: Mapping[str, Any], meta: Mapping[str, Any], epoch_done: int | None
    ) -> None:
        """Write `last`, keep the one before it as `previous`, and where it is time one that stays.

        Raises:
            OSError: If it cannot be written; what was there before is whole.
        """
        if epoch_done is not None and self._stays(epoch_done):
            save_checkpoint(self.folder / f"epoch-{epoch_done:05d}", model, train, meta)
            for old in kept_epochs(self.folder)[: -self.keep]:
                shutil.rmtree(old)
        save_checkpoint(self.folder / LAST, model, train, meta, keep=self.folder / PREVIOUS)
        self._saved_at = time.monotonic()  # not the time of day, which somebody may set

    def save_best(self, model: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write the weights of the best evaluation."""
        save_checkpoint(self.folder / BEST, model, {}, meta)

    def finish(self) -> None:
        """Remove what only a run that is not over needs."""
        shutil.rmtree(self.folder / PREVIOUS, ignore_errors=True)

    def _stays(self, epoch_done: int) -> bool:
        return self.keep_every is not None and epoch_done % self.keep_every == 0


def kept_epochs(folder: Path) -> list[Path]:
    """Give the checkpoints that stay, oldest first."""
    found = [path for path in folder.glob("epoch-*") if _EPOCH.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def recover_all(folder: Path) -> None:
    """Finish or undo what a killed process left among the checkpoints of a run; on the main process only."""
    names = {LAST, PREVIOUS, BEST, *(path.name for path in kept_epochs(folder))}
    for hidden in folder.glob(".*.partial"):
        names.add(hidden.name[1 : -len(".partial")])
    for name in names:
        recover(folder / name)


def load_for_resume(folder: Path, name: str = LAST) -> tuple[Checkpoint | None, Checkpoint | None]:
    """Read the checkpoint to continue from, and the best one.

    Args:
        folder: `checkpoints` of the run folder.
        name: "last", "previous" or "epoch-00010".

    Returns:
        The checkpoint, None if the run was ended before it wrote any; and that of the best evaluation, None without.

    Raises:
        ValueError, FileNotFoundError: If it is missing, incomplete or corrupt; the message names the file, and the
            newest other checkpoint that is whole with how to continue from it.
    """
    if name == LAST and not any((folder / each).is_dir() for each in (LAST, PREVIOUS)) and not kept_epochs(folder):
        return None, None
    try:
        chosen = load_checkpoint(folder / name)
        if not chosen.train:
            raise ValueError(f"{folder / name}: holds weights only, a run cannot continue from it")
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{error}; {_offer(folder, name)}") from None
    if not (folder / BEST).is_dir():
        return chosen, None
    try:
        return chosen, load_checkpoint(folder / BEST)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"{error}; remove {folder / BEST} to continue without it: the next better weights are kept again"
        ) from None


def _offer(folder: Path, failed: str) -> str:
    """Name the newest checkpoint that is whole."""
    whole: list[tuple[int, str]] = []
    for path in (folder / LAST, folder / PREVIOUS, *kept_epochs(folder)):
        if path.name == failed or not path.is_dir():
            continue
        try:
            found = load_checkpoint(path)
        except (ValueError, FileNotFoundError):
            continue
        if found.train:
            whole.append((int(found.meta["position"]["step"]), path.name))
    if not whole:
        return "no other checkpoint of this run is whole: start anew with another out=..."
    step, name = max(whole)
    option = "--resume" if name == LAST else f"--resume-from {name}"
    return f"{folder / name} (step {step}) is whole: continue from it with {option}"
