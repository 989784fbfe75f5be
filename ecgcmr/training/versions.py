"""The versions that decide the numbers of a run."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import ecgcmr


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("ecgcmr", ecgcmr.__version__), ("python", platform.python_version())]
    for package in ("torch", "timm", "accelerate", "numpy"):
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Give the versions of Python, ecgcmr and what decides its numbers."""
    return dict(_versions())
