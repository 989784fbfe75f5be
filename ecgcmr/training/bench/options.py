"""What `ecgcmr bench` is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecgcmr.training.bench.presets import BATCH, STAGES, check_preset, check_stages
from ecgcmr.training.bench.report import Precision


@dataclass(frozen=True)
class BenchOptions:
    """What is measured.

    Attributes:
        preset: Name of the shapes.
        stages: Which stages, in which order.
        seconds: Time for each stage and precision [s], building and warming up not counted.
        precisions: fp32, bf16 or both; bf16 is left out where the processor only emulates it.
        batch_size: Samples of a step; None for what suits the stage.
        device: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one.
        threads: Threads on the CPU; None keeps what torch chose.
        cohort: A cohort to read instead of generated noise.
        labels: Labels of that cohort for the supervised stage; without any, that stage is left out.
    """

    preset: str = "tiny"
    stages: tuple[str, ...] = STAGES
    seconds: float = 2.0
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    batch_size: int | None = None
    device: str = "auto"
    threads: int | None = None
    cohort: Path | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_preset(self.preset)
        check_stages(self.stages)
        if not self.seconds > 0:
            raise ValueError(f"--seconds is {self.seconds}, it must be above 0")
        if not self.precisions:
            raise ValueError("no precision was chosen; choose fp32, bf16 or both")
        if self.batch_size is not None and self.batch_size < 2:
            raise ValueError(f"--batch-size is {self.batch_size}; a contrastive loss needs at least 2")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads is {self.threads}, it must be at least 1")

    def batch_of(self, stage: str) -> int:
        """Samples of a step of a stage."""
        return self.batch_size or BATCH[stage]


def parse_precisions(names: tuple[str, ...]) -> tuple[Precision, ...]:
    """Check names of precisions.

    Raises:
        ValueError: An unknown one; the message lists those there are.
    """
    found: list[Precision] = []
    for name in names:
        if name == "fp32":
            found.append("fp32")
        elif name == "bf16":
            found.append("bf16")
        else:
            raise ValueError(f"--precision has {name!r}; choose fp32, bf16, or both with a comma")
    return tuple(found)
