"""Commands about weights folders: list, index. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import user_errors

weights_app = typer.Typer(no_args_is_help=True, help="Weights folders: list, look into, verify, pack and publish.")


@weights_app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print all fields as JSON.")] = False,
) -> None:
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


@weights_app.command("index")
def index(folder: Annotated[Path, typer.Argument(help="Folder of weights folders.")]) -> None:
    """Write index.json of a folder of weights folders: size and sha256 of every file."""
    with user_errors():
        from ecgcmr.hub.index import write_index

        typer.echo(f"written: {write_index(folder)}")
