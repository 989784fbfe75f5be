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
    assert list(table.columns) == ["LVM", "mi"]
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
    del model.weights.modules["head"]
    with pytest.raises(ValueError, match="have no 'head'; they have ecg, cmr"):
        model.predict(synthetic_recording())
    with pytest.raises(ValueError, match="list is empty"):
        model.embed([])
