"""The run folder: config.yaml, metrics.jsonl, summary.json, train.log, checkpoints/, weights/."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from ecgcmr.cohort.privacy_patterns import redact_within
from ecgcmr.hub.folder import write_text
from ecgcmr.training.config import RunConfig, load_config, save_config
from ecgcmr.training.probe import PROBE_FOLDER

MAY_DIFFER = frozenset(
    {"out"}
    | {
        f"train.{name}"
        for name in (
            "batch_size", "micro_batches", "eval_batch_size", "processes", "threads", "save_seconds", "keep_every",
            "keep", "async_save", "grad_checkpointing", "timeout_seconds", "trackers",
        )
    }
)  # fmt: skip
"""What may change when a run is resumed: nothing of it changes the numbers (see `check_same_run` for precision).

The batch size of a process may change with the number of processes; their product may not, which the trainer checks.
"""


def open_folder(config: RunConfig, resume: bool) -> bool:
    """Decide whether a run starts or continues.

    Returns:
        Whether there is something to continue.

    Raises:
        ValueError: If the folder has a run and `resume` was not asked, or another run than this one.
    """
    folder = config.folder
    before = folder / "config.yaml"
    if not before.exists():
        if folder.exists() and any(folder.iterdir()) and not _only_leftovers(folder):
            raise ValueError(f"{folder} exists and is not a run folder; choose another with out=...")
        return False
    if not resume:
        raise ValueError(f"{folder} holds a run already; continue it with --resume or choose another with out=...")
    check_same_run(load_config(before), config, before)
    return True


def check_same_run(old: RunConfig, new: RunConfig, where: Path) -> None:
    """Refuse to resume a run under another configuration.

    Raises:
        ValueError: The message lists each key that differs, with both values.
    """
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    differing = []
    for key in sorted({*before, *after} - MAY_DIFFER):
        resolved = key == "train.precision" and after.get(key) == "auto"
        if before.get(key) != after.get(key) and not resolved:
            differing.append(f"{key} was {before.get(key)!r}, now {after.get(key)!r}")
    if differing:
        raise ValueError(f"{where}: cannot resume with another configuration: {'; '.join(differing)}")


def start_folder(config: RunConfig) -> None:
    """Make the folder and write the resolved configuration."""
    config.folder.mkdir(parents=True, exist_ok=True)
    save_config(config, config.folder / "config.yaml")


class MetricsLog:
    """Rows of metrics.jsonl: no times in it, so that equal runs write equal files."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        """Open the file and drop what comes after `keep_bytes` (rows after the checkpoint that is resumed).

        Raises:
            ValueError: If the file is shorter than the checkpoint says.
        """
        size = path.stat().st_size if path.exists() else 0
        if size < keep_bytes:
            raise ValueError(
                f"{path}: has {size} bytes, the checkpoint was written after {keep_bytes}; rows are missing"
            )
        self._file = path.open("ab")
        self._file.truncate(keep_bytes)
        self._file.seek(keep_bytes)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row; values that are not finite become null.

        Raises:
            OSError: If the disk is full; what is half written is cut off when the run continues.
        """
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
        try:
            self._file.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            message = f"{error.strerror}: a row was not written; free space and continue with --resume"
            raise OSError(error.errno, message, self._file.name) from error

    @property
    def n_bytes(self) -> int:
        """Length of all rows [bytes]."""
        return self._file.tell()

    def sync(self) -> None:
        """Wait until the disk has all rows that there are now; any thread may call it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    """Read the rows of a run, all or of one event ("train", "val")."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if event in (None, row["event"])]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


class RunLog:
    """What `ecgcmr` logs during a run: kept in memory until `open`, so that a refused run leaves no folder behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.handler = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def open(self) -> None:
        """Append to train.log from now on, beginning with what was kept."""
        file = logging.FileHandler(self._folder / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.handler.setTarget(file)
        self.handler.flush()
        self.handler.flushLevel = logging.NOTSET


@contextmanager
def run_log(folder: Path, main: bool) -> Iterator[RunLog]:
    """Collect what `ecgcmr` logs while the run lasts; processes other than the main one write nothing."""
    log = RunLog(folder)
    logger = logging.getLogger("ecgcmr")
    level = logger.level
    if main:
        logger.addHandler(log.handler)
        logger.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield log
    except Exception as error:
        # To the file only: whoever catches the error tells it to the user. A run folder is made to be shared, so it
        # names no home folder and nothing that a message quotes of a person.
        text = f"{type(error).__name__}: {redact_within(str(error).replace(str(Path.home()), '~'))}"
        log.handler.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, (), None))
        raise
    finally:
        logger.removeHandler(log.handler)
        logger.setLevel(level)
        target = log.handler.target
        log.handler.close()
        if target is not None:
            target.close()


def _only_leftovers(folder: Path) -> bool:
    """Whether a run was stopped before it wrote its configuration, or in the probe that comes before it."""
    leftovers = {"train.log", "metrics.jsonl", "run.lock", ".config.yaml.partial", PROBE_FOLDER}
    return {path.name for path in folder.iterdir()} <= leftovers


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
