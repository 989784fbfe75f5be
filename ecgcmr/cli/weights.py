"""Commands about weights folders: list, show, verify, index, pack, push, export. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import EXIT_WRONG_INPUT, user_errors

weights_app = typer.Typer(no_args_is_help=True, help="Weights folders: list, look into, verify, pack and publish.")

SOURCE_HELP = "A released name, local-dir:PATH, hf-hub:ORG/NAME[@REVISION], or a path."


@weights_app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print all fields as JSON.")] = False) -> None:
    """List the weights that load by name: released with the package, or kept in the cache."""
    with user_errors():
        from ecgcmr.hub.catalogue import list_models

        models = list_models()
    if as_json:
        typer.echo(models.to_json())
    elif models:
        typer.echo(repr(models))
    else:
        typer.echo("no weights have a name here; a folder loads as local-dir:PATH")


@weights_app.command()
def show(source: Annotated[str, typer.Argument(help=SOURCE_HELP)]) -> None:
    """Say what a weights folder is, and whether every tensor of it loads."""
    with user_errors():
        from ecgcmr.hub.about import about_weights

        about = about_weights(source)
    typer.echo("\n".join(about.lines()))
    if about.problem:
        raise typer.Exit(EXIT_WRONG_INPUT)


@weights_app.command()
def verify(sources: Annotated[list[str], typer.Argument(help=SOURCE_HELP)]) -> None:
    """Recompute expected.json of each folder; exit code 2 if one does not give what it promises."""
    failed = 0
    for source in sources:
        try:
            with user_errors():
                from ecgcmr.hub.expected import verify_weights

                errors = verify_weights(source)
        except typer.Exit:
            failed += 1
            continue
        typer.echo(f"{source}: as promised (relative error {', '.join(f'{k} {v:.1g}' for k, v in errors.items())})")
    if failed:
        typer.echo(f"{failed} of {len(sources)} failed", err=True)
        raise typer.Exit(EXIT_WRONG_INPUT)


@weights_app.command()
def index(folder: Annotated[Path, typer.Argument(help="Folder of weights folders.")]) -> None:
    """Write index.json of a folder of weights folders: size and sha256 of every file."""
    with user_errors():
        from ecgcmr.hub.index import write_index

        typer.echo(f"written: {write_index(folder)}")


@weights_app.command()
def pack(
    sources: Annotated[list[str], typer.Argument(help=f"Run folders or weights folders. {SOURCE_HELP}")],
    out: Annotated[Path, typer.Option("--out", help="The new folder; its name becomes the name of the weights.")],
    modules: Annotated[
        str | None, typer.Option(help="Comma-separated: ecg,ecg_projection,cmr,cmr_projection,head,ecg_decoder.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, or float16: half the bytes, if no output moves by 0.001.")] = (
        "float32"
    ),
    exact: Annotated[str | None, typer.Option(help="Comma-separated modules that stay in float32.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON: license, provenance, trained_on, command, intended_use, limits, metrics."),
    ] = None,
) -> None:
    """Make a release folder out of the weights of one or more runs."""
    with user_errors():
        from ecgcmr.hub.pack import pack as pack_weights
        from ecgcmr.hub.pack import read_card_file

        fields = read_card_file(card) if card is not None else None
        chosen, kept = (names.split(",") if names else None for names in (modules, exact))
        done = pack_weights(sources, out, chosen, dtype, fields, kept or ())
    for name, source in done.taken.items():
        typer.echo(f"{name:<16}from {source}")
    if done.left_out:
        typer.echo(f"left out: {', '.join(done.left_out)}")
    if done.unsaid:
        typer.echo(f"the card says nothing of: {', '.join(done.unsaid)}")
    typer.echo(f"written: {done.folder}")


@weights_app.command()
def push(
    folder: Annotated[str, typer.Argument(help="A weights folder on this machine, or the name of one.")],
    to: Annotated[str, typer.Option("--to", help="ORG/NAME on the Hugging Face hub.")],
    approval: Annotated[
        str, typer.Option(help="Reference of the approval; needed unless the data are simulated or public.")
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be published, and send nothing.")] = False,
) -> None:
    """Publish a weights folder, if license, provenance and content allow it."""
    with user_errors():
        from ecgcmr.hub.push import plan_push
        from ecgcmr.hub.push import push as push_weights

        plan = plan_push(folder, to, approval) if dry_run else push_weights(folder, to, approval, private)
    typer.echo(f"{'would go' if dry_run else 'published'}: {plan.folder} to {plan.repo}")
    for name, size, digest in plan.files:
        typer.echo(f"  {name:<20}{size:>12,} bytes  {digest}")
    if plan.left_out:
        typer.echo(f"left out: {', '.join(plan.left_out)}")
    for problem in plan.problems:
        typer.echo(f"problem: {problem}", err=True)
    if plan.problems:
        raise typer.Exit(EXIT_WRONG_INPUT)


@weights_app.command()
def export(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    out: Annotated[Path, typer.Option("--out", help="The new folder.")],
    format_: Annotated[str, typer.Option("--format", help="onnx, or program for torch.export.")] = "onnx",
    what: Annotated[
        str | None,
        typer.Option(help="Comma-separated: ecg,cmr,ecg_projection,cmr_projection,predict. All when left out."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="ECG graphs in int8 as well (onnx only; not exact).")] = False,
    force: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
) -> None:
    """Write encoders, projections and predictions as ONNX or torch.export graphs, if they agree with the weights."""
    with user_errors():
        from ecgcmr.hub.exporting import export_weights

        done = export_weights(source, out, format_, what.split(",") if what else None, int8, force)
    typer.echo("\n".join(done.lines()))
