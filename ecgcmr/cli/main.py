"""The `ecgcmr` command: it gathers the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr import __version__
from ecgcmr.cli import app as app_verb
from ecgcmr.cli import bench, data, embed, evaluate, explain, finetune, labels, privacy, runs, splits, study, weights
from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import START, USE

app = typer.Typer(
    name="ecgcmr",
    help="Teach an ECG what cardiac MRI sees: simulate or ingest a cohort, pretrain, align, fine-tune, evaluate.\n\n"
    "Research software, not a medical device.",
    epilog="Pretraining, and all training on several processes: accelerate launch scripts/pretrain.py --config FILE.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command(rich_help_panel=START)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the cohort, runs, results, evaluation and report.html.")] = Path(
        "runs/demo"
    ),
    preset: Annotated[
        str, typer.Option(help="quick (a look), standard (about a quarter of an hour) or full (hours).")
    ] = "standard",
    seed: Annotated[int, typer.Option(help="Seed of the whole demo.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that simulate; 0 takes one for each core.")] = 0,
) -> None:
    """Run the whole job on a simulated cohort, from pretraining to evaluation, and write a report.

    Interrupted, it continues where it stopped.
    """
    with user_errors():
        from ecgcmr.demo.run import run_demo

        run_demo(out, preset, seed=seed, workers=workers, console=plain_console())


data.register(app)
labels.register(app)
privacy.register(data.cohort_app)
splits.register(data.cohort_app)
finetune.register(app)
evaluate.register(app)
study.register(app)
embed.register(app)
explain.register(app)
app_verb.register(app)
app.add_typer(weights.weights_app, name="weights", rich_help_panel=USE)
runs.register(app)
bench.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ecgcmr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


if __name__ == "__main__":
    app()
