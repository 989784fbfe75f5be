"""Commands about labels: labels build, labels show, labels example. Parsing and printing only."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import DATA
from ecgcmr.cli.show import print_table

if TYPE_CHECKING:
    from ecgcmr.cohort.label_building.build import LabelBuild

labels_app = typer.Typer(no_args_is_help=True, help="Labels from tables: phenotypes, diseases with dates, statements.")

TABLES_HELP = "NAME=FILE, a FILE (its stem is the name) or a FOLDER of tables; for statements also a folder of headers."


def register(app: typer.Typer) -> None:
    """Give an application the verbs of this file: labels with build, show and example."""
    app.add_typer(labels_app, name="labels", rich_help_panel=DATA)


@labels_app.command()
def build(
    definitions: Annotated[Path, typer.Option(help="Definition file, for instance configs/labels/ukb.yaml.")],
    tables: Annotated[list[str], typer.Option(help=TABLES_HELP)],
    out: Annotated[Path, typer.Option(help="File of labels: .csv (with .specs.json beside it) or .parquet.")],
    censor_date: Annotated[str | None, typer.Option(help="YYYY-MM-DD up to which the diagnoses are complete.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="DISEASE:OPTION whose codes are cases, too.")] = None,
    withdrawn: Annotated[Path | None, typer.Option(help="File with one withdrawn subject in each row.")] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="List every value set aside, with its subject, in this CSV. Do not share it.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at a diagnosis dated before birth or after death.")] = False,
    force: Annotated[bool, typer.Option(help="Replace the file of labels.")] = False,
) -> None:
    """Build labels from tables by a definition file; what is set aside is counted."""
    from ecgcmr.cohort.label_building.build import BuildOptions, build_labels, write_ledger
    from ecgcmr.cohort.label_file import write_labels

    with user_errors():
        if out.suffix not in (".csv", ".parquet"):
            raise ValueError(f"--out {out}: labels are written as .csv or .parquet")
        if out.exists() and not force:
            raise FileExistsError(f"{out} exists; use --force to replace it, or choose another --out")
        options = BuildOptions(_day(censor_date), tuple(include or ()), withdrawn, strict)
        built = build_labels(definitions, tables, options)
        written = write_labels(out, built.table, built.columns)
        if ledger is not None:
            write_ledger(ledger, built.ledger)
            written.append(ledger)
    _print_build(built, written)


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise ValueError(f"--censor-date {text}: expected a date as YYYY-MM-DD") from error


def _print_build(built: LabelBuild, written: list[Path]) -> None:
    console = plain_console()
    for statement in built.statements:
        console.print(f"- {statement}", markup=False)
    print_table(console, "Labels", built.summary())
    print_table(console, "Set aside", [{"what": what, "how often": count} for what, count in built.counts.items()])
    console.print(f"written: {', '.join(map(str, written))}", markup=False)


@labels_app.command()
def show(
    definitions: Annotated[Path, typer.Argument(help="Definition file.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Show what a definition file says: codes, fields, units, sources."""
    from ecgcmr.cohort.label_building.listing import list_definitions
    from ecgcmr.cohort.label_building.listing import markdown as as_markdown

    with user_errors():
        found = list_definitions(definitions)
    console = plain_console()
    for title, rows in found.items():
        if markdown:
            console.print(f"### {title}\n\n{as_markdown(rows)}", markup=False)
        else:
            print_table(console, title, rows)


@labels_app.command()
def example(
    out: Annotated[Path, typer.Option(help="New folder for the tables and ECGs.")],
    kind: Annotated[
        str, typer.Option(help="ukb or mimic: whose layout the tables have; own: ECG files and labels.")
    ] = "ukb",
    subjects: Annotated[int, typer.Option(min=1, max=9999, help="Number of subjects.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0,
) -> None:
    """Write small synthetic tables and ECGs, to try the commands without any real data."""
    from ecgcmr.cohort.label_building.example import write_example

    with user_errors():
        files = write_example(out, kind, subjects, seed)
    plain_console().print(f"{subjects} synthetic subjects: {', '.join(map(str, files))}", markup=False)
