"""Libraries of the extra `explain`, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def need(name: str, for_what: str) -> Any:
    """Import a module of the extra.

    Raises:
        ValueError: It is not installed; says what to install.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ValueError(
            f"{for_what} needs {package}, which is not installed: pip install 'ecgcmr[explain]' (or pip install "
            f"{package})"
        ) from error
