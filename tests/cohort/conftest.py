"""Fixtures of the cohort tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cohort_standin import write_cohort


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in cohort of 10 subjects for reading only."""
    return write_cohort(tmp_path_factory.mktemp("standin") / "cohort")


@pytest.fixture(scope="session")
def ragged_standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with recordings of two lengths."""
    return write_cohort(tmp_path_factory.mktemp("ragged") / "cohort", ragged=True)


@pytest.fixture
def new_cohort(standin: Path, ragged_standin: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies a stand-in cohort, to be broken."""

    def copy(ragged: bool = False) -> Path:
        source = ragged_standin if ragged else standin
        return shutil.copytree(source, tmp_path / "cohort", ignore=shutil.ignore_patterns("cache"))

    return copy
