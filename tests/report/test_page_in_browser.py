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
PROBE = """<pre id="probe"></pre><script>
const hit = [...document.querySelectorAll("h1,h2,h3,p,figcaption,li,figure,.scroll,svg")]
  .filter(e => e.closest(".drawing") !== e.parentElement && e.getBoundingClientRect().right > innerWidth + 1);
document.getElementById("probe").textContent =
  `page=${document.documentElement.scrollWidth} window=${innerWidth} out=${hit.length}`;
</script></body>"""


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
    page = tmp_path / "probed.html"
    page.write_text(path.read_text().replace("</body>", PROBE))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},3000",
        "--dump-dom",
    ]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"page=(\d+) window=(\d+) out=(\d+)", shown.split('id="probe"')[1])
    page_width, window, outside = (int(v) for v in found.groups())
    assert page_width <= window
    assert outside == 0
