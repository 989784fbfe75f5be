import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from ecgcmr.drawing.svg import Svg, png
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.report.ecg_paper import ecg_paper
from ecgcmr.report.page import (
    DISCLAIMER,
    Figure,
    Headline,
    LegendEntry,
    PageLink,
    Section,
    Table,
    build_report,
    paragraphs,
)
from ecgcmr.report.palette import BOTH, CEILING, arm_styles

VOID = {"meta", "img", "br", "line", "rect", "path", "circle", "polygon", "image"}


class Reader(HTMLParser):
    """Counts what a browser would load or read aloud, and checks that elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.loads, self.figures, self.unnamed = [], [], [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.stack.append(tag)
        self.handle_any(tag, attributes)

    def handle_startendtag(self, tag, attrs):
        self.handle_any(tag, dict(attrs))

    def handle_any(self, tag, attributes):
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.loads += [attributes[k] for k in ("src", "href") if k in attributes]
        self.figures += tag == "figure"
        if tag == "svg" and "aria-hidden" not in attributes:
            self.unnamed += not attributes.get("aria-label")
        if tag == "img":
            self.unnamed += not attributes.get("alt")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


@pytest.fixture
def sections():
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    paper = ecg_paper(EcgRecording(np.zeros((12, 500), np.float32), 100.0, leads), title="ECG")
    raster = Figure(png(np.zeros((4, 4), np.uint8)), "a black square")
    table = Table(["Arm", "R²"], [["<script>alert(1)</script>", "0.5"]], "Numbers", fold=True)
    legend = [LegendEntry("MAE + aligned", BOTH)]
    return [
        Section("Label efficiency", "One.\n\nTwo with `code` & <b>.", [paper, paper, raster], [table], legend),
        Section("Methods"),
        Section("How to reproduce", code="make demo"),
    ]


def test_build_report__is_self_contained_valid_and_named(sections, tmp_path):
    path = build_report(tmp_path / "r.html", "T & U", "Intro", sections, {"seed": 1}, [Headline("+0.1", "better")])
    text = path.read_text()
    reader = Reader(text)
    assert reader.stack == []
    assert all(load.startswith(("data:image/", "#")) for load in reader.loads)
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.figures == 3
    assert reader.unnamed == 0
    assert text.count(DISCLAIMER) == 1
    assert "@UID@" not in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(reader.ids)
    assert len(used) == 4  # two patterns of each of the two papers
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_build_report__is_deterministic(sections, tmp_path):
    one, two = (build_report(tmp_path / name, "T", "I", sections).read_bytes() for name in ("a.html", "b.html"))
    assert one == two


def test_build_report__refuses_outside_loads_and_size_and_keeps_the_old_page(sections, tmp_path):
    path = build_report(tmp_path / "r.html", "T", "I", sections)
    before = path.read_bytes()
    spy = Figure('<svg xmlns="http://www.w3.org/2000/svg"><image href="https://example.org/a.png"/></svg>', "spy")
    with pytest.raises(ValueError, match="load from outside"):
        build_report(path, "T", "I", [Section("S", figures=[spy])])
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1000, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="more than 5 MB"):
        build_report(path, "T", "I", [Section("S", figures=[Figure(png(noise), "noise")])])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_page_link__is_the_only_link_that_leaves_a_page(tmp_path):
    """A page below may be linked; the same address anywhere else, or any other address, is refused."""
    link = PageLink("evaluation/some-run_1/report.html", "All of <it>")
    text = build_report(tmp_path / "r.html", "T", "I", [Section("S", "One.", pages=[link])]).read_text()
    assert Reader(text).loads == [link.path]
    assert '<a class="page" href="evaluation/some-run_1/report.html">All of &lt;it&gt;</a>' in text
    for markup in (f'<image href="{link.path}"/>', f'<a class="page" href="{link.path}" ping="//a.b"></a>',
                   '<a class="page" href="https://example.org/r.html"></a>'):  # fmt: skip
        drawing = Figure(f'<svg xmlns="http://www.w3.org/2000/svg">{markup}</svg>', "spy")
        with pytest.raises(ValueError, match="load from outside"):
            build_report(tmp_path / "r.html", "T", "I", [Section("S", figures=[drawing])])


@pytest.mark.parametrize(
    "path",
    ["https://example.org/r.html", "//example.org/r.html", "/tmp/r.html", "../r.html", "a/../r.html", "r.htm",
     "r.html#x", "javascript:x.html", "a b.html", 'a".html', "r.html\n", ""],
)  # fmt: skip
def test_page_link__goes_down_to_a_page_only(path):
    with pytest.raises(ValueError, match="expected the relative path of a page below"):
        PageLink(path, "more")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PageLink("a.html", " "), "no text"),
        (lambda: Figure("<svg/>", " "), "no alt text"),
        (lambda: Figure("hello", "x"), "SVG markup"),
        (lambda: Figure(b"GIF89a", "x"), "PNG"),
        (lambda: Table(["a", "b"], [["1"]], "T"), "row 0 has not 2 cells"),
    ],
)
def test_parts__are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_paragraphs__escape_everything_but_code():
    assert paragraphs("a <i> `x<y`\n\n b") == "<p>a &lt;i&gt; <code>x&lt;y</code></p><p>b</p>"


def test_arm_styles__same_arm_same_look_and_no_two_alike():
    arms = ["supervised from scratch", "ECG MAE", "aligned without MAE", "MAE + aligned", "CMR encoder", "sim + real"]
    styles = arm_styles(arms)
    assert styles["MAE + aligned"] == BOTH
    assert styles["CMR encoder"] == CEILING
    assert len({(s.color, s.marker, s.dash) for s in styles.values()}) == len(arms)
    assert arm_styles(arms[::-1])["ECG MAE"] == styles["ECG MAE"]
    assert len({s.color for s in styles.values()}) == len({s.marker + s.dash for s in styles.values()}) == len(arms)


def test_arm_styles__contrast_on_white_is_at_least_three():
    """WCAG 2 non-text contrast."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for style in arm_styles(["scratch", "MAE", "aligned without MAE", "MAE + aligned", "CMR", "x", "y", "z"]).values():
        assert 1.05 / (luminance(style.color) + 0.05) >= 3, style


def test_svg__label_is_the_alt_text():
    assert 'aria-label="what"' in str(Svg(1, 1, "what"))


def test_figure__is_saved_on_white_and_drawn_in_notebooks(tmp_path):
    svg = Svg(200, 100, "A line.")
    svg.line((0, 0), (200, 100))
    figure = Figure(str(svg), "A line.")
    text = figure.save(tmp_path / "line.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") == "-4 -4 208 108"
    assert root[0].get("fill") == "#fff"
    assert figure._repr_png_() is None
    assert ElementTree.fromstring(figure._repr_svg_()).get("aria-label") == "A line."
    with pytest.raises(ValueError, match=r"line.png: this figure is written as .svg"):
        figure.save(tmp_path / "line.png")
    gray = Figure(png(np.zeros((2, 2), np.uint8)), "Gray.")
    assert gray.save(tmp_path / "gray.png").read_bytes() == gray._repr_png_() == gray.content
    assert gray._repr_svg_() is None
    assert {path.name for path in tmp_path.iterdir()} == {"line.svg", "gray.png"}


def test_markup__ids_of_two_figures_differ():
    trace = EcgRecording(np.zeros((12, 500)), 100.0, LEADS)
    paper = ecg_paper(trace)
    ids = [set(re.findall(r'id="([^"]+)"', paper.markup(name))) for name in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]
