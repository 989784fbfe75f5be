"""Commands about splits: cohort split, cohort check-stages. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.show import print_table

KIND_HELP = "random, stratified (--by), kfold (--k), folds (--column), temporal (--column), or site (--column)."


def register(cohort_app: typer.Typer) -> None:
    """Give `ecgcmr cohort` the verbs of this file: split and check-stages."""
    cohort_app.command()(split)
    cohort_app.command(name="check-stages")(check_stages)


def split(
    path: Annotated[Path, typer.Argument(help="Cohort folder.")],
    kind: Annotated[str, typer.Option(help=KIND_HELP)],
    name: Annotated[str, typer.Option(help="Name of the split; families are called NAME-0, NAME-1, ...")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    fractions: Annotated[str, typer.Option(help="Shares of train, val and test.")] = "0.7,0.1,0.2",
    k: Annotated[int, typer.Option("--k", min=2, help="Number of folds.")] = 5,
    by: Annotated[list[str] | None, typer.Option(help="Label or column to stratify by; may be repeated.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose values stay together (family, household).")] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of folds, sites or times: NAME, recordings.NAME, studies.NAME.")
    ] = None,
    part: Annotated[list[str] | None, typer.Option(help="PART=FOLD,FOLD,... for official folds or sites.")] = None,
    cut: Annotated[str | None, typer.Option(help="Times at which val and test begin: A,B.")] = None,
    val_share: Annotated[float, typer.Option(help="Share of the rest that validates, in families.")] = 0.125,
    only: Annotated[str | None, typer.Option(help="Draw from SPLIT:PART,PART only, such as default:test.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace splits of that name.")] = False,
) -> None:
    """Draw a split by subject, or a family of splits, and store it with the cohort."""
    from ecgcmr.cohort.split_plan import SplitRequest, parts_of, split_cohort
    from ecgcmr.cohort.store import Cohort

    with user_errors():
        shares = _numbers(fractions, "--fractions")
        times = _numbers(cut, "--cut") if cut else None
        if times is not None and len(times) != 2:
            raise ValueError(f"--cut {cut}: expected two times, such as 2015,2017")
        cohort = Cohort.open(path)
        request = SplitRequest(
            kind=kind,
            name=name,
            seed=seed,
            fractions=shares,
            k=k,
            by=tuple(by or ()),
            group=group,
            column=column,
            parts=parts_of(part or ()),
            cuts=(times[0], times[1]) if times else None,
            val_share=val_share,
            only=only,
            force=force,
        )
        splits = split_cohort(cohort, request)
    rows = []
    for made in splits:
        sizes = {part_name: len(members) for part_name, members in made.parts().items()}
        rows.append({"split": made.name, **sizes, "in no part": len(cohort) - sum(sizes.values())})
    print_table(plain_console(), "Splits (subjects)", rows)


def check_stages(
    path: Annotated[Path, typer.Argument(help="Cohort folder.")],
    earlier: Annotated[str, typer.Argument(help="Split of the earlier stage, such as pretraining.")],
    later: Annotated[str, typer.Argument(help="Split of the later stage, such as fine-tuning.")],
) -> None:
    """Say whether a later stage tests a subject that an earlier one learned from; exit code 2 when it does."""
    from ecgcmr.cohort.split_plan import check_stages as check
    from ecgcmr.cohort.store import Cohort

    with user_errors():
        check(Cohort.open(path), earlier, later)
    plain_console().print(f"{path}: no subject of the test part of {later} was learned from in {earlier}", markup=False)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{option} {text}: expected numbers with commas between them") from error
