"""The page of an evaluation: complete, self-contained, honest about what could not be measured."""

import json
import re
import shutil

import pytest
from test_page import Reader

from ecgcmr.evaluation import read_evaluation
from ecgcmr.report.evaluation_page import write_evaluation_report
from ecgcmr.report.evaluation_results import estimate, headlines
from ecgcmr.report.page import MAX_BYTES, Section
from ecgcmr.report.palette import DARK


@pytest.fixture(scope="module")
def pages(evaluations):
    folders = {name: evaluations / f"out_{name}" for name in ("w", "hf", "bare")}
    return {name: (folder, write_evaluation_report(folder).read_text()) for name, folder in folders.items()}


def words(html):
    """What a reader reads, without style and tags."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def titles(html):
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_page__has_all_sections_in_order_and_every_link_leads_somewhere(pages):
    assert titles(pages["w"][1]) == [
        "Model and data", "Who was evaluated", "Results", "What the recording adds", "Measurements", "Diagnoses",
        "Map of the embeddings", "Groups", "Limits", "Reporting items (TRIPOD+AI)", "All numbers", "What was run",
    ]  # fmt: skip
    assert "Incident outcomes" in titles(pages["hf"][1])
    for _, html in pages.values():
        reader = Reader(html)
        assert not reader.stack
        assert len(set(reader.ids)) == len(reader.ids)
        assert not reader.unnamed
        assert reader.loads
        assert {link[1:] for link in reader.loads if link.startswith("#")} <= set(reader.ids)
        assert all(link.startswith(("#", "data:image/")) for link in reader.loads)
        assert not re.search(r"<script|<link|<iframe|https?://(?!www\.w3\.org)", html)
        assert len(html.encode()) < MAX_BYTES
        assert words(html).count("not a medical device") == 1
        assert "10.1136/bmj-2023-078378" in html
        assert not re.search(r"\bnan\b|\bNone\b(?! of)|undefined", words(html))


def test_page__numbers_are_those_of_the_files(pages, evaluations):
    folder, html = pages["w"]
    found = read_evaluation(folder)
    for target, metric in (("mass", "r2"), ("old_mi", "auroc")):
        for arm in found.about["arms"].values():
            assert estimate(found, target, metric, arm).text() in html
    both, base = found.arm("both"), found.arm("covariates")
    added = estimate(found, "mass", "r2_diff", both, base)
    card = headlines(found)[0]
    assert card.label == f"mass: {both} beats {base}"
    assert card.value == f"+{added.value:.2f} R²"
    gap = next(r for r in found.audit if r["level"] == "gap" and r["metric"] == "mae" and r["attribute"] == "sex")
    assert f"Gap {gap['value']:.2f}; of shuffled groups {gap['null_gap']:.2f}" in html
    last = found.about["flow"][-1]
    assert f"test {last['parts']['test']}" in html  # told in the words that describe the flow diagram
    assert "1 without a kept ECG" in html


def test_page__says_what_could_not_be_measured(pages):
    text = words(pages["w"][1])
    assert "no test subject has a label" in text
    assert "one class only: 0 of" in text
    assert "fewer than 10, so not reported" in text
    assert "one_class is not drawn: fewer than 10 of the rarer class" in text
    text = words(pages["hf"][1])
    assert re.search(r"none of \d+ had the event: nothing to compare", text)
    assert "its baseline hazard comes from" in text


def test_page__of_a_cohort_that_knows_nothing_of_its_subjects(pages):
    text = words(pages["bare"][1])
    assert "There is nothing to compare with" in text
    assert "No group column is known in this cohort" in text


def test_page__names_are_text_and_not_markup(pages):
    folder, html = pages["w"]
    assert "w&lt;b&gt;" in html
    assert "w<b>" not in html
    about = json.loads((folder / "evaluation.json").read_text())
    assert about["weights"]["name"] == "w<b>"


def test_page__extra_sections_stand_before_the_groups(evaluations, tmp_path):
    folder = shutil.copytree(evaluations / "out_w", tmp_path / "out")
    html = write_evaluation_report(folder, [Section("Explanations", "Where the model looked.")]).read_text()
    order = titles(html)
    assert order.index("Explanations") == order.index("Groups") - 1
    assert 'href="#explanations"' in html


def test_page__without_a_single_number(evaluations, tmp_path):
    """What three test subjects give: remarks, and no figure of nothing."""
    folder = shutil.copytree(evaluations / "out_w", tmp_path / "out")
    rows = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps([row | {"value": None, "lo": None, "hi": None} for row in rows]))
    (folder / "audit.json").write_text("[]")
    html = write_evaluation_report(folder).read_text()
    assert "Results" in titles(html)
    assert "Measurements" not in titles(html)
    assert not Reader(html).stack


def test_page__is_light_and_dark_and_prints(pages):
    style = re.search(r"<style>(.*?)</style>", pages["w"][1], re.DOTALL).group(1)
    assert "@media screen and (prefers-color-scheme: dark)" in style
    assert "@media print" in style
    for light, dark in DARK.items():
        assert f'[stroke="{light}"]' in style
        assert contrast(dark, "#12161b") > (3 if light not in ("#dde3ea", "#e8ecf1", "#fdecd2") else 1.1), dark


def test_page__refuses_an_unfinished_or_broken_evaluation(evaluations, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished evaluation here"):
        write_evaluation_report(tmp_path)
    folder = shutil.copytree(evaluations / "out_w", tmp_path / "out")
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json: not valid JSON"):
        write_evaluation_report(folder)
    (folder / "evaluation.json").write_text('{"format_version": 99}')
    with pytest.raises(ValueError, match="expected an evaluation of format 1"):
        write_evaluation_report(folder)
    shutil.copy(evaluations / "out_w" / "evaluation.json", folder)
    (folder / "embeddings.npz").write_bytes(b"half")  # the map is left out, the page is written
    assert "Map of the embeddings" not in titles(write_evaluation_report(folder).read_text())


def contrast(first, second):
    """Contrast ratio of two colors (WCAG 2.1)."""

    def light(color):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)
