"""The command `evaluate`. Parsing and printing only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import TRAIN
from ecgcmr.cli.show import print_table, progress_bar


def register(app: typer.Typer) -> None:
    """Give an application the verb of this file: evaluate."""
    app.command(rich_help_panel=TRAIN)(evaluate)


def evaluate(
    weights: Annotated[str, typer.Option(help="Fine-tuned weights: a name, local-dir:PATH, or a folder.")],
    cohort: Annotated[Path, typer.Option(help="Folder of the cohort.")],
    out: Annotated[Path, typer.Option(help="New folder, or one of an earlier evaluation.")],
    split: Annotated[str, typer.Option(help="Name of the cohort's split; its test subjects are scored.")] = "default",
    draws: Annotated[int, typer.Option(min=2, help="Bootstrap draws of subjects.")] = 2000,
    permutations: Annotated[int, typer.Option(min=1, help="Permutations of group labels.")] = 1000,
    groups: Annotated[
        str | None,
        typer.Option(help="Groups to audit, with commas (sex,site,sex:age_band); none; all columns by default."),
    ] = None,
    horizons: Annotated[str | None, typer.Option(help="Times for incident outcomes, with commas.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws and permutations.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Items computed at a time.")] = 256,
    report: Annotated[bool, typer.Option(help="Write OUT/report.html.")] = True,
) -> None:
    """Evaluate fine-tuned weights on held-out subjects: scores beside age and sex, group audit, one HTML page.

    A killed run goes on when the same command is repeated; embeddings that are there are not computed again.
    """
    with user_errors():
        from ecgcmr.evaluation.evaluate import evaluate_weights

        with progress_bar("embedding", "items") as update:
            folder = evaluate_weights(
                weights, cohort, split, out, n_draws=draws, groups=_names(groups), seed=seed,
                horizons=_numbers(horizons), n_permutations=permutations, device=device, batch_size=batch_size,
                progress=update,
            )  # fmt: skip
        written = [folder / "results.json"]
        if report:
            from ecgcmr.report.evaluation_page import write_evaluation_report

            written.append(write_evaluation_report(folder))
        _print(folder, written)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text.strip() == "none" else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return sorted({float(word) for word in text.split(",") if word.strip()})
    except ValueError as error:
        raise ValueError(f"--horizons {text}: expected numbers with commas, such as 2,5,10") from error


def _print(folder: Path, written: list[Path]) -> None:
    from ecgcmr.evaluation.evaluated import headline_table

    console = plain_console()
    print_table(console, "Test subjects: value [95 % interval]", headline_table(folder))
    flags = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["flags"]
    for flag in flags[:10]:
        console.print(f"- {flag['target']}, {flag['arm']}: {flag['why']}", markup=False)
    if len(flags) > 10:
        console.print(f"- and {len(flags) - 10} more remarks in {folder / 'evaluation.json'}", markup=False)
    console.print(f"written: {', '.join(map(str, written))}", markup=False)
