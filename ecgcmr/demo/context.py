"""Where a demo keeps its things, and what it compares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecgcmr.demo.presets import DemoPreset, demo_preset

MEASUREMENTS = ("LVEDV", "LVESV", "LVEF", "LVM", "RVEDV")
DIAGNOSES = ("mi", "dcm", "hcm", "hhd")
KINDS = dict.fromkeys(MEASUREMENTS, "regression") | dict.fromkeys(DIAGNOSES, "binary")


@dataclass(frozen=True)
class Arm:
    """One way to come to a prediction.

    Attributes:
        key: Name in results.json.
        title: Name in figures.
        run: Run folder whose weights it uses; None for the arm that is trained from scratch.
        modality: What it sees: `ecg` or `cmr`.
    """

    key: str
    title: str
    run: str | None
    modality: Literal["ecg", "cmr"] = "ecg"


SCRATCH = Arm("scratch", "Supervised from scratch", None)
PRETRAINED = (
    Arm("ecg_mae", "ECG MAE", "ecg_mae"),
    Arm("aligned", "Aligned without MAE", "aligned"),
    Arm("mae_aligned", "MAE + aligned", "mae_aligned"),
    Arm("cmr", "CMR encoder (ceiling)", "mae_aligned", "cmr"),
)
SHUFFLED = Arm("shuffled", "Aligned on shuffled pairs (control)", "shuffled")
MAIN, RIVALS = "mae_aligned", ("ecg_mae", "scratch", "aligned")


@dataclass(frozen=True)
class DemoContext:
    """One demo.

    Attributes:
        out: Output folder.
        preset: Sizes.
        seed: Seed of the whole demo.
        workers: Processes that simulate.
    """

    out: Path
    preset: DemoPreset
    seed: int
    workers: int

    @property
    def cohort(self) -> Path:
        """Folder of the simulated cohort."""
        return self.out / "cohort"

    def run(self, name: str) -> Path:
        """Folder of a run."""
        return self.out / "runs" / name

    def weights(self, name: str) -> Path:
        """Weights folder of a run."""
        return self.run(name) / "weights"

    def arms(self) -> tuple[Arm, ...]:
        """Pretrained arms of this preset."""
        return (*PRETRAINED, SHUFFLED) if self.preset.shuffled_control else PRETRAINED

    def name_count(self, count: int | None) -> str:
        """A number of labels as part of a file name."""
        return "all" if count is None else str(count)


def open_context(out: Path, preset: str, seed: int, workers: int) -> DemoContext:
    """Start a demo, or continue the one in `out`.

    Raises:
        ValueError: If `out` holds a demo of another preset or seed.
    """
    context = DemoContext(out, demo_preset(preset), seed, workers)
    plan = {"preset": context.preset.to_dict(), "seed": seed}
    path = out / "plan.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != json.loads(json.dumps(plan)):
            raise ValueError(
                f"{out} holds a demo with preset {found['preset']['name']!r} and seed {found['seed']}, not "
                f"{preset!r} and {seed}: choose another --out, or delete that folder"
            )
        return context
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no demo: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(plan, indent=1))
    partial.replace(path)
    return context
