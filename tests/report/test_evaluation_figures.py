"""Figures of the evaluation page: what they draw is right, and lies within the drawing."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import precision_recall_curve, roc_curve
from test_figures import inside

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.decision import decision_curve
from ecgcmr.evaluation.kaplan_meier import Strata, predicted_strata
from ecgcmr.evaluation.survival import Survival, make_survival_predictions
from ecgcmr.report.agreement import bland_altman_figure
from ecgcmr.report.audit_sections import _rising, audit_section
from ecgcmr.report.decision_figure import decision_figure
from ecgcmr.report.discrimination import _rates, precision_recall_figure, roc_figure
from ecgcmr.report.embedding_map import STEPS, embedding_map, principal_map
from ecgcmr.report.flow_figure import flow_figure
from ecgcmr.report.forest import Estimate, ForestRow, forest_figure
from ecgcmr.report.palette import BOTH, SCRATCH
from ecgcmr.report.survival_figures import _observed, _stairs, horizon_calibration_figure, kaplan_meier_figure

STYLES = {"ECG": BOTH, "age": SCRATCH}
RNG = np.random.default_rng(0)


def labels(n=400):
    score = RNG.normal(size=n).round(1)  # with ties
    return (RNG.random(n) < 1 / (1 + np.exp(-score))).astype(float), 1 / (1 + np.exp(-score))


def test_rates__are_those_of_scikit_learn():
    truth, score = labels()
    false, true, precision = _rates(truth, score)
    theirs = roc_curve(truth, score, drop_intermediate=False)
    assert false == pytest.approx(theirs[0])
    assert true == pytest.approx(theirs[1])
    theirs = precision_recall_curve(truth, score)
    assert precision[1:] == pytest.approx(theirs[0][-2::-1])
    assert true[1:] == pytest.approx(theirs[1][-2::-1])
    with pytest.raises(ValueError, match="needs both classes"):
        _rates(np.zeros(5), np.arange(5.0))


def test_roc_and_precision_recall__stay_inside_and_tell_their_value():
    truth, score = labels(2000)
    columns = {"ECG": (truth, score + RNG.normal(0, 1e-3, 2000)), "age": (truth, score)}
    for make in (roc_figure, precision_recall_figure):
        figure = make(columns, STYLES, "MI", {"ECG": 0.71, "age": float("nan")})
        inside(figure)
        assert "ECG 0.71" in figure.alt
        assert "age" not in figure.alt
        longest = max(len(re.findall(r"[ML]", d)) for d in re.findall(r' d="([^"]+)"', figure.content))
        assert 100 < longest <= 201


def test_forest__draws_intervals_a_floor_and_what_is_missing():
    rows = [
        ForestRow("LVEDV", {"ECG": Estimate(0.5, 0.4, 0.6), "age": Estimate(np.nan, np.nan, np.nan)}),
        ForestRow("a very long name", {"ECG": Estimate(-3.0, -9.0, -0.1), "age": Estimate(0.1, np.nan, np.nan)}),
    ]
    figure = forest_figure(rows, STYLES, "R²", "R²", 0.0, floor=-0.5)
    inside(figure)
    assert "0.50 [0.40, 0.60]" in figure.content
    assert "−3.00 [−9.00, −0.10]" in figure.content  # numbers are not cut by the floor
    assert "0.10 [not estimable]" in figure.content
    assert ">–<" in figure.content
    with pytest.raises(ValueError, match="no value to draw"):
        forest_figure([ForestRow("x", {"ECG": Estimate(*[float("nan")] * 3)})], STYLES, "R²", "R²")


def test_flow__shows_every_loss_and_the_parts():
    flow = [
        {"stage": "ECG files seen", "n": 1204, "of": "recordings", "lost": [{"why": "shorter than 1 second", "n": 4}]},
        {"stage": "with an ECG", "n": 1200, "of": "subjects", "lost": [{"why": "a reason " * 30, "n": 100}],
         "parts": {"train": 800, "val": 100, "test": 200}, "targets": {"LVEDV": 190, "LVM": 17}},
    ]  # fmt: skip
    figure = flow_figure(flow)
    inside(figure)
    for text in ("1,204 recordings", "4 shorter than 1 second", "LVEDV: 190", ">validation<"):
        assert text in figure.content
    many = flow_figure([flow[1] | {"lost": [], "targets": {f"t{k}": 100 + k for k in range(20)}}])
    assert "20 targets:" in many.content
    assert "100 to 119" in many.content
    with pytest.raises(ValueError, match="at least one stage"):
        flow_figure([])


def test_bland_altman__draws_a_share_of_many_points_and_all_lines():
    truth = RNG.normal(150, 30, 3000)
    prediction = truth + RNG.normal(5, 10, 3000)
    lines = (Estimate(-14.6, -15, -14), Estimate(5.0, 4.6, 5.4), Estimate(24.6, 24, 25))
    figure = bland_altman_figure(truth, prediction, lines, BOTH, "LVEDV", "ml")
    inside(figure)
    assert figure.content.count("<circle") == 600
    assert "600 of 3,000 pairs drawn" in figure.caption
    assert "−14.6" in figure.content
    assert "bias 5.0 [4.6, 5.4]" in figure.alt


def test_principal_map__is_that_of_scikit_learn():
    x = RNG.normal(size=(200, 8)) @ RNG.normal(size=(8, 8))
    places, shares = principal_map(x)
    pca = PCA(2).fit(x)
    assert np.abs(places) == pytest.approx(np.abs(pca.transform(x)))
    assert shares == pytest.approx(pca.explained_variance_ratio_)
    assert np.array_equal(places, principal_map(x)[0])
    with pytest.raises(ValueError, match="at least three"):
        principal_map(x[:2])
    with pytest.raises(ValueError, match="all embeddings are the same"):
        principal_map(np.ones((5, 3)))
    assert principal_map(np.arange(5.0)[:, None])[0].shape == (5, 2)


def test_embedding_map__colors_follow_the_values():
    places = RNG.normal(size=(50, 2))
    values = np.linspace(0, 1, 50)
    values[7] = np.nan
    figure = embedding_map(places, values, "LVEDV [ml]", False, (0.6, 0.2))
    inside(figure)
    assert {STEPS[0], STEPS[-1]} <= set(re.findall(r'fill="(#[0-9a-f]{6})"', figure.content))
    assert "60% of the variance" in figure.caption
    inside(embedding_map(places, (values > 0.5) * 1.0, "MI", True, (0.6, 0.2)))


def follow_up(n=300):
    score = RNG.normal(size=n)
    years, lost = RNG.exponential(8 * np.exp(-score)), RNG.uniform(1, 10, n)
    time, event = np.minimum(years, lost), (years <= lost) * 1.0
    split = ["val"] * (n // 3) + ["test"] * (n - n // 3)
    return make_survival_predictions(np.arange(n), ["hf"], (time, event, score), split), (time, event, score)


def test_kaplan_meier__steps_and_numbers_at_risk():
    table, _ = follow_up()
    draws = draw_subjects(table[table["split"] == "test"]["subject"], 50, RNG)
    strata = predicted_strata(table, "hf", draws, (1.0, 2.0, 4.0, 6.0))
    figure = kaplan_meier_figure(strata, "hf", "years")
    inside(figure)
    sizes = strata.curves.drop_duplicates("stratum")["n_subjects"]
    for n in sizes:
        assert f">{n}</text>" in figure.content
    assert "Cut at the scores of validation subjects" in figure.caption
    t, value = _stairs(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.1, 0.4]))
    assert t.tolist() == [0, 1, 1, 3, 3]
    assert value.tolist() == [0, 0, 0.1, 0.1, 0.4]


def test_kaplan_meier__of_nobody_with_an_event_is_a_flat_line():
    curves = pd.DataFrame(
        [(s, 20, 0, t, 20, 1.0, 1.0, 1.0) for s in (1, 2) for t in (1.0, 2.0)],
        columns=["stratum", "n_subjects", "n_events", "time", "at_risk", "survival", "lo", "hi"],
    )
    nothing = type("Test", (), {"p": float("nan")})()
    inside(kaplan_meier_figure(Strata(curves, np.zeros(1), "val", nothing), "hf", "years"))


def test_horizon_calibration__without_censoring_is_the_share_of_events():
    n = 500
    risk = RNG.uniform(0.05, 0.9, n)
    event_time = RNG.exponential(-4 / np.log(1 - risk))  # P(event by 4) = risk
    data = Survival(event_time, np.ones(n), risk, np.arange(n), np.stack([risk, risk], 1), (4.0, 5.0))
    predicted, observed = _observed(data, 4.0, 5)
    edges = np.quantile(risk, [0, 0.2, 0.4, 0.6, 0.8, 1])
    for k in range(5):
        inside_bin = (risk >= edges[k]) & (risk <= edges[k + 1])
        assert predicted[k] == pytest.approx(risk[inside_bin].mean(), abs=0.01)
        assert observed[k] == pytest.approx((event_time[inside_bin] <= 4).mean(), abs=0.02)
    inside(horizon_calibration_figure({"ECG": data}, 4.0, STYLES, "hf"))
    with pytest.raises(ValueError, match="no probability by 3"):
        horizon_calibration_figure({"ECG": data}, 3.0, STYLES, "hf")


def test_decision_figure__stays_inside():
    truth, risk = labels()
    draws = draw_subjects(np.arange(400), 20, RNG)
    curves = {arm: decision_curve((truth, risk), np.arange(400), draws, (0.1, 0.3, 0.5, 0.7)) for arm in STYLES}
    figure = decision_figure(curves, STYLES, "MI")
    inside(figure)
    assert "Net benefit at the threshold 0.5" in figure.alt


def test_audit_section__orders_levels_and_draws_what_is_wide():
    assert sorted([">=75", "45-54", "unknown", "<45"], key=_rising) == ["<45", "45-54", ">=75", "unknown"]
    about = {"arms": {"model": "ECG"}, "groups_left_out": {"scanner": "all subjects have one level"}}
    blank = {"n_items": 50, "prevalence": 0.1, "null_gap": None, "p": None, "q": None, "flags": ""}
    rows = [
        blank | {"target": "MI", "attribute": "sex", "level": level, "n_subjects": 50, "metric": metric, "value": value,
                 "lo": value - 0.1, "hi": value + 0.1}
        for metric in ("auroc", "sensitivity") for level, value in (("f", 0.8), ("m", 0.6))
    ]  # fmt: skip
    rows.append(rows[0] | {"level": "tiny", "value": None, "lo": None, "hi": None, "flags": "not reported"})
    for metric, q in (("auroc", 0.5), ("sensitivity", 0.01)):
        gap = {"level": "gap", "metric": metric, "value": 0.2, "lo": 0.1, "hi": 0.3, "null_gap": 0.05, "p": q, "q": q}
        rows.append(rows[0] | gap)
    section = audit_section(rows, about, BOTH)
    assert [figure.title for figure in section.figures] == ["MI by sex", "MI by sex"]
    assert "1 of 2 gaps have q below 0.05: Sensitivity of MI by sex." in section.text
    assert "`scanner` (all subjects have one level)" in section.text
    assert "1 level not shown" in section.figures[1].caption
    for figure in section.figures:
        inside(figure)
    assert "None of 1 gaps" in audit_section([row for row in rows if row["metric"] == "auroc"], about, BOTH).text
