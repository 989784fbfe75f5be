"""Fixtures of the whole suite, and one thread for each pytest-xdist worker."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest


def _share_cores() -> None:
    """Under xdist, give each worker its share of the cores; must run before torch and numpy start their threads."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if workers:
        share = str(max(1, (os.cpu_count() or 1) // workers))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ.setdefault(name, share)


_share_cores()

# The same examples in every run, so that a red suite means a change; ECGCMR_EXPLORE=1 looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("explore" if os.environ.get("ECGCMR_EXPLORE") else "repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the openly licensed real files; skips when they are not on this machine."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ECGCMR_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}; set ECGCMR_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated cohort of 24 subjects with three-frame mid slices; treat it as read-only but for its cache."""
    from ecgcmr.cohort.simulate import simulate_cohort

    return simulate_cohort(tmp_path_factory.mktemp("simulated") / "tiny", n_subjects=24, seed=7, cine="mid3")
