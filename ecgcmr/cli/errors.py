"""Errors that a user can mend become one clear line and an exit code; nothing else is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


def plain_console(error: bool = False) -> Console:
    """A console that leaves paths and numbers as they are."""
    return Console(stderr=error, soft_wrap=True, highlight=False)


@contextmanager
def user_errors() -> Iterator[None]:
    """One clear line and exit code 2 for what a user or a disk can cause; 130 after Ctrl-C."""
    try:
        yield
    except (ValueError, FileNotFoundError, FileExistsError, BlockingIOError) as error:
        plain_console(error=True).print(f"error: {error}", markup=False)
        raise typer.Exit(EXIT_WRONG_INPUT) from error
    except OSError as error:  # a full disk, a lost mount: what is written so far stays and can be gone on with
        plain_console(error=True).print(f"error: {error}; repeat the command to go on where it stopped", markup=False)
        raise typer.Exit(EXIT_WRONG_INPUT) from error
    except KeyboardInterrupt as interrupted:
        plain_console(error=True).print("interrupted; the same command goes on where it stopped")
        raise typer.Exit(EXIT_INTERRUPTED) from interrupted
