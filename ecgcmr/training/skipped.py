"""The ledger of skipped steps: which subjects were in a batch whose loss or gradient was not finite.

It stays in the run folder on this machine and names subjects by the cohort's pseudonymous index; nothing of it goes
into metrics, logs, trackers, reports or weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import gather_rows, world
from ecgcmr.objectives.base import ObjectiveOutput
from ecgcmr.training.runfolder import MetricsLog

LEDGER = "skipped.jsonl"


def describe_skipped(batch: Batch, output: ObjectiveOutput) -> list[dict[str, Any]]:
    """Say who was in a skipped batch and where it is not finite; called by all processes together.

    Args:
        batch: Rows of this process.
        output: Losses of each of its samples.

    Returns:
        A row for each process, alike on all of them: `rank`, `subjects` in the order of the batch, `inputs` and
        `losses`: the subjects whose `ecg` or `cmr`, or whose loss of that name, is not finite. A contrastive loss that
        is not finite spreads over the batch; the inputs still tell whose it was.
    """
    found = {f"inputs {name}": _not_finite(value) for name, value in (("ecg", batch["ecg"]), ("cmr", batch["cmr"]))}
    found |= {f"losses {name}": _not_finite(value) for name, value in sorted(output.losses.items())}
    subjects = gather_rows(batch["subject"]).chunk(world()[1])
    flags = gather_rows(torch.stack(list(found.values()), dim=1)).chunk(world()[1])
    rows: list[dict[str, Any]] = []
    for rank, (subject, flag) in enumerate(zip(subjects, flags, strict=True)):
        row: dict[str, Any] = {"rank": rank, "subjects": subject.tolist(), "inputs": {}, "losses": {}}
        for column, key in enumerate(found):
            kind, _, name = key.partition(" ")
            if bool(flag[:, column].any()):
                row[kind][name] = subject[flag[:, column]].tolist()
        rows.append(row)
    return rows


def _not_finite(value: Tensor) -> Tensor:
    """Give (B,) bool of a tensor (B, ...), which may hold nothing."""
    return ~value.detach().isfinite().reshape(value.shape[0], -1).all(dim=1)


class SkippedLedger:
    """`skipped.jsonl` of a run; there is no such file before a step was skipped."""

    def __init__(self, folder: Path, keep_bytes: int = 0) -> None:
        """Drop what comes after `keep_bytes` (rows after the checkpoint that is resumed).

        Raises:
            ValueError: If the file is shorter than the checkpoint says.
        """
        self._path = folder / LEDGER
        self._log: MetricsLog | None = None
        if keep_bytes:
            self._log = MetricsLog(self._path, keep_bytes)
        else:
            self._path.unlink(missing_ok=True)

    def add(self, step: int, epoch: int, loss: float, grad_norm: float, rows: list[dict[str, Any]]) -> None:
        """Write the rows of one skipped step, whose loss is finite if it was the gradient that was not."""
        if self._log is None:
            self._log = MetricsLog(self._path)
        why = "gradient" if math.isfinite(loss) else "loss"
        for row in rows:
            self._log.add({"step": step, "epoch": epoch, "not_finite": why, "loss": loss, "norm": grad_norm, **row})

    @property
    def n_bytes(self) -> int:
        """Length of all rows [bytes]."""
        return self._log.n_bytes if self._log is not None else 0

    def sync(self) -> None:
        """Wait until the disk has all rows that there are now; any thread may call it."""
        if self._log is not None:
            self._log.sync()

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            self._log.close()
