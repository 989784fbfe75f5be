"""Figures and sections of explanations and neighbours."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgcmr.cmr.cine import Cine
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.checks import RandomisationCheck
from ecgcmr.evaluation.explain.planted import compare
from ecgcmr.evaluation.explain.result import CLASS_AGNOSTIC, CMR_AXES, ECG_AXES, PAIR_AXES, Explanation, Region
from ecgcmr.evaluation.neighbours.gallery import Gallery, GalleryAbout, Measured
from ecgcmr.evaluation.neighbours.query import report_neighbours
from ecgcmr.report.ecg_paper import LOWERS, RAISES
from ecgcmr.report.explain_sections import check_section, explanation_section, neighbour_section
from ecgcmr.report.explained import explained_frames, explained_paper, painted, scale_of, wave_bars
from ecgcmr.report.page import build_report
from ecgcmr.report.playing_cines import playing_gallery, playing_heart

SVG = "{http://www.w3.org/2000/svg}"
CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


def ecg_map(values, rate=100.0, **more):
    about = {"method": "ig", "target": "LVM", "unit": "g", "model": "m", "sha256": "0" * 64}
    return Explanation(np.asarray(values, float), ECG_AXES, **about | {"leads": LEADS, "rate_hz": rate} | more)


def image_map(values, **more):
    frames = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
    about = {"method": "occlusion", "target": "similarity", "unit": "cosine", "model": "m", "sha256": "0" * 64}
    return Explanation(np.asarray(values, float), CMR_AXES, **about | {"frames": frames} | more)


def recording(seconds=10.0):
    t = np.arange(round(seconds * 500)) / 500
    return EcgRecording(np.tile(np.sin(7 * t), (12, 1)).astype(np.float32), 500.0, LEADS)


def cine(frames=25, slices=1):
    pixels = np.random.default_rng(1).random((slices, frames, 40, 40))
    return Cine(pixels, (1.8, 1.8), 0.0, np.eye(4), np.arange(frames) * 40.0, "sax")


def test_explained_paper__colors_lie_where_the_values_are():
    """One bin of 40 ms in V2 from 1.0 s: a rectangle 1 mm wide, 25 mm after the start of the trace, in its row."""
    values = np.zeros((12, 500))
    values[7, 100:104] = 2.0
    values[8, 200:204] = -2.0
    figure = explained_paper(recording(), ecg_map(values, output=5.0))
    root = ET.fromstring(figure.content)
    shades = [r for r in root.iter(f"{SVG}rect") if r.get("fill") in (RAISES, LOWERS)]
    assert len(shades) == 2
    trace = next(p for p in root.iter(f"{SVG}path") if p.get("stroke-linejoin") == "round")
    left = float(re.match(r"M(\S+) ", trace.get("d")).group(1))
    raised = next(r for r in shades if r.get("fill") == RAISES)
    assert float(raised.get("width")) == pytest.approx(1.0)
    assert float(raised.get("x")) == pytest.approx(left + 25)
    assert float(raised.get("fill-opacity")) == pytest.approx(0.75)
    lowered = next(r for r in shades if r.get("fill") == LOWERS)
    assert float(lowered.get("y")) - float(raised.get("y")) == pytest.approx(16.0)
    assert "8 g for each 40 ms" in figure.caption
    assert "Output 5 g" in figure.caption
    assert figure.size == "half"


def test_explained_paper__draws_the_window_that_was_read():
    values = np.zeros((12, 10))
    values[0] = np.arange(10)
    figure = explained_paper(recording(), ecg_map(values, rate=2.0, start_s=3.0, target=CLASS_AGNOSTIC))
    assert "read 3 to 8 s" in figure.caption
    assert figure.title == "ig, about no target"
    assert "5.0 s" in figure.alt
    with pytest.raises(ValueError, match="not an ECG"):
        explained_paper(recording(), image_map(np.zeros((16, 16))))


def test_painted__cosines_are_told_from_their_mean():
    one = ecg_map([[1.0, 3.0]] * 12, unit="cosine over temperature", target="the whole study")
    values, words = painted(one)
    assert values.mean() == pytest.approx(0)
    assert "mean of all parts (2)" in words
    assert scale_of(np.zeros(3)) == 1.0


def test_explained_frames__one_overlay_for_each_frame():
    figure = explained_frames(image_map(np.eye(4)), ("a", "b", "c"))
    assert figure.content.count("<image") == 6
    assert "The stronger the orange" in figure.caption
    many = image_map(np.eye(4) - 0.5)
    many = replace(many, frames=np.zeros((24, 16, 16), np.float32))
    assert explained_frames(many).content.count("<image") == 8
    with pytest.raises(ValueError, match="not an image"):
        explained_frames(ecg_map(np.zeros((12, 5))))


def effects(rng, shift=0.0):
    rows = [*LEADS, "all"]
    return pd.DataFrame(rng.normal(shift, 1, (13, 3)), index=rows, columns=["P", "QRS", "T"])


def test_wave_bars__means_and_intervals_over_recordings():
    rng = np.random.default_rng(0)
    tables = [effects(rng) for _ in range(40)]
    for table in tables:
        table.loc["V3", "QRS"] += 5
    figure = wave_bars(tables, "g", "waves")
    assert "the largest is QRS of V3" in figure.alt
    assert "mean of 40 recording(s) with 95 % bootstrap" in figure.caption
    tables[0].loc["I", "P"] = np.nan  # a beat without P
    assert "nan" not in wave_bars(tables, "g").content.lower()
    assert "one recording has no interval" in wave_bars(tables[:1], "g").caption
    with pytest.raises(ValueError, match="by='wave'"):
        wave_bars([pd.DataFrame(index=[*LEADS, "all"])], "g")


def test_playing_heart__crops_and_plays_at_the_heart_rate():
    heart = playing_heart(cine(25), crop_mm=36.0)
    assert heart.frames.shape == (25, 20, 20)
    assert heart.cycle_ms == pytest.approx(1000.0)
    back = playing_heart(cine(3))
    assert len(back.frames) == 4  # there and back: ED, mid, ES, mid
    assert (back.frames[3] == back.frames[1]).all()
    assert playing_heart(cine(1)).frames.shape[0] == 1


def test_playing_gallery__rests_for_who_asks_for_it_and_loads_nothing():
    figure = playing_gallery([playing_heart(cine(), ["LVM 100 g"]), playing_heart(cine(1), own=True)], np.zeros(5000))
    assert figure.content.count("@keyframes") == 1  # a single frame does not move
    assert "prefers-reduced-motion: reduce" in figure.content
    assert "@media print" in figure.content
    assert ":hover" in figure.content
    assert "steps(25)" in figure.content
    assert "own study" in figure.content
    with pytest.raises(ValueError, match="at least one"):
        playing_gallery([])


def test_playing_gallery__tells_the_rank_of_the_own_study():
    def places(figure):
        return re.findall(r">(\d+\.(?: own study)?)<", figure.content)

    others = [playing_heart(cine(3)) for _ in range(2)]
    among = playing_gallery([others[0], playing_heart(cine(3), own=True)], gallery=40)
    assert places(among) == ["1.", "2. own study"]
    assert "The 2 most similar hearts of 40" in among.alt
    assert "own study is at rank 2 of 40" in among.alt
    behind = playing_gallery([*others, playing_heart(cine(3), own=True, rank=31)], gallery=40)
    assert places(behind) == ["1.", "2.", "31. own study"]
    assert "The 2 most similar hearts of 40" in behind.alt
    assert behind.caption.startswith("Own study at rank 31 of 40")
    assert "own study" not in playing_gallery(others).alt


def small_gallery(n=12, modality="cmr"):
    rng = np.random.default_rng(2)
    v = rng.normal(size=(n, 4)).astype(np.float32)
    items = pd.DataFrame({"subject": np.arange(n), "row": np.arange(n), "LVM": rng.normal(100, 20, n), "mi": 0.0})
    measured = (Measured("LVM", "r2", -0.1, -0.4, 0.3, 9, 1.5), Measured("mi", "auroc", *[float("nan")] * 3, 9, np.nan))
    about = GalleryAbout(
        modality, "shared", "m", "0" * 64, "c", "key", "simulated", "default/train",
        {"LVM": "g", "mi": ""}, {"LVM": "regression", "mi": "binary"}, k=5, measured=measured,
    )  # fmt: skip
    return Gallery(v / np.linalg.norm(v, axis=1, keepdims=True), items, about)


class FewHearts:
    """What a section asks of a cohort."""

    path = "c"

    def __init__(self, key="key"):
        self.schema = SimpleNamespace(files={"subjects.parquet": key})

    def cine(self, row, masks=True):
        return cine(4 + row % 2)


def test_neighbour_section__hearts_estimates_and_neighbours(tmp_path):
    gallery = small_gallery()
    report = report_neighbours(np.random.default_rng(0).normal(size=(2, 4)), gallery)
    section = neighbour_section(report, FewHearts(), recording(), n=3)
    assert "most similar hearts of 12" in section.figures[0].alt
    told = {row[0]: row for row in section.tables[0].rows}
    assert told["LVM"][4] == "R² −0.10 [−0.40, 0.30]"
    assert told["mi"][4] == "not measured"
    assert "[" in told["LVM"][1]
    assert len(section.tables[1].rows) == 5
    build_report(tmp_path / "r.html", "t", "i", [section])
    assert neighbour_section(report).figures == []
    with pytest.raises(ValueError, match="no query 7; it has 2"):
        neighbour_section(report, query=7)
    with pytest.raises(ValueError, match="is not the cohort 'c'"):
        neighbour_section(report, FewHearts("another"))


def test_explanation_section__drawn_on_both_and_sums_by_lead(tmp_path):
    values = np.random.default_rng(0).normal(size=(12, 500))
    by_lead = ecg_map(values, regions=tuple(Region("lead", lead, float(i)) for i, lead in enumerate(LEADS)))
    section = explanation_section(recording(), [ecg_map(values), by_lead])
    rows = section.tables[0].rows
    assert rows[3][0] == "aVR"
    assert float(rows[3][1].replace("−", "-")) == pytest.approx(values[3].sum(), rel=0.01)
    assert rows[3][2] == "3"
    image = explanation_section(cine(3), [image_map(np.eye(4))])
    build_report(tmp_path / "r.html", "t", "i", [section, image])
    pairs = replace(ecg_map(np.zeros((12, 5))), values=np.zeros((12, 5, 2, 2)), axes=PAIR_AXES)
    with pytest.raises(ValueError, match="not an ECG"):
        explanation_section(recording(), [pairs])


def test_check_section__says_what_passed():
    rng = np.random.default_rng(0)
    steps = ("none", "head", "+ input")
    falls = np.array([np.ones(5), rng.random(5), 0.1 * rng.random(5)])
    stays = np.ones((3, 5))
    checks = [RandomisationCheck("ig", "LVM", steps, falls, sizes) for sizes in (falls, stays)]
    checks.append(RandomisationCheck("edges", "LVM", steps, stays, stays))
    truth = rng.random((9, 12))
    planted = [compare(("oracle", "mi", "rank correlation"), np.arange(9), truth, truth, 200)]
    section = check_section(checks, planted)
    captions = [table.caption for table in section.tables]
    assert captions[0].endswith("(passes)")
    assert captions[1].endswith("(signs change, sizes stay)")
    assert captions[2].endswith("(does not pass)")
    assert section.tables[3].rows[0][-1] == "points to the scar"
    assert check_section().tables == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("flags", "name"), [([], "f1k0"), (["--force-prefers-reduced-motion"], "none")])
def test_playing_gallery__moves_unless_motion_is_reduced(tmp_path, flags, name):
    gallery = small_gallery()
    report = report_neighbours(np.random.default_rng(0).normal(size=(1, 4)), gallery)
    path = build_report(tmp_path / "r.html", "t", "i", [neighbour_section(report, FewHearts(), recording())])
    probe = (
        "<pre id=probe></pre><script>const s = getComputedStyle(document.querySelector('.f1p'));"
        "document.getElementById('probe').textContent = `name=${s.animationName} loaded=${"
        "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length}`</script></body>"
    )
    path.write_text(path.read_text().replace("</body>", probe))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", *flags]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f"name={name} loaded=0" in shown
