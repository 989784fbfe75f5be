"""A program of the kill tests: run, kill and resume a small run many times, and compare it with one left alone.

Starting Python with torch costs seconds, so this process imports everything, builds nothing, stays single-threaded, and
forks for each attempt. It writes what happened as JSON. `test_kills.py` starts it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ecgcmr.training.config import load_config
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.runfolder import read_metrics
from ecgcmr.training.signals import EXIT_INTERRUPTED, RunInterrupted

FILES = ("metrics.jsonl", "checkpoints/last/model.safetensors", "checkpoints/best/model.safetensors",
         "weights/model.safetensors")  # fmt: skip
SIGNALS = {"kill": [signal.SIGKILL], "mixed": [signal.SIGKILL, signal.SIGTERM]}
LATE = 0.7
"""Share of kills that come when the attempt trains already; the others may hit a start."""


@dataclass(frozen=True)
class Kill:
    """When an attempt is killed, and how.

    Attributes:
        after: Seconds from its start, or from its first step.
        from_first_step: Which of the two; an attempt that makes no step any more ends by itself.
        number: The signal.
    """

    after: float
    from_first_step: bool
    number: int


def attempt(config_file: str, out: Path, kill: Kill | None) -> int:
    """Run or continue in a forked process; give its exit code, negative for the signal that ended it."""
    first = out.parent / "first_step.txt"
    first.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = 1
        try:

            def report(event: ProgressEvent) -> None:
                if not first.exists():
                    first.write_text(f"{time.monotonic()}")

            pretrain(load_config(config_file, [f"out={out}"]), resume=True, progress=report)
            code = 0
        except RunInterrupted:
            code = EXIT_INTERRUPTED
        except BaseException:
            (out.parent / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    since = None if kill and kill.from_first_step else time.monotonic()
    while kill:
        if since is None and first.exists():
            since = time.monotonic()
        if since is not None and time.monotonic() - since >= kill.after:
            os.kill(child, kill.number)
            break
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def differences(one: Path, other: Path) -> list[str]:
    """Name what differs between two finished runs, byte by byte and for the optimizer tensor by tensor."""
    found = [name for name in FILES if (one / name).read_bytes() != (other / name).read_bytes()]
    first, second = (torch.load(run / "checkpoints/last/train_state.pt", weights_only=True) for run in (one, other))
    found += [f"train_state {key}" for key in _flat(first) if not _same(_flat(first)[key], _flat(second).get(key))]
    return found + (["train_state keys"] if set(_flat(first)) != set(_flat(second)) else [])


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: leaf for name, value in items for key, leaf in _flat(value, f"{prefix}/{name}").items()}
    return {prefix: tree}


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def kill_often(config_file: str, folder: Path, kills: int, seed: int, signals: str) -> dict[str, Any]:
    """Kill a run `kills` times at random moments, resuming it in between; if it ends before that, another one follows.

    Returns:
        How many attempts ended by what, runs, steps of a run, how often a kill was followed by one at a later
        checkpoint, what differs from the run that was left alone, and seconds.
    """
    started, draw = time.monotonic(), random.Random(seed)
    whole = folder / "whole"
    assert attempt(config_file, whole, None) == 0, (folder / "error.txt").read_text()
    starting = float((folder / "first_step.txt").read_text()) - started
    training = time.monotonic() - started - starting
    ends: dict[str, int] = {}
    differing: list[str] = []
    runs, moved_on, left = 0, 0, kills
    while left:
        runs += 1
        out, code, before = folder / f"killed-{runs}", -1, -1
        while code:
            kill = None
            if left:
                late = draw.random() < LATE
                latest = 1.6 * training / (LATE * kills) if late else starting
                kill = Kill(draw.uniform(0, latest), late, draw.choice(SIGNALS[signals]))
            code = attempt(config_file, out, kill)
            if not code:
                break
            assert code in (-signal.SIGKILL, -signal.SIGTERM, EXIT_INTERRUPTED), (folder / "error.txt").read_text()
            left -= 1
            ends[str(code)] = ends.get(str(code), 0) + 1
            meta = out / "checkpoints/last/meta.json"
            step = json.loads(meta.read_text())["position"]["step"] if meta.exists() else -1
            moved_on, before = moved_on + (step > before), max(step, before)
        differing += [f"run {runs}: {name}" for name in differences(whole, out)]
    steps = read_metrics(whole)[-1]["step"]
    counts = {"ends": ends, "runs": runs, "steps": steps, "moved_on": moved_on}
    return {**counts, "differing": differing, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    configs, where, n_kills, first_seed, kinds = sys.argv[1:]
    torch.set_num_threads(1)
    reports = {}
    for position, path in enumerate(configs.split(",")):
        place = Path(where) / Path(path).stem
        place.mkdir(parents=True)
        # What is imported, cached and built on first use is there before the first fork.
        pretrain(load_config(path, [f"out={place / 'warm'}", "train.max_steps=1"]))
        reports[Path(path).stem] = kill_often(path, place, int(n_kills), int(first_seed) + position, kinds)
    print(json.dumps(reports))
