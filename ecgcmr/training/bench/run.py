"""`ecgcmr bench` from the top to the bottom."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ecgcmr.training.allocator import keep_freed_memory
from ecgcmr.training.bench.cohort import write_noise_cohort
from ecgcmr.training.bench.machine import (
    PeakMemory,
    device_name,
    load_average,
    peak_gflops,
    processor_name,
    usable_cores,
)
from ecgcmr.training.bench.options import BenchOptions
from ecgcmr.training.bench.presets import LABELS, TRAINED, run_config
from ecgcmr.training.bench.report import BenchReport, Machine, Precision, Spread, StageResult
from ecgcmr.training.bench.stages import (
    Embedding,
    TrainingStep,
    build,
    flops_of_embedding,
    flops_of_step,
    time_in_memory,
    time_steps,
)
from ecgcmr.training.config import RunConfig
from ecgcmr.training.precision import choose_precision

SUBJECTS = 96
"""Of the cohort of noise, at least."""

Tell = Callable[[str], None]


def run_bench(options: BenchOptions, tell: Tell = lambda line: None) -> BenchReport:
    """Measure all stages; nothing is written but a cohort of noise in a temporary folder.

    Args:
        options: What to measure.
        tell: Gets a line before each part.

    Raises:
        FileNotFoundError, ValueError: If there is no such device or cohort, or the cohort has not what a stage reads.
    """
    device = _device(options.device)
    kept = keep_freed_memory() if device.type == "cpu" else False
    before, threads = load_average(), torch.get_num_threads()
    try:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        used = torch.get_num_threads()
        left_out: dict[str, str] = {}
        precisions = _usable(options.precisions, device, left_out)
        tell("measuring the peak of matrix products")
        peaks: dict[Precision, float] = {
            name: peak_gflops(device, torch.bfloat16 if name == "bf16" else torch.float32, min(options.seconds, 1.0))
            for name in precisions
        }
        with _cohort(options) as cohort:
            results = _measure(options, (cohort, device), peaks, left_out, tell)
    finally:
        torch.set_num_threads(threads)
    machine = Machine(
        device=device_name(device),
        processor=processor_name(),
        cores=usable_cores(),
        threads=used,
        torch=torch.__version__,
        keeps_freed_memory=kept,
        load_average=(before, load_average()),
    )
    return BenchReport(
        preset=options.preset, machine=machine, peak_gflops=peaks, stages=tuple(results), left_out=left_out
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device is {name!r}, which is not there: {str(error).splitlines()[0]}") from None
    return device


def _usable(wanted: tuple[Precision, ...], device: torch.device, left_out: dict[str, str]) -> tuple[Precision, ...]:
    """Leave out bfloat16 where it is emulated: one step could take minutes."""
    if "bf16" not in wanted:
        return wanted
    choice = choose_precision(nn.Linear(1024, 1024), device)
    if choice.speedup >= 0.5:
        return wanted
    left_out["bf16"] = f"a layer is {choice.speedup:.2g} times as fast as in float32: this processor emulates bfloat16"
    rest = tuple(name for name in wanted if name != "bf16")
    if not rest:
        raise ValueError(f"bf16: {left_out['bf16']}; measure fp32")
    return rest


@contextmanager
def _cohort(options: BenchOptions) -> Iterator[Path]:
    if options.cohort is not None:
        yield options.cohort
        return
    with tempfile.TemporaryDirectory(prefix="ecgcmr_bench_") as folder:
        # A split leaves about 70 % for training, and a step must find a whole batch there.
        n = max([SUBJECTS, *(2 * options.batch_of(stage) for stage in options.stages)])
        yield write_noise_cohort(Path(folder) / "cohort", n)


def _measure(
    options: BenchOptions,
    where: tuple[Path, torch.device],
    peaks: dict[Precision, float],
    left_out: dict[str, str],
    tell: Tell,
) -> list[StageResult]:
    cohort, device = where
    results: list[StageResult] = []
    for stage in options.stages:
        if stage == "supervised" and options.cohort is not None and not options.labels:
            left_out[stage] = "no labels were named; give --labels for a cohort of your own"
            continue
        labels = options.labels if options.cohort is not None else LABELS
        config = run_config(options.preset, stage, cohort, options.batch_of(stage), labels)
        if stage == "load":
            tell("load")
            results.append(_load(options, config, device))
            continue
        for precision, peak in peaks.items():
            tell(f"{stage}, {precision}")
            results.append(_compute(options, stage, config, device, (precision, peak)))
    return results


def _load(options: BenchOptions, config: RunConfig, device: torch.device) -> StageResult:
    """Both modalities of a batch, without a step that takes them."""
    _, dataset = build(config)
    batch_size = min(config.train.batch_size, len(dataset))
    with PeakMemory(device) as memory:
        timing = time_steps(lambda batch: None, dataset, batch_size, device, options.seconds)
    return StageResult(
        stage="load",
        precision=None,
        batch_size=batch_size,
        repeats=len(timing.seconds),
        samples_per_second=Spread.over([batch_size / s for s in timing.seconds]),
        peak_memory_mib=memory.peak_mib,
    )


def _compute(
    options: BenchOptions, stage: str, config: RunConfig, device: torch.device, at: tuple[Precision, float]
) -> StageResult:
    """A training step fed by the loader, or embeddings of what lies in memory."""
    (precision, peak), low = at, at[0] == "bf16"
    objective, dataset = build(config)
    batch_size = min(config.train.batch_size, len(dataset))
    if stage in TRAINED:
        operations = flops_of_step(objective, config, dataset, device)
        with PeakMemory(device) as memory:
            step = TrainingStep(objective, config, device, low)
            timing = time_steps(step, dataset, batch_size, device, options.seconds)
    else:
        embedding = Embedding(objective, device, low)
        operations = flops_of_embedding(embedding, dataset)
        with PeakMemory(device) as memory:
            timing = time_in_memory(embedding, dataset.batch(range(batch_size)), device, options.seconds)
    spread = Spread.over([batch_size / s for s in timing.seconds])
    reached = spread.median * operations / 1e9
    return StageResult(
        stage=stage,
        precision=precision,
        batch_size=batch_size,
        repeats=len(timing.seconds),
        samples_per_second=spread,
        gflops_per_sample=operations / 1e9,
        gflops_per_second=reached,
        share_of_peak=reached / peak,
        share_waited=timing.share_waited if stage in TRAINED else None,
        peak_memory_mib=memory.peak_mib,
    )
