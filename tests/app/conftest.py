"""A model of the release, and hearts to compare with."""

import numpy as np
import pytest

from ecgcmr.app.hearts import Hearts
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.leads import LEADS
from ecgcmr.evaluation.neighbours import build_gallery
from ecgcmr.hub import load_model


@pytest.fixture(scope="session")
def model():
    return load_model("ecg_nano_aligned", device="cpu")


@pytest.fixture(scope="session")
def hearts(model, tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    return Hearts(cohort, build_gallery(model, cohort, part="all", k=5))


@pytest.fixture
def ecg_file(hearts, tmp_path):
    """A file as a user has it: the first recording of the cohort, in an npz that states all."""
    recording = hearts.cohort.recording(0)
    path = tmp_path / "mine.npz"
    ecg = recording.samples[[recording.leads.index(lead) for lead in LEADS]]
    np.savez(path, ecg=ecg, rate_hz=recording.rate_hz, leads=np.array(LEADS), unit=np.array("mV"))
    return path
