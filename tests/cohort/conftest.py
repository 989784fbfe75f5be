"""Fixtures of the cohort tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cohort_standin import write_cohort


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in cohort of 10 subjects for reading only."""
    return write_cohort(tmp_path_factory.mktemp("standin") / "cohort")


@pytest.fixture
def new_cohort(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a stand-in cohort of one's own, to be broken."""
    return lambda **kwargs: write_cohort(tmp_path / "cohort", **kwargs)
