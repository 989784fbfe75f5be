"""Commands about data: simulate, cohort info, cohort validate. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.ingest import ingest, merge
from ecgcmr.cli.panels import DATA
from ecgcmr.cli.show import listed, print_table, progress_bar

if TYPE_CHECKING:
    from ecgcmr.cohort.info import CohortInfo
    from ecgcmr.simulation.design import Design

cohort_app = typer.Typer(no_args_is_help=True, help="Look into a cohort: what is in it, and what is wrong.")

CINE_HELP = (
    "full: short-axis stack and four-chamber view with masks; mid: of the stack only its middle slice; "
    "mid3: three frames of that slice; none."
)


def register(app: typer.Typer) -> None:
    """Give an application the verbs about data: simulate, ingest, and cohort with info, merge and validate."""
    app.command(rich_help_panel=DATA)(simulate)
    app.command(rich_help_panel=DATA)(ingest)
    cohort_app.command()(merge)
    app.add_typer(cohort_app, name="cohort", rich_help_panel=DATA)


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
        with progress_bar("simulating", "subjects") as update:
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
    print_table(console, "ECG", summary.ecg)
    print_table(console, "CMR", summary.cmr)
    print_table(console, "Splits (subjects)", summary.splits)
    print_table(console, "Labels", summary.labels)
    groups = [{"group": name, "subjects": listed(counts)} for name, counts in summary.groups.items()]
    print_table(console, "Groups", groups)
    for kind, reasons in summary.dropped.items():
        console.print(f"dropped {kind}: {listed(reasons) or 'none'}", markup=False)
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
