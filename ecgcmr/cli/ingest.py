"""The commands `ingest` and `cohort merge`. Parsing and printing only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.show import listed, print_table, progress_bar

if TYPE_CHECKING:
    from ecgcmr.cohort.ingest import IngestReport

_RECIPE = "YAML that says how a data set lies on disk: configs/data/*.yaml"
_QC = "Quality flags: keep stores them, drop drops what has a hard one, report writes a report and no cohort."


def ingest(
    out: Annotated[Path, typer.Option("--out", help="Folder of the new cohort.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help=_RECIPE)] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the data set that the recipe is of.")] = None,
    ecg: Annotated[Path | None, typer.Option("--ecg", help="Folder of ECG files; instead of a recipe.")] = None,
    cmr: Annotated[
        Path | None, typer.Option("--cmr", help="Folder with a folder, zip or NIfTI for each study.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="Table with a row for each item or subject.")] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="Unit where files state none: mV, uV, V or z.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Sampling rate where files state none [Hz].")] = None,
    leads: Annotated[str | None, typer.Option("--leads", help="Lead names where files state none: I,II,...")] = None,
    gain_uv_per_unit: Annotated[
        float | None, typer.Option(help="Replaces the gains of WFDB headers in uV for each unit.")
    ] = None,
    subject_column: Annotated[str | None, typer.Option(help="Column of the labels with the subject.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Column with the item; default: the first.")] = None,
    date_column: Annotated[str | None, typer.Option(help="Column with the day; only offsets are stored.")] = None,
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
    qc: Annotated[str, typer.Option("--qc", help=_QC)] = "keep",
    pair_days: Annotated[
        float | None, typer.Option(help="ECG and CMR further apart are no pair [days]; default: any distance.")
    ] = None,
    salt: Annotated[
        Path | None,
        typer.Option(help="Secret file, made if absent: subjects and files get pseudonyms that stay the same."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    backend: Annotated[str, typer.Option(help="loky: this machine; dask: a cluster, with --scheduler.")] = "loky",
    scheduler: Annotated[str | None, typer.Option(help="Address of the dask scheduler: tcp://HOST:PORT.")] = None,
    chunk: Annotated[
        str | None, typer.Option(help="i/n: read the i-th of n parts (array jobs); then `cohort merge`.")
    ] = None,
    time_limit: Annotated[float, typer.Option(help="A file that takes longer is given up [s].")] = 300.0,
    keep_map: Annotated[
        Path | None, typer.Option(help="Write files, keys and subjects here, outside of --out.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a finished cohort.")] = False,
) -> None:
    """Turn folders of ECG and CMR files into a cohort; what cannot be used is told in the ledger."""
    from ecgcmr.cohort.ingest import ingest as run_ingest
    from ecgcmr.cohort.ingest_options import IngestOptions
    from ecgcmr.cohort.recipe import load_recipe

    with user_errors():
        if changes and recipe is None:
            raise ValueError(f"{changes[0]}: KEY=VALUE changes a recipe; give --recipe FILE")
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
            date_column=date_column,
            label_columns=tuple(label or ()),
            group_columns=tuple(group or ()),
            subject_regex=subject_regex,
            cmr_level=cmr_level,
            incomplete=incomplete,
            split_column=split_column,
            split=_parse_split(split or ()),
            seed=seed,
            provenance=provenance,
            recipe=load_recipe(recipe, changes or ()) if recipe is not None else None,
            root=root,
            qc=qc,
            pair_days=pair_days,
            salt=salt,
            workers=workers,
            backend=backend,
            scheduler=scheduler,
            chunk=_parse_chunk(chunk),
            time_limit_s=time_limit,
            keep_map=keep_map,
            force=force,
        )
        with progress_bar("reading", "files") as update:
            report = run_ingest(options, update)
    print_ingest(report)
    if report.out is None:
        plain_console(error=True).print("error: nothing was kept, so nothing was written", markup=False)
        raise typer.Exit(1)


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Folders written by `ingest --chunk i/n`, all n of them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new cohort.")],
    keep_map: Annotated[Path | None, typer.Option(help="List that a part wrote; gets the cohort's numbers.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a finished cohort.")] = False,
) -> None:
    """Merge the parts of array jobs into the cohort that one run would have written, byte for byte."""
    from ecgcmr.cohort.ingest_parts import merge_parts

    with user_errors(), progress_bar("merging", "parts") as update:
        report = merge_parts(parts, out, force, keep_map, update)
    print_ingest(report)
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


def _parse_chunk(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise ValueError(f"--chunk {text}: expected i/n such as 3/20")
    return int(match.group(1)), int(match.group(2))


def print_ingest(report: IngestReport) -> None:
    """What was read, kept, dropped by reason, where, and flagged."""
    console = plain_console()
    for statement in report.statements:
        console.print(f"- {statement}", markup=False)
    rows = [
        {"kind": kind, "read": read, "kept": report.kept[kind], "dropped": read - report.kept[kind]}
        for kind, read in report.read.items()
    ]
    print_table(console, "Items", rows)
    dropped = [
        {"kind": kind, "reason": reason, "items": count, "where (the first)": report.where.get((kind, reason), "")}
        for kind, reasons in report.dropped.items()
        for reason, count in reasons.items()
    ]
    print_table(console, "Dropped", dropped)
    for item, reason, detail in report.examples[:10]:
        console.print(f"  {item}: {reason}: {detail}", markup=False)
    flags = [
        {"kind": kind, "flag": flag, "found": count}
        for kind, found in report.flags.items()
        for flag, count in found.items()
    ]
    print_table(console, "Quality flags", flags)
    if report.ignored:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in list(report.ignored.items())[:8])
        console.print(f"not signals, left alone: {kinds}", markup=False)
    if report.out is not None:
        parts = f" ({listed(report.split)})" if report.split else ""
        subjects = f"{report.subjects} subjects{parts} written to " if report.subjects else "written to "
        console.print(f"{subjects}{report.out}; every file is in its ledger.parquet", markup=False)
