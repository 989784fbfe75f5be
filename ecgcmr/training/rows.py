"""What a run writes row by row, and how a run that continues cuts it to where its checkpoint was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgcmr.training.runfolder import MetricsLog
from ecgcmr.training.skipped import SkippedLedger


@dataclass
class Rows:
    """What a run writes row by row: both None on all processes but the main one."""

    metrics: MetricsLog | None = None
    skipped: SkippedLedger | None = None

    @property
    def n_bytes(self) -> dict[str, int]:
        """Lengths for the checkpoint [bytes]."""
        sizes = {"metrics_bytes": self.metrics, "skipped_bytes": self.skipped}
        return {name: rows.n_bytes for name, rows in sizes.items() if rows is not None}

    def sync(self) -> None:
        """Wait until the disk has all rows that there are now; any thread may call it."""
        for rows in (self.metrics, self.skipped):
            if rows is not None:
                rows.sync()

    def close(self) -> None:
        """Close the files."""
        for rows in (self.metrics, self.skipped):
            if rows is not None:
                rows.close()


def open_rows(folder: Path, meta: Mapping[str, Any]) -> Rows:
    """Open the files of a run, cut to where they were when the checkpoint with this `meta` was written.

    Raises:
        ValueError: If one of them is shorter than that.
    """
    metrics = MetricsLog(folder / "metrics.jsonl", int(meta.get("metrics_bytes", 0)))
    return Rows(metrics, SkippedLedger(folder, int(meta.get("skipped_bytes", 0))))
