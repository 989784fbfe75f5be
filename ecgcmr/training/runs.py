"""List run folders with their state, judged from what lies in them; a broken folder is a row with a note, no error."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ecgcmr.cohort.locks import FolderLock
from ecgcmr.training.learning_curves import Series, read_curves

State = Literal["running", "finished", "interrupted", "failed", "broken"]

LOCK = "run.lock"
RECENT_SECONDS = 600.0
"""A run without a lock file counts as running if something of it changed within this time."""

_LIVE = ("metrics.jsonl", "train.log", "summary.json", "config.yaml", "checkpoints/last/meta.json")
_PLANNED = re.compile(r"(\d+) steps of \d+ samples")
_LOGGED = re.compile(r"^\S+ \S+ [A-Z]+ (?P<text>.*)$")
_ERROR = re.compile(r"^(?P<kind>[A-Z]\w*(?:Error|Exception|Interrupt|Interrupted|Exit)): (?P<words>.*)$")
_TAIL_BYTES = 65_536
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


@dataclass(frozen=True)
class RunState:
    """One run folder.

    Attributes:
        folder: Where it is.
        name: Name of the run.
        objective: Name of its objective.
        state: running, finished, interrupted (can be resumed), failed (an error stands in train.log) or broken (the
            folder does not say what it is).
        step: Optimizer steps done, as far as the folder tells.
        total: Steps planned.
        monitor: Which validation value decides.
        best: The best of it so far.
        age_seconds: Time since something of the run changed [s].
        note: Why it is in that state, where that is not plain.
    """

    folder: Path
    name: str = ""
    objective: str = ""
    state: State = "broken"
    step: int | None = None
    total: int | None = None
    monitor: str = ""
    best: float | None = None
    age_seconds: float = 0.0
    note: str = ""

    @property
    def age_words(self) -> str:
        """The age in its largest unit."""
        for seconds, unit in _UNITS:
            if self.age_seconds >= seconds:
                return f"{self.age_seconds / seconds:.0f} {unit} ago"
        return f"{self.age_seconds:.0f} s ago"

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return {**asdict(self), "folder": str(self.folder)}


def list_runs(root: Path) -> list[RunState]:
    """Find all run folders at or below a folder, the one that changed last first.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; runs are written to the `out` of their run file")
    found = [describe_run(folder) for folder in _run_folders(root)]
    return sorted(found, key=lambda run: run.age_seconds)


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders with a config.yaml and something else that only a run writes; what is within them is not looked at."""
    if (root / "config.yaml").is_file() and any((root / name).exists() for name in (*_LIVE[:3], "checkpoints", LOCK)):
        yield root
        return
    try:
        inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return
    for path in inside:
        if not path.name.startswith("."):
            yield from _run_folders(path)


def describe_run(folder: Path) -> RunState:
    """Judge one run folder from its files and its lock; whatever cannot be read is left out and noted."""
    config = _mapping(_yaml(folder / "config.yaml"))
    summary = _json(folder / "summary.json")
    meta = _json(folder / "checkpoints" / "last" / "meta.json")
    train, objective = _mapping(config.get("train")), _mapping(config.get("objective"))
    text = _tail(folder / "train.log")
    curves = _curves(folder / "metrics.jsonl")
    state, note = _state(folder, config, summary, text)
    monitor = str(train.get("monitor", ""))
    return RunState(
        folder=folder,
        name=str(config.get("name", "")),
        objective=str(objective.get("name", "")),
        state=state,
        step=_step(curves, summary, meta),
        total=_whole(summary.get("steps_planned")) or _planned(text),
        monitor=monitor,
        best=_best(curves, summary, monitor, str(train.get("mode", "min"))),
        age_seconds=_age(folder),
        note=note,
    )


def _state(folder: Path, config: Mapping[str, Any], summary: Mapping[str, Any], text: list[str]) -> tuple[State, str]:
    if not config:
        return "broken", "config.yaml cannot be read"
    if summary.get("status") == "finished":
        return "finished", ""
    held = _is_locked(folder / LOCK)
    if held:
        return "running", _holder(folder / LOCK)
    error = _ERROR.match(text[-1]) if text else None
    if error and error["kind"] == "RunInterrupted":
        return "interrupted", "continue with --resume"
    if error:
        return "failed", f"{error['kind']}: {error['words']}"[:160]
    if held is None and _age(folder) < RECENT_SECONDS:
        return "running", "judged by its age: it has no lock file"
    return "interrupted", "its process is gone; continue with --resume"


def _is_locked(path: Path) -> bool | None:
    """Whether a living process holds the lock; None where there is no lock file, or it cannot be asked."""
    if not path.is_file():
        return None
    lock = FolderLock(path)
    try:
        lock.acquire(busy="held")
    except BlockingIOError:
        return True
    except OSError:
        return None
    lock.release()
    return False


def _holder(path: Path) -> str:
    about = _json(path)
    return f"process {about['process']} on {about['host']}" if {"process", "host"} <= set(about) else ""


def _step(curves: Mapping[str, Series], summary: Mapping[str, Any], meta: Mapping[str, Any]) -> int | None:
    """The furthest step that any of the files tells of."""
    logged = [int(x) for series in curves.values() for points in series.values() for x, _ in points[-1:]]
    told = [_whole(summary.get("steps")), _whole(_mapping(meta.get("position")).get("step")), *logged]
    return max((step for step in told if step is not None), default=None)


def _planned(text: list[str]) -> int | None:
    for line in reversed(text):
        found = _PLANNED.match(line)
        if found:
            return int(found[1])
    return None


def _best(curves: Mapping[str, Series], summary: Mapping[str, Any], monitor: str, mode: str) -> float | None:
    value = _mapping(summary.get("best")).get("value")
    if isinstance(value, (int, float)):
        return float(value)
    values = [y for _, y in curves.get(monitor, {}).get("val", [])]
    return (max if mode == "max" else min)(values) if values else None


def _curves(path: Path) -> dict[str, Series]:
    try:
        return read_curves(path)
    except OSError:
        return {}


def _tail(path: Path) -> list[str]:
    """Messages of the end of train.log, without time and level; lines of a traceback are left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [found["text"] for found in map(_LOGGED.match, lines) if found]


def _age(folder: Path) -> float:
    changed = [path.stat().st_mtime for path in (folder / name for name in _LIVE) if path.is_file()]
    return max(0.0, time.time() - max(changed, default=folder.stat().st_mtime))


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _mapping(value)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
