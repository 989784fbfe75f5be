"""Time several ways of doing one thing in turn, each in a process of its own, so that ratios are fair.

A process of its own, because the allocator's setting (`ecgcmr.training.allocator`) belongs to a process: the reference
runs as it ships and once more with that setting. All sides are started first and then asked in turn for one step each,
so that whatever slows the machine down slows them alike; a ratio is taken within each round.

    python benchmarks/sides.py MODULE GROUP SIDE THREADS KEEP      (started by `measure`, not by hand)
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
QUICK = bool(os.environ.get("ECGCMR_BENCH_QUICK"))
"""Sizes that show that it runs and nothing else, for tests."""

REST_SECONDS = 0.02  # threads of the side before stop spinning


@dataclass
class Side:
    """One way of doing it.

    Attributes:
        step: Does it once.
        samples: How many samples that are.
        check: What must agree with other sides: losses, projections of gradients.
    """

    step: Callable[[], object]
    samples: int
    check: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Sides that are compared.

    Attributes:
        sides: Name -> factory, called in the side's own process; a name that ends in "+malloc" or begins with "ours"
            runs with the allocator that keeps freed memory.
        threads: Threads of each.
        rounds: Timed rounds, after one that warms up.
    """

    sides: Mapping[str, Callable[[], Side]]
    threads: int = 2
    rounds: int = 5


def keeps_memory(side: str) -> bool:
    """Whether a side runs with the allocator setting."""
    return side.endswith("+malloc") or side.startswith("ours")


class _Worker:
    """A side in its process."""

    def __init__(self, module: str, group: str, side: str, threads: int) -> None:
        keep = str(int(keeps_memory(side)))
        command = [sys.executable, str(HERE / "sides.py"), module, group, side, str(threads), keep]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.side = side

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the side {self.side!r} ended with exit code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self.read()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def measure(module: str, name: str, group: Group, wanted: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Time the sides of a group in turn.

    Returns:
        Side -> `samples_per_second` of each round, `check`, `peak_mib` of its process.
    """
    sides = [side for side in group.sides if not wanted or side in wanted]
    workers = [_Worker(module, name, side, group.threads) for side in sides]
    try:
        found = {worker.side: {**worker.read(), "seconds": []} for worker in workers}
        for number in range(group.rounds + 1):
            for worker in workers:
                time.sleep(REST_SECONDS)
                seconds = worker.ask("step")["seconds"]
                if number:
                    found[worker.side]["seconds"].append(seconds)
        for worker in workers:
            found[worker.side]["peak_mib"] = worker.ask("memory")["peak_mib"]
    finally:
        for worker in workers:
            worker.end()
    for about in found.values():
        about["samples_per_second"] = [about["samples"] / seconds for seconds in about.pop("seconds")]
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratio(found: Mapping[str, Mapping[str, Any]], side: str, to: str) -> dict[str, float]:
    """How many times as fast a side is as another, round by round."""
    pairs = zip(found[side]["samples_per_second"], found[to]["samples_per_second"], strict=True)
    return spread([a / b for a, b in pairs])


def gradient_check(loss: float, gradients: Sequence[Any]) -> dict[str, Any]:
    """A loss and 1,024 sums over parts of its gradient, which tell whether two processes computed the same."""
    import torch

    flat = torch.cat([g.detach().double().flatten() for g in gradients])
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 1024))
    return {"loss": loss, "projections": padded.view(-1, 1024).sum(0).tolist()}


def agreement(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float]:
    """Relative differences of two checks."""
    import numpy as np

    p, q = np.array(a["projections"]), np.array(b["projections"])
    return {
        "loss": abs(a["loss"] - b["loss"]) / abs(b["loss"]),
        "gradient": float(np.linalg.norm(p - q) / np.linalg.norm(q)),
    }


def _serve(module: str, group: str, side: str, threads: str, keep: str) -> None:
    import torch

    torch.set_num_threads(int(threads))
    if keep == "1":
        from ecgcmr.training.allocator import keep_freed_memory

        keep_freed_memory()
    made = import_module(module).GROUPS[group].sides[side]()
    print(json.dumps({"samples": made.samples, "check": made.check}), flush=True)
    for line in sys.stdin:
        if line.strip() == "memory":
            print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
            continue
        start = time.perf_counter()
        made.step()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _serve(*sys.argv[1:])
    else:
        print("nothing to measure by itself: see targets.py, align_step.py and loader.py")
