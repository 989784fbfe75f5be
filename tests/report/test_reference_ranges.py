import re

import pytest

from ecgcmr.report.reference_ranges import Predicted, reference_ranges


def test_figure__tells_every_number_and_who_is_outside():
    rows = [Predicted("LVM", "g", 180.4, (150.0, 210.0), (70.0, 130.0)), Predicted("WT", "mm", 7.26)]
    figure = reference_ranges(rows)
    assert "LVM 180 g (150 to 210), outside of the reference 70 to 130" in figure.alt
    assert "WT 7.3 mm" in figure.alt
    assert rows[0].outside
    assert not rows[1].outside


def test_figure__places_values_in_order_along_the_row():
    figure = reference_ranges([Predicted("LVM", "g", 100.0, (80.0, 125.0), (60.0, 110.0))])
    svg = str(figure.content)
    point = float(re.search(r'<circle cx="([\d.]+)"', svg).group(1))
    bar = re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    left, right = float(bar.group(1)), float(bar.group(1)) + float(bar.group(2))
    assert left < point < right
    scale = (right - left) / 50.0
    assert point == pytest.approx(left + 40.0 * scale, abs=0.05)


def test_figure__without_rows_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        reference_ranges([])
