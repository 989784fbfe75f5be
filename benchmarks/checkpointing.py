"""How long a step is held up by a checkpoint: written at once, and in the background from a copy of the state.

    python benchmarks/checkpointing.py [--mib 100] [--saves 5] [--step-ms 50] [--out FOLDER]

The state (model, two moments, an average) has the size of a run of that many MiB. The training thread does matrix
products for `--step-ms` in each step and saves in every tenth. Reported are the longest a step was held up by `save`,
the copy alone, and how much slower steps are while a writing is under way: on a machine whose cores are all busy,
packing and hashing take their share. Both ways write in one run, in turn; `--out` chooses the disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from ecgcmr.training.allocator import keep_freed_memory
from ecgcmr.training.config import RunConfig, check_config
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.ema import WeightAverage
from ecgcmr.training.losses import Meter
from ecgcmr.training.position import Position
from ecgcmr.training.rows import open_rows
from ecgcmr.training.saver import Saver
from ecgcmr.training.state import RunState

EVERY = 10


def make_state(mib: float) -> RunState:
    """A model, AdamW's moments and an average, together `mib` large."""
    width = 1024
    layers = max(1, round(mib * 2**20 / 4 / 4 / width**2))
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return RunState(model, optimizer, Meter(), EarlyStopping(), Position(), WeightAverage(model, 0.99))  # type: ignore[arg-type]


def run_config(folder: Path, in_background: bool) -> RunConfig:
    """A run of which only the saving takes place."""
    tree = {"name": "save", "data": {"cohort": "none"}, "objective": {"name": "masked_ecg"}, "out": str(folder)}
    return check_config({**tree, "train": {"save_seconds": 0, "async_save": in_background}}, "the benchmark")


class Work:
    """Matrix products of about so many milliseconds."""

    def __init__(self, step_ms: float) -> None:
        self.left, self.products = torch.randn(512, 512), 1
        started = time.perf_counter()
        for _ in range(50):
            self.left @ self.left
        self.products = max(1, round(step_ms / 1e3 / ((time.perf_counter() - started) / 50)))

    def step(self) -> float:
        """Do one step; gives its time [ms]."""
        started = time.perf_counter()
        for _ in range(self.products):
            self.left @ self.left
        return 1e3 * (time.perf_counter() - started)


def measure(state: RunState, folder: Path, in_background: bool, saves: int, work: Work) -> dict[str, list[float]]:
    """Train and save; gives the times of saves, of steps while one is written, and of other steps [ms]."""
    folder.mkdir()
    found: dict[str, list[float]] = {"held_up": [], "meanwhile": [], "undisturbed": []}
    with Saver(run_config(folder, in_background), open_rows(folder, {}), {"global_batch": 1}) as saver:
        for step in range(saves * EVERY):
            busy = saver._writer.busy
            found["meanwhile" if busy else "undisturbed"].append(work.step())
            if step % EVERY == 0:
                saver.wait()  # the question is what one save costs, not a queue of them
                started = time.perf_counter()
                saver.save(state)
                found["held_up"].append(1e3 * (time.perf_counter() - started))
    return found


def main() -> None:
    """Measure both ways and print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, default=100.0)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--step-ms", type=float, default=50.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    state, work = make_state(options.mib), Work(options.step_ms)
    copies = []
    for _ in range(options.saves):
        started = time.perf_counter()
        state.gathered()
        copies.append(1e3 * (time.perf_counter() - started))
    times: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        for turn in range(2):
            for in_background in (False, True):
                found = measure(state, Path(folder) / f"{turn}-{in_background}", in_background, options.saves, work)
                for name, values in found.items():
                    times[in_background].setdefault(name, []).extend(values)
    at_once, behind = (statistics.median(times[way]["held_up"]) for way in (False, True))
    undisturbed = statistics.median(times[True]["undisturbed"] + times[False]["undisturbed"])
    meanwhile = statistics.median(times[True]["meanwhile"]) if times[True]["meanwhile"] else None
    report = {
        "state_mib": options.mib,
        "copy_ms": statistics.median(copies),
        "held_up_at_once_ms": at_once,
        "held_up_in_background_ms": behind,
        "ratio": at_once / behind,
        "step_ms": undisturbed,
        "step_while_writing_ms": meanwhile,
    }
    print(json.dumps({name: value and round(value, 2) for name, value in report.items()}, indent=1))


if __name__ == "__main__":
    main()
