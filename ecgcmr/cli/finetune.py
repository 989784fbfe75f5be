"""The command `finetune`. Parsing and printing only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecgcmr.cli.errors import EXIT_INTERRUPTED, plain_console, user_errors
from ecgcmr.cli.panels import TRAIN
from ecgcmr.cli.show import progress_bar

if TYPE_CHECKING:
    from ecgcmr.own_labels.request import FinetuneResult

_LABELS = "CSV: recording (file name) or subject in the first column, then labels; 'LVEF [%]' states a unit."
_TASK = "auto, regression, binary, classes, or survival (columns NAME_time and NAME_event)."
_METHOD = "full; linear, attention or mlp: a head on the frozen encoder; lp-ft: linear first, then full."
_FOLDS = "Column with folds (the last tests, the one before selects) or with train, val, test."


def register(app: typer.Typer) -> None:
    """Give an application the verb of this file."""
    app.command(rich_help_panel=TRAIN)(finetune)


def finetune(
    model: Annotated[str, typer.Option(help="Weights to start from: a name, local-dir:PATH, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder of all that is written.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the run, such as train.epochs=5.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help=_LABELS)] = None,
    ecg: Annotated[Path | None, typer.Option(help="Folder of ECG files of any supported format.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="A cohort, instead of a folder of files.")] = None,
    task: Annotated[str, typer.Option(help=_TASK)] = "auto",
    method: Annotated[str, typer.Option(help=_METHOD)] = "full",
    label: Annotated[list[str] | None, typer.Option(help="Column to learn; default: all that can be.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Column to report by, beside sex and age.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Column with the recording; default: the first.")] = None,
    subject_column: Annotated[
        str | None, typer.Option(help="Column with the subject, if it is not recognized.")
    ] = None,
    path_pattern: Annotated[str | None, typer.Option(help="Its first group in a file's path is the key.")] = None,
    by_folds: Annotated[str | None, typer.Option(help=_FOLDS)] = None,
    folds: Annotated[
        list[str] | None, typer.Option(help="PART=FOLD,FOLD,... for --by-folds, if it is another.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the --cohort to use.")] = "default",
    split_file: Annotated[Path | None, typer.Option(help="CSV with subject or recording, and split.")] = None,
    test_share: Annotated[float | None, typer.Option(help="Share of subjects to test on; default 0.2.")] = None,
    val_share: Annotated[float, typer.Option(help="Share of subjects to select on.")] = 0.15,
    unit: Annotated[str | None, typer.Option(help="Unit where files state none: mV, uV, V or z.")] = None,
    rate: Annotated[float | None, typer.Option(help="Sampling rate where files state none [Hz].")] = None,
    leads: Annotated[str | None, typer.Option(help="Lead names where files state none: I,II,...")] = None,
    provenance: Annotated[str, typer.Option(help="Where the data come from; stands in the card.")] = (
        "participant-derived: own labels"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of split and training.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read files.")] = 1,
    draws: Annotated[int, typer.Option(min=2, help="Bootstrap draws of the test subjects.")] = 2000,
    allow_unmatched: Annotated[bool, typer.Option("--allow-unmatched", help="Most rows may match no file.")] = False,
) -> None:
    """Fine-tune on your own labels: a CSV in, a weights folder and a report of held-out subjects out.

    A killed run goes on when the same command is repeated.
    """
    with user_errors():
        from ecgcmr.cohort.split_plan import parts_of
        from ecgcmr.own_labels import FinetuneRequest, finetune_labels
        from ecgcmr.training.signals import RunInterrupted

        request = FinetuneRequest(
            out=out,
            model=model,
            labels=labels,
            ecg=ecg,
            cohort=cohort,
            task=task,
            method=method,
            label_columns=tuple(label or ()),
            group_columns=tuple(group or ()),
            item_column=item_column,
            subject_column=subject_column,
            path_pattern=path_pattern,
            fold_column=by_folds,
            folds=parts_of(folds or ()),
            cohort_split=split,
            split_file=split_file,
            test_share=test_share,
            val_share=val_share,
            unit=unit,
            rate_hz=rate,
            leads=tuple(name.strip() for name in leads.split(",")) if leads else None,
            provenance=provenance,
            seed=seed,
            workers=workers,
            allow_unmatched=allow_unmatched,
            overrides=tuple(changes or ()),
            evaluation={"n_draws": draws, "n_permutations": min(draws, 1000)},
        )
        console = plain_console()
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        try:
            result = finetune_labels(request, lambda text: console.print(f"- {text}", markup=False), progress_bar, True)
        except RunInterrupted as interrupted:
            plain_console(error=True).print(f"{interrupted}; the same command goes on", markup=False)
            raise typer.Exit(EXIT_INTERRUPTED) from interrupted
    _print(result)


def _print(result: FinetuneResult) -> None:
    console = plain_console()
    places = {"report": result.report, "weights": result.weights, "predictions": result.predictions}
    for name, path in (*places.items(), ("numbers", result.results), ("recipe", result.out / "recipe.yaml")):
        console.print(f"{name + ':':<13}{path}", markup=False)
    console.print(
        f"next: ecgcmr predict FILE_OR_FOLDER --model local-dir:{result.weights} --out table.csv", markup=False
    )
