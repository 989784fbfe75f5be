import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.neighbours import (
    Gallery,
    build_gallery,
    find_neighbours,
    fit_prototypes,
    interval_coverage,
    interval_factors,
    nearest,
    regress,
    report_neighbours,
)


def vectors(n, d=6, seed=0):
    z = np.random.default_rng(seed).normal(size=(n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@given(st.integers(1, 400), st.integers(1, 12), st.integers(0, 1000), st.sampled_from([1, 900, 10**7]))
def test_nearest__equals_sorting_everything_for_any_block(n, k, seed, block_bytes):
    q, v = vectors(5, seed=seed), vectors(n, seed=seed + 1)
    v[n // 2] = v[0]  # a tie: the first row wins
    found = nearest(q, 3 * v, k, block_bytes=block_bytes)
    distance = np.linalg.norm(q[:, None] - v.astype(np.float32).astype(float)[None], axis=2)
    order = np.argsort(np.round(distance, 6), axis=1, kind="stable")[:, :k]
    assert (found.rows[:, : order.shape[1]] == order).mean() > 0.99
    assert np.allclose(found.distances[:, : order.shape[1]], np.take_along_axis(distance, order, 1), atol=1e-6)
    assert (found.rows[:, order.shape[1] :] == -1).all()


def test_nearest__large_gallery_takes_the_bound_and_is_exact():
    q, v = vectors(20, 16, 3), vectors(20_000, 16, 4)
    found = nearest(q, v, 7)
    assert (found.rows == np.argsort(-(q @ v.T), axis=1)[:, :7]).all()


def test_nearest__leaves_the_own_subject_out():
    v = vectors(60)
    subjects = np.repeat(np.arange(20), 3)
    found = nearest(v, v, 5, subjects, subjects)
    assert not (subjects[found.rows] == subjects[:, None]).any()
    assert (nearest(v, v, 1).rows[:, 0] == np.arange(60)).all()
    stranger = nearest(v[:1], v, 1, [-1], subjects)  # -1 is nobody, and nobody is left out
    assert stranger.rows[0, 0] == 0
    few = nearest(v[:1], v[:4], 4, [0], subjects[:4])
    assert few.rows[0].tolist() == [3, -1, -1, -1]
    assert np.isnan(few.cosines[0, 1:]).all()


@pytest.mark.parametrize("weighting", ["distance", "uniform"])
def test_regress__equals_scikit_learn(weighting):
    v, q = vectors(200), vectors(40, seed=9)
    y = np.random.default_rng(1).normal(size=(200, 3))
    told = regress(nearest(q, v, 11), y, weighting)
    theirs = KNeighborsRegressor(11, weights=weighting).fit(v, y).predict(q)
    assert np.allclose(told.values, theirs, atol=1e-6)


def test_regress__twins_missing_labels_and_spread():
    v = vectors(30)
    y = np.stack([np.arange(30.0), np.full(30, np.nan)], axis=1)
    near = nearest(v[:1], v, 5)
    told = regress(near, y)
    assert told.values[0, 0] == pytest.approx(0.0)  # its own vector has distance 0 and alone counts
    assert told.spread[0, 0] == pytest.approx(0.1 * y[:, 0].std())  # but twins do not make it certain
    assert np.isnan(told.values[0, 1])
    assert told.n_neighbours[0].tolist() == [5, 0]
    y[near.rows[0, 0], 0] = np.nan
    other = regress(nearest(v[:1], v, 5), y, "uniform")
    assert other.values[0, 0] == pytest.approx(y[near.rows[0, 1:], 0].mean())


def test_interval_factors__cover_new_subjects():
    rng = np.random.default_rng(5)
    v = vectors(4000, 4)
    y = (30 * v[:, :1] + (5 + 5 * (v[:, 1:2] > 0)) * rng.normal(size=(4000, 1))) + 100
    told = regress(nearest(v[2000:], v[:2000], 20), y[:2000])
    half = slice(0, 1000)
    first = type(told)(told.values[half], told.spread[half], told.n_neighbours[half])
    factor = interval_factors(first, y[2000:3000], 0.9)
    inside = np.abs(y[3000:] - told.values[1000:]) <= factor * told.spread[1000:]
    assert inside.mean() == pytest.approx(0.9, abs=0.03)
    few = type(told)(told.values[:5], told.spread[:5], told.n_neighbours[:5])
    assert np.isnan(interval_factors(few, y[2000:2005], 0.9)).all()


def test_prototypes__binary_calibration_is_logistic_regression_on_the_difference():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 500).astype(float)
    z = rng.normal(size=(500, 8))
    z[:, 0] += 0.8 * y
    made = fit_prototypes(z[:250], y[:250])
    assert made.names == ("0", "1")
    known = y[250:].copy()
    known[:10] = np.nan
    fitted = made.calibrate(z[250:], known)
    cosines = made.cosines(z[250:])
    difference = (cosines[:, 1] - cosines[:, 0])[10:, None]
    theirs = LogisticRegression(C=1e8, tol=1e-10, max_iter=5000).fit(difference, y[260:])
    assert fitted.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    assert fitted.probabilities(z[260:])[:, 1] == pytest.approx(theirs.predict_proba(difference)[:, 1], abs=1e-4)
    assert (made.choose(z[:250]) == y[:250]).mean() > 0.6


def test_prototypes__words_as_classes_and_what_is_refused():
    z = np.eye(3).repeat(4, axis=0) + 0.01
    artery = np.array(["LAD"] * 4 + ["RCA"] * 4 + ["", None, "LCX", "LCX"], dtype=object)
    made = fit_prototypes(z, artery)
    assert made.names == ("LAD", "LCX", "RCA")
    assert made.counts == (4, 2, 4)
    with pytest.raises(ValueError, match="call calibrate"):
        made.probabilities(z)
    with pytest.raises(ValueError, match="no validation subject of class LCX"):
        made.calibrate(z[:8], artery[:8])
    with pytest.raises(ValueError, match="at least two classes"):
        fit_prototypes(z, np.ones(12))
    with pytest.raises(ValueError, match="no subject of class 1"):
        fit_prototypes(z, np.zeros(12), names=("0", "1"))
    with pytest.raises(ValueError, match="'QRS' is none of"):
        made.calibrate(z[:1], ["QRS"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest(np.zeros((1, 3)), vectors(4, 3)), "zero or not finite"),
        (lambda: nearest(vectors(1, 4), vectors(4, 3)), "not of one model"),
        (lambda: nearest(vectors(1), vectors(4), 0), "k is 0"),
        (lambda: nearest(vectors(1), vectors(4), 1, [0]), "not the subjects of the gallery"),
        (lambda: nearest(vectors(1), vectors(0)), "at least one of each"),
        (lambda: regress(nearest(vectors(1), vectors(4), 1), np.zeros((4, 1)), "far"), "weighting is 'far'"),
        (lambda: regress(nearest(vectors(1), vectors(400), 400), np.zeros((4, 1))), "not those of the gallery"),
    ],
)
def test_neighbours__bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def gallery(small_model, tiny_cohort):
    return build_gallery(small_model["both"], Cohort.open(tiny_cohort), labels=["LVM", "LVEDV", "mi"], k=3)


def test_gallery__survives_the_disk_and_says_what_it_is(gallery, small_model, tmp_path):
    again = Gallery.load(gallery.save(tmp_path / "g"), small_model["both"])
    assert np.array_equal(again.vectors, gallery.vectors)
    assert again.items.equals(gallery.items)
    # NaN is written as null and comes back as NaN
    assert repr(again.about) == repr(gallery.about)
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == [
        "gallery.json", "items.parquet", "vectors.safetensors",
    ]  # fmt: skip
    assert again.about.part == "default/train"
    assert again.about.space == "shared"
    assert {row.metric for row in again.about.measured} == {"r2", "auroc"}


def test_gallery__embeds_what_the_model_embeds(gallery, small_model, tiny_cohort):
    cohort, model = Cohort.open(tiny_cohort), small_model["both"]
    row = gallery.items.iloc[2]
    assert int(cohort.studies["subject"][int(row["row"])]) == int(row["subject"])
    own = model.project(model.embed_cmr(cohort.cine(int(row["row"]))), "cmr")
    assert np.allclose(gallery.vectors[2], own[0], atol=1e-5)
    assert row["LVM"] == cohort.labels.loc[int(row["subject"]), "LVM"]


def test_gallery__refuses_another_model_and_changed_files(gallery, small_model, tmp_path):
    folder = gallery.save(tmp_path / "g")
    with pytest.raises(ValueError, match=r"made with both .* the model is other .* not comparable"):
        Gallery.load(folder, small_model["other"])
    with pytest.raises(ValueError, match="not comparable"):
        find_neighbours(small_model["other"], np.zeros((12, 10)), gallery)
    about = json.loads((folder / "gallery.json").read_text())
    (folder / "gallery.json").write_text(json.dumps({**about, "format_version": 9}))
    with pytest.raises(ValueError, match="format version 9"):
        Gallery.load(folder)
    (folder / "gallery.json").write_text(json.dumps({**about, "surprise": 1}))
    with pytest.raises(ValueError, match="surprise"):
        Gallery.load(folder)
    (folder / "gallery.json").write_text("{}")
    with pytest.raises(ValueError, match="not the description of a gallery"):
        Gallery.load(folder)
    (folder / "gallery.json").write_text(json.dumps(about))
    (folder / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"items.parquet is not the file that was written"):
        Gallery.load(folder)
    (folder / "items.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"items.parquet missing.*gallery build"):
        Gallery.load(folder)
    (folder / "note.txt").write_text("x")
    with pytest.raises(ValueError, match=r"note.txt, which would be lost"):
        gallery.save(folder)


def test_gallery__of_ecgs_without_projections_and_what_is_refused(small_model, tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    made = build_gallery(small_model["ecg_only"], cohort, "ecg", part="all", labels=["LVM"], k=2)
    assert made.about.space == "embedding"
    assert "left out of its search" in made.about.measured_on
    recording = cohort.recording(4)
    with_own = find_neighbours(small_model["ecg_only"], recording, made)
    own = int(cohort.recordings["subject"][4])
    assert int(with_own.neighbours["subject"][0]) == own
    assert with_own.neighbours["cosine"][0] == pytest.approx(1.0, abs=1e-5)
    without = find_neighbours(small_model["ecg_only"], recording, made, subject=own)
    assert own not in set(without.neighbours["subject"])
    for arguments, message in [
        ({"modality": "cmr"}, "have no 'cmr'"),
        ({"modality": "ecg", "part": "some"}, "part is 'some'"),
        ({"modality": "ecg", "labels": ["LVX"]}, "no measurement or diagnosis 'LVX'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_gallery(small_model["ecg_only"], cohort, **arguments)


def test_report_neighbours__intervals_hold_for_the_measured_k_alone(gallery):
    queries = vectors(2, gallery.vectors.shape[1])
    report = report_neighbours(queries, gallery)
    lvm = report.estimates[report.estimates["label"] == "LVM"].iloc[0]
    near = report.neighbours[report.neighbours["query"] == 0]
    weights = 1 / np.sqrt(2 - 2 * near["cosine"])
    assert lvm["value"] == pytest.approx(np.average(near["LVM"], weights=weights), rel=1e-4)
    other = report_neighbours(queries, gallery, k=2)
    assert other.estimates["measured"].isna().all()
    assert other.estimates["lo"].isna().all()
    told = regress(report.found, gallery.values())
    coverage = interval_coverage(gallery, told, np.full((2, 3), 1e9))
    assert all(share == 0.0 for share, _ in coverage.values())
