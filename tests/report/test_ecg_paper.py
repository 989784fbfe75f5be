import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.report.ecg_paper import ecg_paper

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SVG = "{http://www.w3.org/2000/svg}"


def recording(samples, **extra):
    return EcgRecording(np.asarray(samples, np.float32), 500.0, LEADS, **extra)


def paths(figure):
    root = ET.fromstring(figure.content)
    found = []
    for path in root.iter(f"{SVG}path"):
        if path.get("stroke-linejoin") == "round":
            points = np.array(re.findall(r"[ML](\S+) ([^ML]+)", path.get("d")), dtype=float)
            found.append(points)
    return root, found


def test_ecg_paper__scale_is_exact():
    """A step of 1 mV at 1 s in lead I: 10 mm high, 25 mm after the start; the page is given in millimeters."""
    samples = np.zeros((12, 5000))
    samples[0, 500:1000] = 1.0
    root, traces = paths(ecg_paper(recording(samples)))
    assert root.get("width").endswith("mm")
    assert root.get("viewBox").split()[2] == root.get("width")[:-2]
    first = traces[0]
    jump = int(np.argmax(np.abs(np.diff(first[:, 1]))))
    assert first[jump, 1] - first[jump + 1, 1] == pytest.approx(10.0)
    assert first[jump + 1, 0] - first[0, 0] == pytest.approx(25.0, abs=0.01)
    tiles = {p.get("width") for p in root.iter(f"{SVG}pattern")}
    assert tiles == {"1", "5"}


def test_ecg_paper__columns_are_consecutive_and_the_rhythm_strip_is_whole():
    samples = np.tile(np.arange(5000) / 5000, (12, 1))
    _, traces = paths(ecg_paper(recording(samples)))
    assert len(traces) == 13
    spans = sorted({(t[0, 0], t[-1, 0]) for t in traces[:12]})
    assert len(spans) == 4
    assert all(b[0] - a[1] == pytest.approx(0.05, abs=0.011) for a, b in itertools.pairwise(spans))
    assert traces[12][-1, 0] - traces[12][0, 0] == pytest.approx(249.95, abs=0.02)
    # Column 4 shows the last quarter of the signal, not its beginning again.
    assert traces[9][0, 1] < traces[0][0, 1]


def test_ecg_paper__twelve_rows_and_short_recordings():
    root, traces = paths(ecg_paper(recording(np.zeros((12, 1000))), "12x1"))
    assert len(traces) == 12
    assert all(len(t) == 1000 for t in traces)
    assert tuple(t.text for t in root.iter(f"{SVG}text"))[:12] == LEADS


def test_ecg_paper__missing_samples_are_a_gap_and_z_scores_have_no_voltage():
    samples = np.zeros((12, 5000))
    samples[1, 2000:2100] = np.nan
    figure = ecg_paper(recording(samples))
    assert "NaN" not in figure.content
    assert "nan" not in figure.content
    assert figure.content.count("h1.5v-10") == 4
    plain = ecg_paper(recording(samples, unit="z"))
    assert "h1.5v-10" not in plain.content
    assert "voltage lost" in plain.content


def test_ecg_paper__names_missing_leads():
    with pytest.raises(ValueError, match="missing: V5, V6"):
        ecg_paper(EcgRecording(np.zeros((10, 100), np.float32), 100.0, LEADS[:10]))
