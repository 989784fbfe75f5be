"""The command `runs`. Parsing and printing only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import MACHINE
from ecgcmr.cli.show import print_table

if TYPE_CHECKING:
    from ecgcmr.training.runs import RunState


def register(app: typer.Typer) -> None:
    """Give an application the verb of this file."""
    app.command(rich_help_panel=MACHINE)(runs)


def runs(
    folder: Annotated[Path, typer.Argument(help="Where run folders are, at any depth.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List runs: name, objective, state, step of the total, best value, age."""
    with user_errors():
        from ecgcmr.training.runs import list_runs

        found = list_runs(folder)
    if as_json:
        typer.echo(json.dumps([run.to_dict() for run in found], indent=1))
        return
    console = plain_console()
    if not found:
        console.print(f"no run in {folder}", markup=False)
    print_table(console, "", [_row(run, folder) for run in found])


def _row(run: RunState, folder: Path) -> dict[str, Any]:
    known = run.step is not None and run.total is not None
    return {
        "run": str(run.folder.relative_to(folder)) if run.folder != folder else run.folder.name,
        "name": run.name,
        "objective": run.objective,
        "state": run.state,
        "step": f"{run.step} of {run.total}" if known else "" if run.step is None else str(run.step),
        "best": "" if run.best is None else f"{run.monitor} {run.best:.5g}",
        "changed": run.age_words,
        "note": run.note,
    }
