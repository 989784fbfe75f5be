import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ecgcmr.cmr.cine import Cine
from ecgcmr.evaluation.results import make_row, results_table
from ecgcmr.report.cine_strip import StripOptions, cine_strip
from ecgcmr.report.curves import MAX_POINTS, calibration_figure, loss_figure
from ecgcmr.report.differences import DifferenceRow, difference_figure, interval_text
from ecgcmr.report.label_efficiency import Curves, label_efficiency_figure
from ecgcmr.report.palette import BOTH, arm_styles
from ecgcmr.report.reconstruction import masked_correlation, reconstruction_figure
from ecgcmr.report.retrieval_figure import rank_histogram, recall_bars
from ecgcmr.report.sections import (
    ReportPlan,
    difference_sections,
    headline_results,
    label_efficiency_sections,
    results_table_section,
)

SVG = "{http://www.w3.org/2000/svg}"
ARMS = ("scratch", "MAE + aligned", "CMR encoder")


@pytest.fixture
def cine():
    pixels = np.zeros((3, 8, 20, 30))
    masks = np.zeros((3, 8, 20, 30), np.uint8)
    masks[:, :, 5:15, 10:20] = 1
    pixels[masks == 1] = 200
    return Cine(pixels, (2.0, 1.5), 10.0, np.eye(4), np.arange(8) * 40.0, "sax", masks, {1: "lv_cavity"})


@pytest.fixture
def results():
    rows = []
    for arm, base in zip(ARMS, (-3.0, 0.2, 0.6), strict=True):
        for n in (100, 400):
            for seed in (None, 0):
                common = {"arm": arm, "protocol": "probe", "n_labels": n, "n_subjects": 50, "seed": seed}
                value = base + n / 4000
                rows.append(make_row(**common, target="LVM", metric="r2", value=value, lo=value - 0.1, hi=value + 0.1))
    for n, lo in ((100, 0.02), (400, -0.001)):
        common = {"arm": "MAE + aligned", "protocol": "probe", "n_labels": n, "n_subjects": 50, "target": "LVM"}
        rows.append(make_row(**common, metric="r2_diff", compared_to="scratch", value=0.1, lo=lo, hi=0.18))
    return results_table(rows)


PLAN = ReportPlan(
    ARMS, {"LVM": "LV mass [g]"}, {"LVM": "r2"}, {"probe": "linear probe"}, "CMR encoder", "MAE + aligned"
)


def inside(figure):
    """Every coordinate of the drawing lies within its view box."""
    root = ET.fromstring(figure.content)
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    for element in root.iter():
        for keys, limit in ((("x", "cx", "x1", "x2"), width), (("y", "cy", "y1", "y2"), height)):
            for key in keys:
                if element.get(key) is not None:
                    assert -0.51 <= float(element.get(key)) <= limit + 0.51, (element.tag, dict(element.attrib))
    return root


def test_cine_strip__is_in_millimeters(cine):
    root = inside(cine_strip(cine, StripOptions(frames=(0, 4), columns=2)))
    images = list(root.iter(f"{SVG}image"))
    assert [(i.get("width"), i.get("height")) for i in images] == [("45", "40")] * 2
    bar = next(line for line in root.iter(f"{SVG}line"))
    assert float(bar.get("x2")) - float(bar.get("x1")) == pytest.approx(20.0)
    assert {"0 ms", "160 ms"} <= {t.text for t in root.iter(f"{SVG}text")}


def test_cine_strip__contours_lie_on_the_mask_border(cine):
    root = inside(cine_strip(cine, StripOptions(frames=(0,), columns=1)))
    path = next(root.iter(f"{SVG}path")).get("d").replace("M", "L").split("L")[1:]
    points = np.array([p.split() for p in path], dtype=float)
    # Columns 10..20 at 1.5 mm, rows 5..15 at 2 mm.
    assert (points.min(0), points.max(0)) == (pytest.approx([15, 10], abs=0.01), pytest.approx([30, 30], abs=0.01))


def test_cine_strip__crop_and_errors(cine):
    root = inside(cine_strip(cine, StripOptions(crop_mm=24, contours=False)))
    assert {(i.get("width"), i.get("height")) for i in root.iter(f"{SVG}image")} == {("24", "24")}
    assert len(list(root.iter(f"{SVG}image"))) == 6
    with pytest.raises(ValueError, match="8 frames"):
        cine_strip(cine, StripOptions(frames=(9,)))


def test_reconstruction__shades_exactly_the_hidden_patches():
    rng = np.random.default_rng(0)
    original, hidden = rng.normal(size=(12, 100)), np.zeros((12, 10), bool)
    hidden[1, [2, 3, 7]] = True
    figure = reconstruction_figure((original, original), hidden, 20.0, leads=("II",))
    shades = [r for r in inside(figure).iter(f"{SVG}rect") if float(r.get("height")) > 20]
    width = (400.0 - 32 - 2) / 10
    assert [float(r.get("x")) for r in shades] == pytest.approx([32 + 2 * width, 32 + 7 * width], abs=0.01)
    assert [float(r.get("width")) for r in shades] == pytest.approx([2 * width, width], abs=0.01)
    assert "1.00" in figure.alt


def test_masked_correlation__only_hidden_samples_count():
    rng = np.random.default_rng(1)
    original = rng.normal(size=(12, 100))
    hidden = rng.random((12, 10)) < 0.5
    samples = np.repeat(hidden, 10, axis=1)
    made = np.where(samples, -original, original)
    assert masked_correlation(original, made, hidden) == pytest.approx(-1)
    assert np.isnan(masked_correlation(original, made, np.zeros((12, 10), bool)))
    with pytest.raises(ValueError, match="do not divide"):
        reconstruction_figure((original, made), np.zeros((12, 7), bool), 20.0)


def test_rank_histogram__bars_and_words():
    figure = rank_histogram(np.r_[np.ones(50), np.full(50, 200)], 200, "ECG → CMR")
    bars = [r for r in inside(figure).iter(f"{SVG}rect") if float(r.get("height")) > 1]
    assert len(bars) == 2
    assert bars[0].get("height") == bars[1].get("height")
    assert "50% within the best 10, by chance 5%" in figure.alt
    inside(rank_histogram([1, 2, 2], 3))


def test_recall_bars__lengths_are_proportional():
    figure = recall_bars({"a": (0.2, 0.1, 0.3), "b": (0.4, np.nan, np.nan)}, 0.05, arm_styles(["a", "b"]), "R@10")
    widths = [float(r.get("width")) for r in inside(figure).iter(f"{SVG}rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.02)


def test_label_efficiency__all_points_are_inside_and_told(results):
    rows = results[results["protocol"] == "probe"]
    figure = label_efficiency_figure(rows, "LVM", Curves("r2", PLAN.styles, "CMR encoder"))
    inside(figure)  # scratch has an R2 of -3 and is drawn at the edge
    assert "scratch -2.98 at 100" in figure.alt
    assert "MAE + aligned 0.23 at 100, 0.30 at 400" in figure.alt
    with pytest.raises(ValueError, match="no result row of target 'RVM'"):
        label_efficiency_figure(rows, "RVM", Curves("r2", PLAN.styles))


def test_difference_row__verdict_follows_the_interval():
    assert DifferenceRow("a", 0.1, 0.01, 0.2).verdict == "better"
    assert DifferenceRow("a", -0.1, -0.2, -0.01).verdict == "worse"
    assert DifferenceRow("a", -0.1, -0.2, -0.01, lower_is_better=True).verdict == "better"
    assert DifferenceRow("a", 0.1, 0.0, 0.2).verdict == "open"
    assert DifferenceRow("a", 0.1, np.nan, np.nan).verdict == "open"


def test_interval_text__never_shows_minus_zero():
    assert interval_text(DifferenceRow("a", 0.06, -0.001, 0.12)) == "+0.060 [−0.001, 0.120]"
    assert interval_text(DifferenceRow("a", 0.06, -0.0001, 0.12)) == "+0.060 [0.000, 0.120]"
    assert interval_text(DifferenceRow("a", -0.06, -0.1, -0.02)) == "−0.06 [−0.10, −0.02]"
    assert interval_text(DifferenceRow("a", -0.001, -0.06, 0.05)) == "0.00 [−0.06, 0.05]"
    assert "not estimable" in interval_text(DifferenceRow("a", 0.1, np.nan, np.nan))


def test_difference_figure__points_and_headings():
    rows = [DifferenceRow("LVM", 0.1, 0.02, 0.2, "100"), DifferenceRow("LVEDV", -0.1, np.nan, np.nan, "400")]
    root = inside(difference_figure(rows, "A minus B", "difference"))
    assert len(list(root.iter(f"{SVG}circle"))) == 2
    assert {"100", "400", "LVM", "LVEDV"} <= {t.text for t in root.iter(f"{SVG}text")}


def test_difference_figure__long_numbers_are_not_cut_off():
    short, long = DifferenceRow("LVM", 0.1, 0.02, 0.2), DifferenceRow("LVM", -0.111, -13.536, -0.0031)
    for row in (short, long):
        root = inside(difference_figure([row], "A minus B", "difference"))
        (number,) = (t for t in root.iter(f"{SVG}text") if t.text == interval_text(row))
        assert float(number.get("x")) + 7.1 * len(number.text) <= float(root.get("viewBox").split()[2]) + 0.1, row


def test_sections__from_results(results):
    curves = label_efficiency_sections(results, PLAN)
    assert [(s.title, len(s.figures), len(s.legend)) for s in curves] == [("Label efficiency: linear probe", 1, 3)]
    differences = difference_sections(results, PLAN)
    assert len(differences[0].figures) == 1
    cards = [headline_results(results, PLAN, n, "probe")[0] for n in (100, 400)]
    assert cards[0].label == "LVM: MAE + aligned beats scratch"
    assert cards[1].label.startswith("LVM: no clear difference")
    table = results_table_section(results, PLAN).tables[0]
    assert table.rows[1] == ["LVM", "R²", "MAE + aligned", "0.23 [0.12, 0.33]", "0.30 [0.20, 0.40]"]


def test_loss_figure__thins_long_series():
    figure = loss_figure({"train": (range(20000), np.linspace(1, 0, 20000))}, "Loss")
    path = next(inside(figure).iter(f"{SVG}path")).get("d")
    assert path.count("L") == MAX_POINTS - 1
    with pytest.raises(ValueError, match="1 to 4"):
        loss_figure({}, "Loss")


def test_calibration_figure__perfect_predictions_lie_on_the_line():
    truth = np.linspace(50, 250, 100)
    root = inside(calibration_figure({"MAE + aligned": (truth, truth)}, {"MAE + aligned": BOTH}, "LVEDV [ml]"))
    line = next(e for e in root.iter(f"{SVG}line") if e.get("stroke-dasharray"))
    (x1, y1), (x2, y2) = ((float(line.get(f"x{i}")), float(line.get(f"y{i}"))) for i in (1, 2))
    for circle in root.iter(f"{SVG}circle"):
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.05)
