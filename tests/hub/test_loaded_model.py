"""What a user does with weights: one file or array in, embedding or table out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.hub.expected import synthetic_cine, synthetic_recording
from ecgcmr.hub.model import LoadedModel, load_model


@pytest.fixture
def model(weights_folder: Path) -> LoadedModel:
    return load_model(f"local-dir:{weights_folder}")


def test_embed__recording_array_and_unit_agree(model: LoadedModel) -> None:
    recording = synthetic_recording()
    embedding = model.embed(recording)
    assert embedding.shape == (1, 32)
    assert embedding.dtype == np.float32
    order = [11, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10]  # leads are names: their order does not matter
    leads = [recording.leads[i] for i in order]
    array = recording.samples[order] * 1000
    assert np.allclose(model.embed(array, 500, leads, "uV"), embedding, atol=1e-4)
    two = model.embed(np.stack([array, array]), 500, leads, "uV")
    assert two.shape == (2, 32)
    assert np.allclose(model.embed([recording] * 5, batch_size=2), np.repeat(embedding, 5, axis=0), atol=1e-5)


def test_embed__is_what_the_encoder_gives_for_the_prepared_window(model: LoadedModel) -> None:
    recording, weights = synthetic_recording(), model.weights
    assert weights.ecg_pipeline is not None
    prepared = torch.from_numpy(weights.ecg_pipeline(recording)[None, :, :200])
    with torch.no_grad():
        expected = weights.modules["ecg"](prepared).numpy()
    assert np.allclose(model.embed(recording), expected, atol=1e-6)
    assert np.allclose(expected[0], weights.expected["embeddings"]["ecg"], atol=1e-5)


def test_predict__names_and_units(model: LoadedModel) -> None:
    table = model.predict([synthetic_recording()] * 2)
    assert list(table.columns) == ["item", "n_windows", "leads", "LVM", "mi"]
    assert table.attrs["units"] == {"LVM": "g", "mi": "probability"}
    assert 50 < table["LVM"][0] < 150
    assert 0 < table["mi"][0] < 1


def test_project__both_modalities_meet_on_the_sphere(model: LoadedModel) -> None:
    ecg = model.project(model.embed(synthetic_recording()))
    cmr = model.project(model.embed_cmr([synthetic_cine()] * 2), "cmr")
    assert ecg.shape == (1, 8)
    assert cmr.shape == (2, 8)
    assert np.allclose(np.linalg.norm(cmr, axis=1), 1, atol=1e-5)


def test_embed__what_an_array_must_say(model: LoadedModel) -> None:
    array = synthetic_recording().samples
    with pytest.raises(ValueError, match=r"give rate_hz, leads, unit"):
        model.embed(array)
    with pytest.raises(ValueError, match="unit"):
        model.embed(array, 500, synthetic_recording().leads, "bits")
    with pytest.raises(ValueError, match=r"expected \(leads, time\)"):
        model.embed(array[0], 500, ["I"], "mV")


def test_embed__voltage_that_is_lost_is_refused_by_a_pipeline_that_needs_it(model: LoadedModel) -> None:
    recording = synthetic_recording()
    with pytest.raises(ValueError, match="needs voltages"):
        model.embed(EcgRecording(recording.samples, 500.0, recording.leads, unit="z"))


def test_module__missing_ones_are_named(model: LoadedModel) -> None:
    model.weights.modules.pop("head")
    with pytest.raises(ValueError, match="have no 'head'; they have ecg, cmr"):
        model.predict(synthetic_recording())
    with pytest.raises(ValueError, match="list is empty"):
        model.embed([])


def test_embed_table__says_what_each_row_is(model: LoadedModel) -> None:
    recording = synthetic_recording()
    table = model.embed_table([recording, recording])
    assert list(table.columns[:4]) == ["item", "n_windows", "leads", "e000"]
    assert (list(table["item"]), list(table["n_windows"])) == (["0", "1"], [1, 1])
    assert table["leads"][0] == ",".join(recording.leads)
    assert np.array_equal(table.filter(regex=r"^e\d").to_numpy(), model.embed([recording, recording]))
    assert table.attrs["failed"] == []
    assert (table.attrs["model"], table.attrs["windows"], table.attrs["aggregate"]) == ("small", "first", "mean")


def test_windows__mean_is_taken_of_embeddings_and_of_predictions_in_their_units(model: LoadedModel) -> None:
    long = synthetic_recording(seconds=25)
    each = model.embed(long, windows="all", aggregate="none")
    assert each.shape == (12, 32)
    assert np.allclose(model.embed(long, windows="all"), each.mean(axis=0), atol=1e-6)
    assert np.array_equal(model.embed(long), each[:1])
    values = model.predict_from(torch.from_numpy(each)).numpy()
    table = model.predict(long, windows="all")
    assert np.allclose(table[["LVM", "mi"]].to_numpy()[0], values.mean(axis=0), rtol=1e-5)
    assert list(table["n_windows"]) == [12]
    rows = model.predict(long, windows=3, aggregate="none")
    assert list(rows["window"]) == [0, 1, 2]
    assert list(rows["start_s"]) == [0, 2, 4]
    assert np.allclose(rows["LVM"], values[:3, 0], rtol=1e-5)


def test_embed__order_and_batches_do_not_matter(model: LoadedModel) -> None:
    recordings = [synthetic_recording(seconds=seconds) for seconds in (10, 30, 12, 20, 14)]
    reduced = [EcgRecording(one.samples[:n], 500.0, one.leads[:n]) for one, n in zip(recordings, (12, 8, 12, 8, 7))]  # noqa: B905
    with pytest.warns(UserWarning, match="3 rows come from fewer than twelve leads"):
        together = model.embed(reduced, batch_size=3, windows=2, workers=3)
    for i, one in enumerate(reduced):
        if i % 2:
            with pytest.warns(UserWarning, match="1 rows"):
                alone = model.embed(one, windows=2)
        elif i < 4:
            alone = model.embed(one, windows=2)
        else:
            continue
        assert np.allclose(together[i], alone[0], atol=1e-5)


def test_dtype__bfloat16_is_close_and_comes_out_as_float32(weights_folder: Path, model: LoadedModel) -> None:
    half = load_model(weights_folder, dtype="bfloat16").embed(synthetic_recording())
    full = model.embed(synthetic_recording())
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


def test_load_model__refuses_what_is_not_there(weights_folder: Path) -> None:
    with pytest.raises(ValueError, match="expected 'float32' or 'bfloat16'"):
        load_model(weights_folder, dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected auto, cpu"):
        load_model(weights_folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no cuda"):
            load_model(weights_folder, device="cuda")


def test_embed__an_output_that_is_not_finite_is_a_failure(model: LoadedModel) -> None:
    good = synthetic_recording()
    huge = EcgRecording(good.samples * np.float32(1e37), 500.0, good.leads)
    with pytest.warns(UserWarning, match="1 of 2 recordings gave no output"):
        found = model.embed([good, huge])
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_embed__unknown_keyword_and_wrong_sizes(model: LoadedModel) -> None:
    with pytest.raises(TypeError, match="window"):
        model.embed(synthetic_recording(), window="all")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'mean' or 'none'"):
        model.embed(synthetic_recording(), aggregate="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size 0"):
        model.embed(synthetic_recording(), batch_size=0)


def test_cmr_encoder__is_built_when_it_is_asked_for(weights_folder: Path) -> None:
    """Building it imports timm, which would be most of the time until the first ECG embedding."""
    model = load_model(weights_folder)
    assert "cmr" in model.config["modules"]
    assert "cmr" not in model._weights.modules
    first = model.embed(synthetic_recording())
    assert {"cmr", "cmr_projection"} <= model.weights.modules.keys()
    assert "cmr" in model._weights.modules
    np.testing.assert_array_equal(model.embed(synthetic_recording()), first)
    assert model.embed_cmr(synthetic_cine()).shape[0] == 1
