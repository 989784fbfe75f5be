"""The command `app`. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors
from ecgcmr.cli.panels import USE
from ecgcmr.cli.show import progress_bar


def register(app: typer.Typer) -> None:
    """Give an application the verb of this file: app."""
    app.command(name="app", rich_help_panel=USE)(serve_app)


def serve_app(
    model: Annotated[str, typer.Option(help="Weights: a name, local-dir:PATH, or a folder.")] = "ecg_nano_aligned",
    cohort: Annotated[
        Path | None, typer.Option(help="Cohort to compare with; 600 hearts are simulated once without.")
    ] = None,
    gallery: Annotated[Path | None, typer.Option(help="Its gallery, made by `ecgcmr gallery build`.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; another than loopback opens it to a network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Show in the browser what a model says of one ECG: on this machine only, offline, and no file is kept.

    Needs the extra `app`: pip install 'ecgcmr[app]'.
    """
    console = plain_console()
    with user_errors():
        from ecgcmr.app.serve import LOOPBACK, need_gradio, serve

        need_gradio()  # before a minute of simulation
        from ecgcmr.app.hearts import open_hearts
        from ecgcmr.hub import load_model

        loaded = load_model(model, device=device)
        with progress_bar("simulating hearts", "hearts") as tell:
            hearts = open_hearts(loaded, cohort, gallery, progress=tell)
        if host not in LOOPBACK:
            console.print(f"anyone who reaches {host} can use this app and see the cohort's hearts")
        serve(loaded, hearts, host, port, ready=lambda url: console.print(f"{url}  (Ctrl-C ends it)"))
