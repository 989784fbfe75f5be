"""Pipelines: the reference chain against independent arithmetic, its invariances, and the saved form."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, sparse
from scipy.sparse.linalg import spsolve

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import (
    MYOECG_CROPS,
    NAMED_PIPELINES,
    EcgPipeline,
    Step,
    myoecg_pipeline,
    named_pipeline,
)
from ecgcmr.ecg.recording import EcgRecording


def _ecg(n: int = 5000, rate: float = 500.0, seed: int = 0, rows: int = 12) -> np.ndarray:
    """Beats, wander and noise [mV], zero mean or nearly."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / rate
    phase = (t * 1.2 + 0.1) % 1.0
    x = rng.normal(0, 1, (rows, 1)) * np.exp(-0.5 * ((phase - 0.3) / 0.02) ** 2)
    x = x + rng.normal(0, 0.2, (rows, 1)) * np.sin(2 * np.pi * 0.2 * t + rng.uniform(0, 6, (rows, 1)))
    return (x + rng.normal(0, 0.02, (rows, n))).astype(np.float32)


def _recording(x: np.ndarray, rate: float = 500.0, unit: str = "mV", leads: tuple[str, ...] = LEADS) -> EcgRecording:
    return EcgRecording(x, rate, leads, unit)  # type: ignore[arg-type]


def _reference_arithmetic(x: np.ndarray) -> np.ndarray:
    """The chain as published, with a general sparse solver."""
    x = x.astype(np.float64)
    s = np.std(x)
    x = np.clip(x, -4 * s, 4 * s)
    n = x.shape[1]
    d = sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, -1, -2], shape=(n, n - 2))
    penalty = 1e7 * d @ d.T
    for row in x:
        w = np.ones(n)
        for _ in range(5):
            z = spsolve((sparse.diags_array(w) + penalty).tocsc(), w * row)
            w = 0.3 * (row > z) + 0.7 * (row < z)
        row -= z
    for group in (slice(0, 3), slice(3, 6), slice(6, 12)):
        x[group] = (x[group] - x[group].mean()) / np.sqrt(x[group].var() + 1e-12)
    return x


def test_reference__equals_the_published_arithmetic() -> None:
    x = _ecg()
    expected = _reference_arithmetic(x)
    np.testing.assert_allclose(named_pipeline("reference")(_recording(x)), expected, atol=2e-6)


def test_reference__each_group_has_mean_zero_and_variance_one() -> None:
    got = named_pipeline("reference")(_recording(_ecg())).astype(np.float64)
    for group in (got[0:3], got[3:6], got[6:12]):
        assert abs(group.mean()) < 1e-6
        assert group.var() == pytest.approx(1.0, abs=1e-5)
    assert max(abs(got.var(axis=1) - 1.0)) > 0.05  # the groups are standardised, not the leads


@settings(deadline=None, max_examples=10)
@given(st.floats(0.01, 100.0))
def test_reference__does_not_depend_on_the_gain(gain: float) -> None:
    x = _ecg(3000)
    pipeline = named_pipeline("reference")
    np.testing.assert_allclose(
        pipeline(_recording((gain * x.astype(np.float64)).astype(np.float32))), pipeline(_recording(x)), atol=1e-4
    )


def test_reference__depends_on_an_offset_and_on_the_order_of_leads() -> None:
    x = _ecg()
    pipeline = named_pipeline("reference")
    plain = pipeline(_recording(x))
    assert np.abs(pipeline(_recording(x + 1.0)) - plain).max() > 1e-2  # the clip is about zero
    order = [6, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11]
    assert np.abs(pipeline(_recording(x[order]))[order] - plain).max() > 1e-2


@pytest.mark.parametrize("name", NAMED_PIPELINES)
def test_call__finds_leads_by_name(name: str) -> None:
    x = _ecg()
    order = np.random.default_rng(1).permutation(12)
    pipeline = named_pipeline(name)
    shuffled = _recording(x[order], leads=tuple(LEADS[i].upper() for i in order))
    np.testing.assert_array_equal(pipeline(shuffled), pipeline(_recording(x)))


@pytest.mark.parametrize("name", NAMED_PIPELINES)
def test_apply_batch__equals_single_recordings_with_any_number_of_workers(name: str) -> None:
    x = np.stack([_ecg(seed=i) for i in range(3)])
    pipeline = named_pipeline(name)
    batch = pipeline.apply_batch(x, 500.0)
    assert batch.shape == (3, 12, pipeline.n_samples)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, np.stack([pipeline(_recording(row)) for row in x]))
    np.testing.assert_array_equal(batch, pipeline.apply_batch(x, 500.0, workers=2))


@pytest.mark.parametrize("rate", [100.0, 250.0, 257.0, 360.0, 400.0, 500.0, 1000.0])
@pytest.mark.parametrize("seconds", [7.3, 10.0, 13.7])
def test_call__any_rate_and_length_gives_the_same_shape(rate: float, seconds: float) -> None:
    got = named_pipeline("highpass")(_recording(_ecg(round(seconds * rate), rate), rate))
    assert got.shape == (12, 1000)
    filled = round(min(seconds, 10.0) * 100)
    assert np.abs(got[:, : filled - 1]).min(axis=0).max() > 0
    np.testing.assert_array_equal(got[:, filled + 1 :], 0.0)


def test_highpass__keeps_voltage_and_removes_wander() -> None:
    x = _ecg()
    pipeline = named_pipeline("highpass")
    np.testing.assert_allclose(pipeline(_recording(2 * x)), 2 * pipeline(_recording(x)), atol=1e-5)
    t = np.arange(5000) / 500
    sine = np.tile(np.sin(2 * np.pi * 8 * t), (12, 1)) + 3.0 + 0.5 * np.sin(2 * np.pi * 0.05 * t)
    got = pipeline(_recording(sine.astype(np.float32)))
    expected = np.sin(2 * np.pi * 8 * np.arange(1000) / 100) / 0.5
    np.testing.assert_allclose(got[0, 200:800], expected[200:800], atol=0.03)


def test_highpass_z__takes_standardised_samples_and_forgets_voltage() -> None:
    x = _ecg()
    pipeline = named_pipeline("highpass_z")
    got = pipeline(_recording(x, unit="z"))
    np.testing.assert_allclose(got.std(axis=1), 1.0, atol=1e-4)
    gains = np.random.default_rng(0).uniform(0.5, 2, (12, 1)).astype(np.float32)
    np.testing.assert_allclose(pipeline(_recording(gains * x)), got, atol=1e-4)


@pytest.mark.parametrize("name", ["reference", "highpass", "highpass500"])
def test_call__refuses_lost_voltage(name: str) -> None:
    with pytest.raises(ValueError, match="needs voltages"):
        named_pipeline(name)(_recording(_ecg(), unit="z"))


@pytest.mark.parametrize("name", NAMED_PIPELINES)
def test_call__names_a_lead_without_finite_samples(name: str) -> None:
    x = _ecg()
    x[8] = np.nan
    with pytest.raises(ValueError, match="lead V3 has no finite sample"):
        named_pipeline(name)(_recording(x))
    x[11] = np.inf
    batch = np.stack([_ecg(), x])
    with pytest.raises(ValueError, match="recording 1 of the batch: leads V3, V6 have no finite sample"):
        named_pipeline(name).apply_batch(batch, 500.0)


@pytest.mark.parametrize("name", NAMED_PIPELINES)
def test_call__gaps_give_finite_output(name: str) -> None:
    x = _ecg()
    x[2, 100:180] = np.nan
    x[5, 0] = np.inf
    assert np.isfinite(named_pipeline(name)(_recording(x))).all()


def test_nan_to_zero__interpolates_or_zeroes_as_stated() -> None:
    x = np.tile(np.arange(1000, dtype=np.float32), (12, 1))
    gap = x.copy()
    gap[4, 300:500] = np.nan
    for partial, expected in (("interpolate", x[4, 300:500]), ("zero", 0.0)):
        steps = (
            Step("nan_to_zero", {"partial": partial}),
            Step("to_rate", {"hz": 100.0}),
            Step("fit_duration", {"seconds": 10.0}),
        )
        got = EcgPipeline("test", steps)(_recording(gap, 100.0))
        np.testing.assert_allclose(got[4, 300:500], expected)


def test_call__flat_leads_become_zero_not_nan() -> None:
    x = _ecg()
    x[3:5] = 0.7
    x[5] = 0.0
    for name in NAMED_PIPELINES:
        got = named_pipeline(name)(_recording(x))
        assert np.isfinite(got).all()
        assert np.abs(got[3:6, 300:700]).max() < 1e-2


def test_call__refuses_a_recording_that_would_be_mostly_zeros() -> None:
    with pytest.raises(ValueError, match=r"lasts 3 s; at least 5 s"):
        named_pipeline("highpass")(_recording(_ecg(1500)))


@pytest.mark.parametrize("name", NAMED_PIPELINES)
def test_from_dict__round_trip_through_json_computes_the_same(name: str) -> None:
    pipeline = named_pipeline(name)
    again = EcgPipeline.from_dict(json.loads(json.dumps(pipeline.to_dict())))
    assert again == pipeline
    assert again.fingerprint() == pipeline.fingerprint()
    np.testing.assert_array_equal(again(_recording(_ecg())), pipeline(_recording(_ecg())))


def test_fingerprint__is_stable_over_releases_and_differs_between_pipelines() -> None:
    # the keys of prepared arrays on users' disks: if this fails, raise PIPELINE_VERSION or restore the arithmetic
    assert named_pipeline("reference").fingerprint()[:16] == "64afe43d6dd30eb9"
    prints = {named_pipeline(name).fingerprint() for name in NAMED_PIPELINES}
    assert len(prints) == len(NAMED_PIPELINES)
    pipeline = named_pipeline("highpass")
    changed = replace(pipeline, steps=(*pipeline.steps[:-2], Step("scale_mv", {"unit_mv": 1.0}), pipeline.steps[-1]))
    assert changed.fingerprint() != pipeline.fingerprint()


def test_fingerprint__does_not_depend_on_the_order_of_parameters() -> None:
    data = named_pipeline("highpass").to_dict()
    data["steps"] = [dict(reversed(step.items())) for step in data["steps"]]
    assert EcgPipeline.from_dict(data).fingerprint() == named_pipeline("highpass").fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"rate_hz": 250.0}, "states rate_hz 250.0"),
        ({"leads": ["I"]}, "states leads"),
        ({"kind": "cmr"}, "kind 'ecg'"),
        ({"steps": [{"name": "to_rte", "hz": 100.0}]}, "unknown ECG preprocessing step 'to_rte'"),
        ({"steps": [{"name": "to_rate", "herz": 100.0}]}, "parameters of ECG preprocessing step 'to_rate'"),
        ({"steps": [{"name": "fit_duration", "seconds": 10.0}]}, "needs a to_rate step"),
    ],
)
def test_from_dict__refuses_what_it_cannot_repeat(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EcgPipeline.from_dict({**named_pipeline("highpass").to_dict(), **change})


def test_from_dict__names_missing_fields() -> None:
    with pytest.raises(ValueError, match="lacks requires_mv, steps"):
        EcgPipeline.from_dict({"name": "x", "version": 1})


def test_named_pipeline__notch_only_where_the_mains_are_in_the_band() -> None:
    t = np.arange(5000) / 500
    hum = np.tile(np.sin(2 * np.pi * 50 * t), (12, 1)).astype(np.float32)
    assert np.abs(named_pipeline("highpass500", mains_hz=50.0)(_recording(hum))[:, 1000:4000]).max() < 0.05
    with pytest.raises(ValueError, match="no place"):
        named_pipeline("highpass", mains_hz=50.0)
    with pytest.raises(ValueError, match="unknown ECG pipeline 'hipass'"):
        named_pipeline("hipass")


def _plain_myoecg(x: np.ndarray, rate: float, start: int) -> np.ndarray:
    """MyoECG's input written out with scipy: resample, crop, filter the crop, standardise it as a whole."""
    y = signal.resample(x.astype(np.float64), round(x.shape[1] * 250 / rate), axis=1)[:, start : start + 2250]
    y = signal.sosfiltfilt(signal.butter(5, 0.67, "highpass", fs=250, output="sos"), y)
    y = signal.sosfiltfilt(signal.butter(5, 40, "lowpass", fs=250, output="sos"), y)
    return (y - y.mean()) / y.std()


@pytest.mark.parametrize(("crop", "start"), [("start", 0), ("center", 125), ("end", 250)])
@pytest.mark.parametrize("rate", [250.0, 400.0, 500.0])
def test_myoecg_pipeline__equals_scipy_for_each_crop(crop: str, start: int, rate: float) -> None:
    x = _ecg(round(10 * rate), rate)
    got = myoecg_pipeline(crop)(_recording(x, rate))
    assert got.shape == (12, 2250)
    np.testing.assert_allclose(got, _plain_myoecg(x, rate, start), atol=2e-6)


def test_myoecg_pipeline__filters_the_crop_and_not_the_recording() -> None:
    x = _ecg()
    x += np.linspace(0, 3, 5000, dtype=np.float32)  # a drift makes the edges of the filters matter
    whole = myoecg_pipeline("start").steps
    order = [whole[0], whole[1], whole[3], whole[4], whole[2], whole[5], whole[6]]
    filtered_before = EcgPipeline("other", tuple(order))(_recording(x))
    assert np.abs(filtered_before - myoecg_pipeline("start")(_recording(x))).max() > 0.05


def test_myoecg_pipeline__refuses_less_than_its_crop_and_unknown_crops() -> None:
    with pytest.raises(ValueError, match="at least 9 s"):
        myoecg_pipeline()(_recording(_ecg(4400)))
    with pytest.raises(ValueError, match="no crop 'middle'"):
        myoecg_pipeline("middle")


def test_myoecg_pipeline__crops_have_names_and_fingerprints_of_their_own() -> None:
    crops = [myoecg_pipeline(crop) for crop in MYOECG_CROPS]
    assert len({crop.name for crop in crops}) == len({crop.fingerprint() for crop in crops}) == 3
    for crop in crops:
        assert EcgPipeline.from_dict(json.loads(json.dumps(crop.to_dict()))) == crop


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("cut_duration", {"seconds": 9.0, "where": "middle"}), "where is 'middle'"),
        (Step("to_rate", {"hz": 100.0, "method": "linear"}), "method is 'linear'"),
    ],
)
def test_step__refuses_a_word_it_does_not_know(step: Step, message: str) -> None:
    pipeline = EcgPipeline("test", (Step("to_rate", {"hz": 500.0}), step, Step("fit_duration", {"seconds": 9.0})))
    with pytest.raises(ValueError, match=message):
        pipeline(_recording(_ecg()))
