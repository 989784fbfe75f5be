"""The command `bench`. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import MACHINE
from ecgcmr.cli.show import print_table

if TYPE_CHECKING:
    from ecgcmr.training.bench.report import BenchReport, StageResult


def register(app: typer.Typer) -> None:
    """Give an application the verb of this file."""
    app.command(rich_help_panel=MACHINE)(bench)


def bench(
    preset: Annotated[str, typer.Option(help="Shapes: nano, tiny, reference, small or base.")] = "tiny",
    stages: Annotated[str, typer.Option(help="What to measure, with commas.")] = "mae,align,supervised,embed,load",
    seconds: Annotated[float, typer.Option(help="Time for each stage and precision [s].")] = 2.0,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or both with a comma.")] = "fp32,bf16",
    batch_size: Annotated[int | None, typer.Option(help="Samples of a step; by default what suits the stage.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads on the CPU.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="A cohort to read instead of generated noise.")] = None,
    labels: Annotated[str, typer.Option(help="Its labels for the supervised stage, with commas.")] = "",
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
) -> None:
    """Measure this machine: samples a second, share of the peak, share of time waited for data, memory."""
    with user_errors():
        from ecgcmr.training.bench.options import BenchOptions, parse_precisions
        from ecgcmr.training.bench.run import run_bench

        options = BenchOptions(
            preset, _names(stages), seconds, parse_precisions(_names(precision)), batch_size, device, threads,
            cohort, _names(labels),
        )  # fmt: skip
        console = plain_console(error=True)
        report = run_bench(options, lambda line: console.print(f"{line} ...", markup=False))
        if json is not None:
            report.write(json)
    _print(report)
    if json is not None:
        plain_console().print(f"written: {json}", markup=False)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _print(report: BenchReport) -> None:
    machine, console = report.machine, plain_console()
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in report.peak_gflops.items())
    before, after = machine.load_average
    console.print(
        f"{machine.device} ({machine.processor}), {machine.threads} threads on {machine.cores} cores, torch "
        f"{machine.torch}; load average {before:.1f} before, {after:.1f} after",
        markup=False,
    )
    console.print(f"peak of matrix products [GFLOP/s]: {peaks}", markup=False)
    print_table(console, f"Preset {report.preset}", [_row(found) for found in report.stages])
    for name, why in report.left_out.items():
        console.print(f"left out: {name}: {why}", markup=False)


def _row(found: StageResult) -> dict[str, Any]:
    rate = found.samples_per_second
    return {
        "stage": found.stage,
        "precision": found.precision,
        "batch": found.batch_size,
        "samples/s": f"{rate.median:.1f}",
        "min": f"{rate.min:.1f}",
        "max": f"{rate.max:.1f}",
        "GFLOP a sample": found.gflops_per_sample,
        "of peak": _percent(found.share_of_peak),
        "waited": _percent(found.share_waited),
        "peak MiB": f"{found.peak_memory_mib:.0f}",
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
