"""Commands about data: simulate, ingest, cohort info, cohort validate. Parsing and printing only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ecgcmr.cli.errors import plain_console, user_errors

if TYPE_CHECKING:
    from ecgcmr.cohort.info import CohortInfo
    from ecgcmr.cohort.ingest import IngestReport
    from ecgcmr.simulation.design import Design

cohort_app = typer.Typer(no_args_is_help=True, help="Look into a cohort: what is in it, and what is wrong.")

CINE_HELP = "full: short-axis stack and four-chamber view with masks; mid3: three frames of the mid slice; none."


def register(app: typer.Typer) -> None:
    """Give an application the verbs of this file: simulate, ingest, and cohort with info and validate."""
    app.command()(simulate)
    app.command()(ingest)
    app.add_typer(cohort_app, name="cohort")


@contextmanager
def _progress(words: str, unit: str) -> Iterator[Any]:
    """A callback(done, total) that draws a bar with rate and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = plain_console(error=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None, rate="")
        first: list[int] = []

        def update(done: int, total: int) -> None:
            first.append(done)  # what an earlier run had done does not count for the rate
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{(done - first[0]) / elapsed:.1f} {unit}/s" if elapsed > 0 and done > first[0] else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


def simulate(
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new cohort.")] = None,
    subjects: Annotated[int, typer.Option("--subjects", min=1, help="Number of subjects.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the population and of the split.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; does not change a byte.")] = 1,
    cine: Annotated[str, typer.Option("--cine", help=CINE_HELP)] = "full",
    design: Annotated[Path | None, typer.Option("--design", help="YAML with fields of the population design.")] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw the figure sheet of conditions to this PNG.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished cohort.")] = False,
) -> None:
    """Simulate a paired cohort: 12-lead ECG and cine CMR of the same hearts, with the truth.

    A killed run goes on when the same command is repeated.
    """
    if out is None and sheet is None:
        raise typer.BadParameter("give --out DIR for a cohort, --sheet FILE.png for the figure sheet, or both")
    with user_errors():
        if sheet is not None:
            from ecgcmr.simulation.sheet import draw_sheet

            draw_sheet(sheet, seed)
            plain_console().print(f"figure sheet: {sheet}", markup=False)
        if out is None:
            return
        from ecgcmr.cohort.simulate import simulate_cohort

        chosen = _read_design(design) if design is not None else None
        with _progress("simulating", "subjects") as update:
            done = simulate_cohort(out, subjects, seed, workers, cine, chosen, update, force)
        plain_console().print(
            f"{subjects} subjects written to {done}; look at it with: ecgcmr cohort info {done}", markup=False
        )


def _read_design(path: Path) -> Design:
    import yaml

    from ecgcmr.simulation.design import Design

    if not path.is_file():
        raise FileNotFoundError(f"--design {path}: there is no such file")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected fields of the design, got {type(values).__name__}")
    try:
        return Design.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def ingest(
    out: Annotated[Path, typer.Option("--out", help="Folder of the new cohort.")],
    ecg: Annotated[Path | None, typer.Option("--ecg", help="Folder of WFDB records and .npz/.npy arrays.")] = None,
    cmr: Annotated[
        Path | None, typer.Option("--cmr", help="Folder with a folder, zip or NIfTI for each study.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="CSV or parquet with a row for each item or subject.")
    ] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="Unit where files state none: mV, uV, V or z.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Sampling rate where files state none [Hz].")] = None,
    leads: Annotated[str | None, typer.Option("--leads", help="Lead names where files state none: I,II,...")] = None,
    gain_uv_per_unit: Annotated[
        float | None, typer.Option(help="Replaces the gains of WFDB headers [uV/unit].")
    ] = None,
    subject_column: Annotated[str | None, typer.Option(help="Column of the labels with the subject.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Column with the item; default: the first.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Column to take as a label; default: all that can be.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Column to take as a group.")] = None,
    subject_regex: Annotated[str | None, typer.Option(help="Its first group in the path is the item's key.")] = None,
    cmr_level: Annotated[int, typer.Option(min=1, help="Depth of the folders that hold one study each.")] = 1,
    incomplete: Annotated[
        str, typer.Option(help="Missing frame: 'error' drops the study, 'drop' the slice.")
    ] = "error",
    split_column: Annotated[str | None, typer.Option(help="Column with official folds.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="PART=FOLD,FOLD,... for train, val and test.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split when there are no folds.")] = 0,
    provenance: Annotated[str, typer.Option(help="Where the data come from; goes into every card.")] = "ingested",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    keep_map: Annotated[
        Path | None, typer.Option(help="Write files, keys and subjects here, outside of --out.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a finished cohort.")] = False,
) -> None:
    """Turn folders of ECG and CMR files into a cohort; what cannot be used is told in the ledger."""
    from ecgcmr.cohort.ingest import ingest as run_ingest
    from ecgcmr.cohort.ingest_plan import IngestOptions

    with user_errors():
        options = IngestOptions(
            out=out,
            ecg=ecg,
            cmr=cmr,
            labels=labels,
            unit=unit,
            rate_hz=rate,
            leads=tuple(name.strip() for name in leads.split(",")) if leads else None,
            gain_uv_per_unit=gain_uv_per_unit,
            subject_column=subject_column,
            item_column=item_column,
            label_columns=tuple(label or ()),
            group_columns=tuple(group or ()),
            subject_regex=subject_regex,
            cmr_level=cmr_level,
            incomplete=incomplete,
            split_column=split_column,
            split=_parse_split(split or ()),
            seed=seed,
            provenance=provenance,
            workers=workers,
            keep_map=keep_map,
            force=force,
        )
        with _progress("reading", "chunks") as update:
            report = run_ingest(options, update)
    _print_ingest(report)
    if report.out is None:
        plain_console(error=True).print("error: nothing was kept, so nothing was written", markup=False)
        raise typer.Exit(1)


def _parse_split(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        part, separator, folds = text.partition("=")
        if not separator or not folds:
            raise ValueError(f"--split {text}: expected PART=FOLD,FOLD,... such as train=1,2,3")
        found[part] = found.get(part, ()) + tuple(fold.strip() for fold in folds.split(","))
    return found


def _print_ingest(report: IngestReport) -> None:
    console = plain_console()
    for statement in report.statements:
        console.print(f"- {statement}", markup=False)
    rows = [
        {"kind": kind, "read": read, "kept": report.kept[kind], "dropped": read - report.kept[kind]}
        for kind, read in report.read.items()
    ]
    _table(console, "Items", rows)
    dropped = [
        {"kind": kind, "reason": reason, "items": count}
        for kind, reasons in report.dropped.items()
        for reason, count in reasons.items()
    ]
    _table(console, "Dropped", dropped)
    for item, reason, detail in report.examples[:10]:
        console.print(f"  {item}: {reason}: {detail}", markup=False)
    if report.ignored:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in list(report.ignored.items())[:8])
        console.print(f"not signals, left alone: {listed}", markup=False)
    if report.out is not None:
        parts = ", ".join(f"{name} {count}" for name, count in report.split.items())
        console.print(f"{report.subjects} subjects ({parts}) written to {report.out}", markup=False)


@cohort_app.command()
def info(path: Annotated[Path, typer.Argument(help="Cohort folder.")]) -> None:
    """Say what is in a cohort."""
    from ecgcmr.cohort.info import summarize

    with user_errors():
        summary = summarize(path)
    _print_info(summary)


def _print_info(summary: CohortInfo) -> None:
    console = plain_console()
    for name, value in summary.facts.items():
        console.print(f"{name}: {value}", markup=False)
    _table(console, "ECG", summary.ecg)
    _table(console, "CMR", summary.cmr)
    _table(console, "Splits (subjects)", summary.splits)
    _table(console, "Labels", summary.labels)
    groups = [{"group": name, "subjects": _listed(counts)} for name, counts in summary.groups.items()]
    _table(console, "Groups", groups)
    for kind, reasons in summary.dropped.items():
        console.print(f"dropped {kind}: {_listed(reasons) or 'none'}", markup=False)
    console.print("on disk: " + ", ".join(f"{name} {size:.1f} MB" for name, size in summary.megabytes.items()))


@cohort_app.command()
def validate(
    path: Annotated[Path, typer.Argument(help="Cohort folder.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also read every image mask.")] = False,
) -> None:
    """Say what is wrong with a cohort, naming file, row and field; exit code 1 when anything is."""
    from ecgcmr.cohort.validate import validate_cohort

    with user_errors():
        problems = validate_cohort(path, deep)
    console = plain_console()
    for problem in problems:
        console.print(str(problem), markup=False)
    if problems:
        console.print(f"{len(problems)} problems in {path}", markup=False)
        raise typer.Exit(1)
    console.print(f"{path}: no problem found", markup=False)


def _table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of plain values as a table; nothing when there are none."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, no_wrap=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
