import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecgcmr.drawing.axes import Panel, padded, round_ticks, tick_labels
from ecgcmr.drawing.svg import Svg, number, png, polyline, to_gray


@pytest.mark.parametrize("shape", [(5, 7), (4, 6, 3)])
def test_png__is_read_back_by_another_library(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)
    with pytest.raises(ValueError, match="uint8"):
        png(pixels.astype(float))


def test_svg__text_is_escaped_and_ids_are_markup():
    svg = Svg(10, 20, 'a "label" & more').text(1, 2, "<b>&</b>", data_note='"')
    root = ET.fromstring(str(svg))
    assert root.get("aria-label") == 'a "label" & more'
    assert root.get("viewBox") == "0 0 10 20"
    assert root[0].text == "<b>&</b>"
    assert root[0].get("data-note") == '"'


def test_number__is_short():
    assert [number(v) for v in (1.0, -0.001, 2.5, 1.23456, 1e3)] == ["1", "0", "2.5", "1.23", "1000"]


def test_polyline__breaks_at_missing_samples():
    x = np.arange(5.0)
    assert polyline(x, np.array([0, 1, np.nan, 3, 4.0])) == "M0 0L1 1M3 3L4 4"
    assert polyline(x[:1], np.array([np.nan])) == ""


def test_to_gray__constant_and_range():
    assert to_gray(np.full((3, 3), 7.0)).max() == 0
    assert list(to_gray(np.array([0.0, 1, 2]), (0, 2))) == [0, 128, 255]


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_round_ticks__lie_within_and_are_evenly_spaced(lo, width):
    ticks = round_ticks(lo, lo + width)
    assert 3 <= len(ticks) <= 9
    assert all(lo - 1e-6 * width <= t <= lo + width * (1 + 1e-6) for t in ticks)
    steps = np.diff(ticks)
    assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-5)
    assert len(set(tick_labels(ticks))) == len(ticks)


def test_round_ticks__refuses_an_empty_axis():
    with pytest.raises(ValueError, match="rising"):
        round_ticks(1, 1)


def test_panel__maps_corners_and_keeps_points_inside():
    panel = Panel((10, 20, 100, 50), (100, 10000), (0, 1), log_x=True)
    assert (panel.px(100), panel.px(1000), panel.px(10000)) == pytest.approx((10, 60, 110))
    assert (panel.py(0), panel.py(1), panel.py(-5)) == (70, 20, 70)


def test_padded__ignores_missing_values():
    assert padded([np.nan]) == (0, 1)
    lo, hi = padded([1.0, np.nan, 3.0], 0.1, include=0.0)
    assert (lo, hi) == pytest.approx((-0.3, 3.3))
