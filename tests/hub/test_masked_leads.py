"""Leaving out leads is leaving out tokens: proven against a transformer written out here, over visible tokens only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.reduced import available_leads, prepare_available
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.model import LoadedModel, load_model


@pytest.fixture
def model(weights_folder: Path) -> LoadedModel:
    return load_model(weights_folder, device="cpu")


def reduced(leads: tuple[str, ...]) -> EcgRecording:
    recording = synthetic_recording()
    return replace(recording, samples=recording.samples[[LEADS.index(lead) for lead in leads]], leads=leads)


def encode_visible(model: LoadedModel, prepared: np.ndarray, leads: tuple[str, ...]) -> np.ndarray:
    """The encoder of the fixture (200 samples, patches of 50, one block, two heads), over the tokens of these leads."""
    w = {key: value.double() for key, value in model.weights.modules["ecg"].state_dict().items()}
    rows = [LEADS.index(lead) for lead in leads]
    patches = torch.from_numpy(prepared[rows, :200]).double().reshape(len(rows), 4, 50)
    tokens = patches @ w["patch_embed.proj.weight"].reshape(32, 50).T + w["patch_embed.proj.bias"]
    tokens = tokens + w["pos_embed"][0, 1:].reshape(12, 4, 32)[rows]
    x = torch.cat([w["cls_token"][0] + w["pos_embed"][0, :1], tokens.reshape(-1, 32)])

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(y: torch.Tensor, name: str) -> torch.Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    q, k, v = linear(norm(x, "blocks.0.norm1"), "blocks.0.attn.qkv").reshape(-1, 3, 2, 16).permute(1, 2, 0, 3)
    mixed = ((q @ k.transpose(1, 2)) / 4).softmax(-1) @ v
    x = x + linear(mixed.transpose(0, 1).reshape(-1, 32), "blocks.0.attn.proj")
    x = x + linear(functional.gelu(linear(norm(x, "blocks.0.norm2"), "blocks.0.mlp.fc1")), "blocks.0.mlp.fc2")
    return norm(x[1:].mean(0), "fc_norm").numpy()


@pytest.mark.filterwarnings("ignore:.*fewer than twelve leads")
@pytest.mark.parametrize("leads", [("I", "II", "V1"), ("V6", "V2"), ("aVR",), LEADS])
def test_embed__is_the_computation_on_visible_tokens(model: LoadedModel, leads: tuple[str, ...]) -> None:
    recording = available_leads(reduced(leads))
    assert model.weights.ecg_pipeline is not None
    prepared = prepare_available(model.weights.ecg_pipeline, recording)
    table = model.embed_table(reduced(leads))
    used = tuple(table["leads"][0].split(","))
    assert used == (LEADS[:7] if leads == ("I", "II", "V1") else tuple(lead for lead in LEADS if lead in leads))
    found = table.filter(regex=r"^e\d").to_numpy()[0]
    assert np.allclose(found, encode_visible(model, prepared, used), atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*fewer than twelve leads")
def test_embed__garbage_in_a_lead_that_is_left_out_changes_nothing(model: LoadedModel) -> None:
    clean = synthetic_recording()
    only = [lead for lead in LEADS if lead not in ("V3", "aVF")]
    expected = model.embed(clean, only_leads=only)
    for garbage in (np.nan, np.inf, 1e6):
        samples = clean.samples.copy()
        samples[[LEADS.index("V3"), LEADS.index("aVF")]] = garbage
        assert np.array_equal(model.embed(replace(clean, samples=samples), only_leads=only), expected)
    assert np.abs(model.embed(clean) - expected).max() > 1e-3  # the leads did matter


def test_embed__a_detached_lead_is_left_out_and_said(model: LoadedModel) -> None:
    samples = synthetic_recording().samples.copy()
    samples[9] = np.nan
    with pytest.warns(UserWarning, match=r"1 rows come from fewer than twelve leads .*V3, V5"):
        table = model.predict(replace(synthetic_recording(), samples=samples))
    assert table["leads"][0] == ",".join(lead for lead in LEADS if lead != "V4")


def test_embed__an_encoder_that_cannot_leave_out_says_so(model: LoadedModel) -> None:
    model.weights.modules["ecg"] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"\(Sequential\) cannot leave out leads"):
        model.embed(reduced(("I", "II")))
