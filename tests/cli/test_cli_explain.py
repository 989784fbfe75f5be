"""`ecgcmr explain`, `gallery build` and `neighbours`, from files to files."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.explain import load_explanation
from ecgcmr.evaluation.neighbours import Gallery

MODEL = "ecg_nano_aligned"
RESEARCH = "Research software, not a medical device."


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def file(tiny_cohort, tmp_path_factory) -> Path:
    recording = Cohort.open(tiny_cohort).recording(2)
    path = tmp_path_factory.mktemp("one") / "one.npz"
    np.savez(path, ecg=recording.samples, rate_hz=recording.rate_hz, leads=np.array(recording.leads), unit="mV")
    return path


@pytest.fixture(scope="module")
def gallery(tiny_cohort, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    done = run("gallery", "build", "--model", MODEL, "--cohort", tiny_cohort, "--out", folder, "--k", 3,
               "--labels", "LVM,LVEDV,mi")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "17 cmr vectors written" in done.output
    return folder


def test_explain__writes_one_self_contained_page(file, tmp_path):
    pytest.importorskip("captum")
    page, numbers = tmp_path / "explanation.html", tmp_path / "e.npz"
    done = run("explain", file, "--model", MODEL, "--target", "LVM", "--method", "ig", "--out", page, "--npz", numbers)
    assert done.exit_code == 0, done.output
    html = page.read_text()
    assert html.count(RESEARCH) == 1
    assert "<script" not in html
    assert "Explanation: LVM" in html
    assert "LVM: waves by lead" in html or "Not by wave" in html
    found = load_explanation(numbers)
    assert found.unit == "g"
    assert f"{found.by_lead()['V1']:.4g}" in done.output


def test_explain__with_healthy_references_and_by_lead(file, tiny_cohort, tmp_path):
    page = tmp_path / "e.html"
    done = run("explain", file, "--model", MODEL, "--target", "mi", "--method", "occlusion", "--by", "lead",
               "--references", tiny_cohort, "--out", page)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert re.search(r"exchanged with that of \d+ healthy subjects", page.read_text())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--target", "LVX"], "no output 'LVX'; choose one of LVEDV"),
        (["--target", "mi", "--method", "gradcam"], "needs a study: give the cine"),
        (["--target", "mi", "--method", "lime"], "unknown method 'lime'"),
        (["--method", "localisation"], "needs a study"),
        (["--target", "mi", "--side", "left"], "side is 'left'"),
    ],
)
def test_explain__one_clear_line(file, tmp_path, more, message):
    done = run("explain", file, "--model", MODEL, "--out", tmp_path / "e.html", *more)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert not (tmp_path / "e.html").exists()


def test_explain__a_file_that_is_not_there(tmp_path):
    done = run("explain", tmp_path / "no.hea", "--model", MODEL, "--target", "mi", "--out", tmp_path / "e.html")
    assert done.exit_code == 2
    assert "no.hea" in done.output


def test_neighbours__prints_and_writes(file, gallery, tiny_cohort, tmp_path):
    page, table = tmp_path / "n.html", tmp_path / "n.csv"
    done = run("neighbours", file, "--gallery", gallery, "--subject", 2, "--cohort", tiny_cohort, "--out", page,
               "--table", table)  # fmt: skip
    assert done.exit_code == 0, done.output
    found = pd.read_csv(table)
    assert len(found) == 3
    assert 2 not in set(found["subject"])
    html = page.read_text()
    assert html.count(RESEARCH) == 1
    assert "prefers-reduced-motion" in html
    opened = Gallery.load(gallery)
    first = opened.items.set_index("subject").loc[int(found["subject"][0])]
    assert found["LVM"][0] == pytest.approx(first["LVM"])


def test_neighbours__another_models_gallery(file, gallery):
    done = run("neighbours", file, "--gallery", gallery, "--model", "ecg_tiny_aligned")
    assert done.exit_code == 2
    assert "not comparable" in done.output.replace("\n", " ")
    done = run("neighbours", file, "--gallery", gallery.parent)
    assert done.exit_code == 2
    assert "no gallery" in done.output.replace("\n", " ")


def test_gallery_build__of_a_model_without_cmr_tower(tiny_cohort, tmp_path):
    done = run("gallery", "build", "--model", "ecg_nano_mae", "--cohort", tiny_cohort, "--out", tmp_path / "g")
    assert done.exit_code == 2
    assert "have no 'cmr'" in done.output.replace("\n", " ")
    assert not (tmp_path / "g").exists()


def test_explain__the_cine_of_a_file_against_the_ecg(file, tiny_cohort, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("captum")
    cine = Cohort.open(tiny_cohort).cine(2)
    image = nibabel.Nifti1Image(np.asarray(cine.pixels, np.float32).transpose(3, 2, 0, 1), np.diag([1.8, 1.8, 8.0, 1]))
    nibabel.save(image, tmp_path / "sax.nii.gz")
    page = tmp_path / "e.html"
    for more, words in (
        (["--method", "gradcam", "--layer", "layer2"], "similarity with a given recording: Grad-CAM"),
        (["--method", "localisation"], "the whole study: cross-modal localisation"),
    ):
        done = run("explain", file, "--model", MODEL, "--cine", tmp_path / "sax.nii.gz", "--out", page, *more)
        assert done.exit_code == 0, done.output
        assert words in page.read_text()
    done = run("explain", file, "--model", MODEL, "--cine", tmp_path / "sax.nii.gz", "--out", page,
               "--side", "cmr", "--target", "mi")  # fmt: skip
    assert done.exit_code == 2
    assert "leave the target out" in done.output.replace("\n", " ")
