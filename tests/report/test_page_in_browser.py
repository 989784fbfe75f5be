"""The page in headless Chromium at two widths (skipped where there is no Chromium)."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.report.ecg_paper import ecg_paper
from ecgcmr.report.page import Headline, Section, Table, build_report
from ecgcmr.report.retrieval_figure import rank_histogram

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
PROBE = """<script>addEventListener("load", () => {
const hit = [...document.querySelectorAll("h1,h2,h3,p,figcaption,li,figure,.scroll,svg")]
  .filter(e => !e.closest(".drawing") && e.getBoundingClientRect().right > innerWidth + 1);
parent.postMessage(`page=${document.documentElement.scrollWidth} window=${innerWidth} out=${hit.length}`, "*");
});</script></body>"""
# Chromium has a smallest window; a frame can be as narrow as a telephone.
FRAME = """<!DOCTYPE html><pre id="probe"></pre>
<script>addEventListener("message", e => document.getElementById("probe").textContent = e.data)</script>
<iframe src="probed.html" style="border:0;width:{width}px;height:3000px"></iframe>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 400])
def test_page__nothing_is_wider_than_the_window(tmp_path, width):
    paper = ecg_paper(EcgRecording(np.zeros((12, 5000), np.float32), 500.0, LEADS), title="A 12-lead ECG")
    histogram = rank_histogram(np.arange(1, 201), 200, "ECG → CMR")
    table = Table([f"column {i}" for i in range(14)], [["a long cell of text"] * 14], "Numbers")
    sections = [
        Section("Figures", "Text. " * 60, [paper, histogram, histogram], [table]),
        Section("Code", code="ecgcmr demo " + "--a-very-long-option " * 20),
        Section("Unbreakable`s" * 3, "`" + "a/long/path/" * 30 + "`"),
    ]
    path = build_report(tmp_path / "r.html", "Title", "Intro", sections, {"path": "x" * 300}, [Headline("1", "one")])
    (tmp_path / "probed.html").write_text(path.read_text().replace("</body>", PROBE))
    page = tmp_path / "frame.html"
    page.write_text(FRAME.replace("{width}", str(width)))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,3000"]
    command += ["--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"page=(\d+) window=(\d+) out=(\d+)", shown)
    assert found, shown[:500]
    page_width, window, outside = (int(v) for v in found.groups())
    assert window == width
    assert page_width <= window
    assert outside == 0
