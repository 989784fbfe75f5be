"""The page in headless Chromium at two widths (skipped where there is no Chromium)."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.report.ecg_paper import ecg_paper
from ecgcmr.report.evaluation_page import write_evaluation_report
from ecgcmr.report.page import Headline, Section, Table, build_report
from ecgcmr.report.retrieval_figure import rank_histogram

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
PROBE = """<script>addEventListener("load", () => {
const hit = [...document.querySelectorAll("h1,h2,h3,p,figcaption,li,figure,.scroll,svg")]
  .filter(e => !e.closest(".drawing") && e.getBoundingClientRect().right > innerWidth + 1);
const rgb = text => text.match(/\\d+/g).slice(0, 3).join(",");
const body = getComputedStyle(document.body), text = getComputedStyle(document.querySelector(".drawing text"));
const colors = `paper=${rgb(body.backgroundColor)} ink=${rgb(body.color)} axis=${rgb(text.fill)}`;
parent.postMessage(
  `page=${document.documentElement.scrollWidth} window=${innerWidth} out=${hit.length} ${colors}`, "*");
});</script></body>"""
# Chromium has a smallest window; a frame can be as narrow as a telephone.
FRAME = """<!DOCTYPE html><pre id="probe"></pre>
<script>addEventListener("message", e => document.getElementById("probe").textContent = e.data)</script>
<iframe src="probed.html" style="border:0;width:{width}px;height:3000px"></iframe>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 400])
def test_page__nothing_is_wider_than_the_window(tmp_path, width):
    assert shown_at(width, tmp_path, some_page(tmp_path).read_text())["outside"] == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, False), (390, True)])
def test_evaluation_page__fits_and_can_be_read_light_and_dark(tmp_path, evaluations, width, dark):
    html = write_evaluation_report(evaluations / "out_w").read_text()
    assert "<details>" in html
    found = shown_at(width, tmp_path, html.replace("<details>", "<details open>"), dark)
    assert found["outside"] == 0
    background, ink, axis = (tuple(int(v) for v in found[name].split(",")) for name in ("paper", "ink", "axis"))
    light = {name: sum(color) / 3 for name, color in (("paper", background), ("ink", ink), ("axis", axis))}
    assert (light["paper"] < 60) == dark
    for name in ("ink", "axis"):  # text of the page and of the drawings stands out from the paper
        assert abs(light[name] - light["paper"]) > 90, (name, light)


def some_page(tmp_path):
    paper = ecg_paper(EcgRecording(np.zeros((12, 5000), np.float32), 500.0, LEADS), title="A 12-lead ECG")
    histogram = rank_histogram(np.arange(1, 201), 200, "ECG → CMR")
    table = Table([f"column {i}" for i in range(14)], [["a long cell of text"] * 14], "Numbers")
    sections = [
        Section("Figures", "Text. " * 60, [paper, histogram, histogram], [table]),
        Section("Code", code="ecgcmr demo " + "--a-very-long-option " * 20),
        Section("Unbreakable`s" * 3, "`" + "a/long/path/" * 30 + "`"),
    ]
    return build_report(tmp_path / "r.html", "Title", "Intro", sections, {"path": "x" * 300}, [Headline("1", "one")])


def shown_at(width, tmp_path, html, dark=False):
    """What a browser says of a page in a window of that width, which nothing may exceed."""
    (tmp_path / "probed.html").write_text(html.replace("</body>", PROBE))
    page = tmp_path / "frame.html"
    page.write_text(FRAME.replace("{width}", str(width)))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,3000"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command += ["--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"page=(\d+) window=(\d+) out=(\d+) paper=([\d,]+) ink=([\d,]+) axis=([\d,]+)", shown)
    assert found, shown[:500]
    page_width, window, outside = (int(v) for v in found.groups()[:3])
    assert window == width
    assert page_width <= window
    return {"outside": outside} | dict(zip(("paper", "ink", "axis"), found.groups()[3:], strict=True))
