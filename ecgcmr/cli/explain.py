"""The commands `explain`, `neighbours` and `gallery build`. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecgcmr.cli.embed import Device, Leads, Model, Rate, Unit, _names
from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import USE
from ecgcmr.cli.show import print_table

if TYPE_CHECKING:
    from ecgcmr.evaluation.neighbours.query import NeighbourReport

gallery_app = typer.Typer(name="gallery", help="Embedded studies or ECGs with their phenotypes.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Give an application the verbs of this file."""
    app.command(rich_help_panel=USE)(explain)
    app.command(rich_help_panel=USE)(neighbours)
    app.add_typer(gallery_app, name="gallery", rich_help_panel=USE)


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ECG file of any format.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Page to write, .html.")],
    target: Annotated[str | None, typer.Option(help="Output of the head, for instance LVM.")] = None,
    method: Annotated[str, typer.Option(help="ig, occlusion, rollout, gradcam or localisation.")] = "ig",
    by: Annotated[str | None, typer.Option(help="Occlusion by lead, window or wave.")] = None,
    cine: Annotated[Path | None, typer.Option(help="A study: explain the similarity with it.")] = None,
    side: Annotated[str, typer.Option(help="With a study: which of the two is explained, ecg or cmr.")] = "ecg",
    layer: Annotated[str | None, typer.Option(help="Stage of the image tower, for gradcam.")] = None,
    references: Annotated[
        Path | None, typer.Option(help="Cohort whose healthy subjects stand in for what is taken away.")
    ] = None,
    npz: Annotated[Path | None, typer.Option(help="Also write the numbers, .npz.")] = None,
    unit: Unit = None,
    rate: Rate = None,
    leads: Leads = None,
    device: Device = "auto",
) -> None:
    """Explain what an output of a model rests on in one ECG; writes one self-contained page."""
    with user_errors():
        from ecgcmr.cmr.readers import open_cine
        from ecgcmr.cohort.store import Cohort
        from ecgcmr.evaluation.explain.references import healthy_recordings
        from ecgcmr.hub.inputs import Declared
        from ecgcmr.hub.model import load_model
        from ecgcmr.report.explain_pages import Question, explanation_page

        healthy = None if references is None else healthy_recordings(Cohort.open(references))
        given = {"by": by, "layer": layer, "references": healthy}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        study = None if cine is None else open_cine(cine)[0]  # short-axis slices come first
        question = Question(target, method, study, "cmr" if method == "gradcam" else side, options)
        declared = Declared(rate, _names(leads), unit)
        page, found = explanation_page(load_model(model, device=device), file, question, out, declared)
        if npz is not None:
            found.save(npz)
    console = plain_console()
    if found.modality == "ecg":
        sums = found.by_lead()
        rows = [{"lead": lead, found.unit: float(value)} for lead, value in sums.items()]
        print_table(console, f"{found.target}, {found.method}", rows)
    console.print(f"written: {page}{'' if npz is None else f', {npz}'}", markup=False)


@gallery_app.command("build")
def build(
    model: Model,
    cohort: Annotated[Path, typer.Option(help="Cohort whose studies (or ECGs) are embedded.")],
    out: Annotated[Path, typer.Option(help="Folder of the gallery.")],
    modality: Annotated[str, typer.Option(help="cmr or ecg.")] = "cmr",
    part: Annotated[str, typer.Option(help="train, val, test or all.")] = "train",
    split: Annotated[str, typer.Option(help="Name of the split.")] = "default",
    labels: Annotated[str | None, typer.Option(help="Labels to keep, with commas; all by default.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Neighbours of each query.")] = 20,
    device: Device = "auto",
) -> None:
    """Embed a part of a cohort with its phenotypes, and measure what neighbours can tell of validation subjects."""
    with user_errors():
        from ecgcmr.cohort.store import Cohort
        from ecgcmr.evaluation.neighbours.build import build_gallery
        from ecgcmr.hub.model import load_model

        if modality not in ("cmr", "ecg"):
            raise ValueError(f"modality is {modality!r}, expected 'cmr' or 'ecg'")
        kind: Any = modality
        loaded = load_model(model, device=device)
        made = build_gallery(loaded, Cohort.open(cohort), kind, part, split, _names(labels), k)
        folder = made.save(out)
    console = plain_console()
    rows = [
        {"label": row.label, "metric": row.metric, "value": row.value, "lo": row.lo, "hi": row.hi, "n": row.n_subjects}
        for row in made.about.measured
    ]
    print_table(console, f"What neighbours tell, measured on {made.about.measured_on}", rows)
    console.print(f"{len(made)} {modality} vectors written to {folder}", markup=False)


def neighbours(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ECG file of any format.")],
    gallery: Annotated[Path, typer.Option(help="Folder of the gallery.")],
    model: Annotated[str | None, typer.Option(help="Weights; by default those whose name the gallery states.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Neighbours; the gallery's own number by default.")] = None,
    subject: Annotated[int | None, typer.Option(help="Subject of the gallery's cohort to leave out.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="Cohort of the gallery, for its cines on the page.")] = None,
    out: Annotated[Path | None, typer.Option(help="Page to write, .html.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table of the neighbours to write, .csv.")] = None,
    unit: Unit = None,
    rate: Rate = None,
    leads: Leads = None,
    device: Device = "auto",
) -> None:
    """Find the hearts that are most similar to one ECG, and what they say of its own."""
    with user_errors():
        from ecgcmr.cohort.store import Cohort
        from ecgcmr.evaluation.explain.prepare import prepare
        from ecgcmr.evaluation.neighbours.gallery import Gallery
        from ecgcmr.evaluation.neighbours.query import find_neighbours
        from ecgcmr.hub.inputs import Declared
        from ecgcmr.hub.model import load_model
        from ecgcmr.report.explain_pages import neighbour_page

        opened = Gallery.load(gallery)
        loaded = load_model(model or opened.about.model, device=device)
        opened.check_model(loaded)
        said: dict[str, Any] = {"rate_hz": rate, "leads": _names(leads), "unit": unit}
        found = find_neighbours(loaded, file, opened, k, subject, **said)
        if table is not None:
            found.neighbours.to_csv(table, index=False)
        if out is not None:
            recording: Any = prepare(loaded, file, Declared(**said)).source
            neighbour_page(found, out, None if cohort is None else Cohort.open(cohort), recording)
    _print(found)
    written = [str(path) for path in (table, out) if path is not None]
    if written:
        plain_console().print(f"written: {', '.join(written)}", markup=False)


def _print(found: NeighbourReport) -> None:
    console = plain_console()
    labels = found.gallery.labels
    usual = [name for name in labels if name in ("LVEDV", "LVEF", "LVM")]
    shown = usual or list(labels[:3])
    columns = ["place", "subject", "cosine", *shown]
    print_table(console, "Nearest", found.neighbours[columns].head(10).to_dict("records"))  # type: ignore[arg-type]
    told = found.estimates[["label", "value", "lo", "hi", "unit", "metric", "measured"]]
    print_table(console, "What they say", told.to_dict("records"))  # type: ignore[arg-type]
