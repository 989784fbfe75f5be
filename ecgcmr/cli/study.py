"""The command `study`. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import TRAIN


def register(app: typer.Typer) -> None:
    """Give an application the verb of this file."""
    app.command(rich_help_panel=TRAIN)(study)


def study(
    config: Annotated[Path, typer.Option(help="Study file, for instance configs/study/alignment.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for the cohort, runs, results.json, table.md and report.html.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace those of the study file.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one for each core.")] = 0,
) -> None:
    """Compare ways of learning: train every arm at several seeds, probe all alike, one table with paired intervals.

    What is done is not done again: an interrupted study, or one with a new arm, goes on where it stopped.
    """
    with user_errors():
        from ecgcmr.study.run import run_study

        run_study(config, out, workers, overrides or (), plain_console())
