"""The commands `embed` and `predict`. Parsing and printing only."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import USE
from ecgcmr.cli.show import listed, print_table, progress_bar

if TYPE_CHECKING:
    from ecgcmr.hub.bulk import BulkReport

Inputs = Annotated[list[Path], typer.Argument(metavar="INPUT...", help="ECG files, folders of them, or cohorts.")]
Model = Annotated[str, typer.Option(help="Weights: a name, local-dir:PATH, or a folder.")]
Out = Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")]
Unit = Annotated[str | None, typer.Option(help="mV, uV, V or z, for files that do not state it.")]
Rate = Annotated[float | None, typer.Option(help="Sampling rate [Hz], for files that do not state it.")]
Leads = Annotated[str | None, typer.Option(help="Lead names with commas, for files that do not state them.")]
OnlyLeads = Annotated[str | None, typer.Option(help="Use no other leads than these, with commas.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Windows computed at a time.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Windows = Annotated[str, typer.Option(help="first, all, or how many from the start of a recording.")]
Aggregate = Annotated[str, typer.Option(help="mean over the windows of a recording, or none: a row for each window.")]
Short = Annotated[str, typer.Option(help="Recordings shorter than the input: refuse, pad or repeat.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads that read; one for each core by default.")]
Covariates = Annotated[
    Path | None, typer.Option(help="Table (.csv, .parquet) with a column item and what the head reads beside the ECG.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a table that is there.")]


def register(app: typer.Typer) -> None:
    """Give an application the verbs of this file: embed and predict."""
    app.command(rich_help_panel=USE)(embed)
    app.command(rich_help_panel=USE)(predict)


def embed(
    inputs: Inputs,
    model: Model,
    out: Out,
    unit: Unit = None,
    rate: Rate = None,
    leads: Leads = None,
    only_leads: OnlyLeads = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    dtype: Dtype = "float32",
    windows: Windows = "first",
    aggregate: Aggregate = "mean",
    short: Short = "refuse",
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Embed ECGs into a table; exit code 1 when nothing could be embedded.

    What cannot be read is listed in OUT.failed.csv. A killed run goes on when the same command is repeated.
    """
    said = {"rate_hz": rate, "leads": _names(leads), "unit": unit}
    how = _how(batch_size, windows, aggregate, short, only_leads, workers)
    _run("embed", (model, None, device, dtype), inputs, out, said, how, force)


def predict(
    inputs: Inputs,
    model: Model,
    out: Out,
    head: Annotated[str | None, typer.Option(help="Weights whose head reads this model's embeddings.")] = None,
    unit: Unit = None,
    rate: Rate = None,
    leads: Leads = None,
    only_leads: OnlyLeads = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    dtype: Dtype = "float32",
    windows: Windows = "first",
    aggregate: Aggregate = "mean",
    short: Short = "refuse",
    workers: Workers = None,
    covariates: Covariates = None,
    force: Force = False,
) -> None:
    """Predict the labels of a model's head from ECGs into a table; exit code 1 when nothing could be predicted.

    What cannot be read is listed in OUT.failed.csv. A killed run goes on when the same command is repeated.
    """
    said = {"rate_hz": rate, "leads": _names(leads), "unit": unit}
    how = _how(batch_size, windows, aggregate, short, only_leads, workers)
    _run("predict", (model, head, device, dtype), inputs, out, said, how, force, covariates)


def _how(
    batch_size: int, windows: str, aggregate: str, short: str, only_leads: str | None, workers: int | None
) -> dict[str, Any]:
    """Fields of `StreamOptions`."""
    how = {"batch_size": batch_size, "aggregate": aggregate, "short": short, "workers": workers}
    return how | {"windows": int(windows) if windows.isdigit() else windows, "only_leads": _names(only_leads)}


def _run(
    verb: Any,
    model: tuple[Any, ...],
    inputs: list[Path],
    out: Path,
    said: dict[str, Any],
    how: dict[str, Any],
    force: bool,
    covariates: Path | None = None,
) -> None:
    with user_errors():
        from ecgcmr.hub.bulk import write_table
        from ecgcmr.hub.inputs import Declared
        from ecgcmr.hub.model import load_model
        from ecgcmr.hub.stream import StreamOptions

        if covariates is not None:
            from ecgcmr.hub.covariates import read_covariates

            how["covariates"] = read_covariates(covariates)
        options, declared = StreamOptions(**how), Declared(**said)
        loaded = load_model(*model)
        with progress_bar("embedding" if verb == "embed" else "predicting", "recordings") as update:
            report = write_table(loaded, verb, list(inputs), out, declared, options, update, force)
    _print(report)
    if not report.rows:
        raise typer.Exit(1)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _print(report: BulkReport) -> None:
    console = plain_console()
    if report.resumed:
        console.print(f"went on after {report.resumed} recordings of a run that was stopped", markup=False)
    reasons = Counter(row["reason"] for row in report.failed)
    print_table(console, "Without output", [{"reason": name, "files": n} for name, n in reasons.most_common()])
    if report.ignored:
        console.print(f"passed over in folders: {listed(report.ignored)}", markup=False)
    if report.reduced:
        words = "rows come from fewer than twelve leads, see the column leads"
        console.print(f"{report.reduced} of {report.rows} {words}", markup=False)
    if report.rows:
        console.print(f"{report.rows} rows; written: {', '.join(map(str, report.files))}", markup=False)
        return
    first = json.dumps(report.failed[0]["detail"]) if report.failed else "there was nothing to read"
    console.print(
        f"nothing written but {', '.join(map(str, report.files)) or 'nothing'}; the first: {first}", markup=False
    )
