"""What `ecgcmr bench` found, as a typed tree that is written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, Literal

from pydantic import Field

from ecgcmr.hub.folder import write_text
from ecgcmr.models.config import StrictConfig

FORMAT_VERSION: Final = 1
Precision = Literal["fp32", "bf16"]


class Spread(StrictConfig):
    """Several measurements of one quantity: median, smallest and largest."""

    median: float = Field(gt=0)
    min: float = Field(gt=0)
    max: float = Field(gt=0)

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread:
        """Summarize measurements, at least one."""
        return cls(median=median(values), min=min(values), max=max(values))


class Machine(StrictConfig):
    """Where it was measured.

    Attributes:
        device: cpu, or the name of the GPU.
        processor: Name of the processor.
        cores: Cores that the process may use.
        threads: Threads that torch uses.
        torch: Version of torch.
        keeps_freed_memory: Whether the allocator was told to keep freed memory (see `ecgcmr.training.allocator`).
        load_average: Processes that wanted to run before and after [mean over a minute]; more than the cores
            means that others slowed the measurement down.
    """

    device: str
    processor: str
    cores: int
    threads: int
    torch: str
    keeps_freed_memory: bool
    load_average: tuple[float, float]


class StageResult(StrictConfig):
    """One stage in one precision.

    Attributes:
        stage: mae, align, supervised, embed or load.
        precision: Of the matrix products; the loader has none.
        batch_size: Samples of a step.
        repeats: Steps that were timed, after the warm-up.
        samples_per_second: Over the timed steps, waiting for data included.
        gflops_per_sample: Counted floating point operations of matrix products and convolutions, forward and
            backward, both factors of a product [10^9]; None for the loader.
        gflops_per_second: At the median; None for the loader.
        share_of_peak: Part of the matrix throughput that this machine reached in the same precision; None without.
        share_waited: Part of the time in which the step waited for its data; None where data lies in memory.
        peak_memory_mib: Largest memory of the process (CPU: resident; GPU: allocated by torch) [MiB].
    """

    stage: str
    precision: Precision | None
    batch_size: int
    repeats: int
    samples_per_second: Spread
    gflops_per_sample: float | None = None
    gflops_per_second: float | None = None
    share_of_peak: float | None = None
    share_waited: float | None = Field(default=None, ge=0, le=1)
    peak_memory_mib: float


class BenchReport(StrictConfig):
    """All that one call measured.

    Attributes:
        format_version: Of this schema.
        preset: Name of the shapes.
        machine: Where.
        peak_gflops: Matrix throughput of each precision [10^9 operations a second].
        stages: Results in the order of the stages.
        left_out: What was not measured, and why.
    """

    format_version: Literal[1] = FORMAT_VERSION
    preset: str
    machine: Machine
    peak_gflops: dict[Precision, float]
    stages: tuple[StageResult, ...]
    left_out: dict[str, str] = Field(default_factory=dict)

    def find(self, stage: str, precision: str | None) -> StageResult | None:
        """Give one result; None if it was not measured."""
        return next((r for r in self.stages if (r.stage, r.precision) == (stage, precision)), None)

    def write(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> BenchReport:
        """Read what `write` wrote.

        Raises:
            ValueError: If it is another format; the message names the field.
        """
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
