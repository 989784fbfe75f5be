"""Encoders of other projects: separators and leads, convolutions and positions, no cls token, LayerScale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ecgcmr.models import create_ecg_encoder
from ecgcmr.models.blocks import Block
from ecgcmr.models.build import load_pretrained
from ecgcmr.models.config_published import EcgWav2VecConfig
from ecgcmr.models.ecg_mae import EcgMae, draw_masking
from ecgcmr.models.ecg_st_vit import EcgStViT
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.ecg_wav2vec import EcgWav2Vec

WINDOWS = 4


def st_vit(**more: object) -> EcgStViT:
    torch.manual_seed(0)
    return EcgStViT({"n_samples": 100, "patch": 25, "width": 32, "depth": 2, "heads": 4, **more}).eval()


def vit(**more: object) -> EcgViT:
    torch.manual_seed(0)
    sizes = {"width": 32, "depth": 2, "heads": 4, "patch": 25, "pool": "mean", **more}
    return create_ecg_encoder("nano", n_samples=100, **sizes).eval()


def ecg(rows: int = 2, n: int = 100) -> Tensor:
    return torch.randn(rows, 12, n, generator=torch.Generator().manual_seed(1))


def patches_of(leads: list[int]) -> Tensor:
    return torch.tensor([lead * WINDOWS + t for lead in leads for t in range(WINDOWS)]).expand(2, -1)


def test_st_vit__does_not_depend_on_the_gain_of_a_patch() -> None:
    encoder, x = st_vit(), ecg()
    torch.testing.assert_close(encoder(3 * x + 0.7), encoder(x), rtol=0, atol=1e-4)  # LayerNorm on each patch


def test_st_vit__tells_leads_and_windows_apart() -> None:
    encoder, x = st_vit(), ecg()
    leads, windows = x.flip(1), x.view(2, 12, WINDOWS, 25).flip(2).view(2, 12, 100)
    for other in (leads, windows):
        assert (encoder(other) - encoder(x)).abs().max() > 1e-3
    for table in (encoder.pos_embed, encoder.lead_embed):
        torch.nn.init.zeros_(table)
    for other in (leads, windows):  # without codes it is a set of patches
        torch.testing.assert_close(encoder(other), encoder(x), rtol=0, atol=1e-5)


def test_st_vit__separators_are_read_but_not_pooled() -> None:
    encoder, x = st_vit(), ecg()
    before = encoder(x)
    assert encoder.forward_tokens(x).shape == (2, 12 * WINDOWS, 32)
    with torch.no_grad():
        encoder.sep_embed += torch.linspace(-1, 1, 32)
    assert (encoder(x) - before).abs().max() > 1e-3


@pytest.mark.parametrize("separator_leads", [True, False])
def test_st_vit__kept_leads_are_those_of_an_encoder_that_has_no_others(separator_leads: bool) -> None:
    encoder, x = st_vit(separator_leads=separator_leads), ecg()
    chosen = [1, 6, 9]
    few = st_vit(leads=3, separator_leads=separator_leads)
    state = encoder.state_dict()
    few.load_state_dict({**state, "lead_embed": state["lead_embed"][chosen]})
    torch.testing.assert_close(encoder(x, keep=patches_of(chosen)), few(x[:, chosen]), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder(x, keep=patches_of(list(range(12)))), encoder(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("keep", [[0, 1, 2], [0, 1, 2, 4], [3, 2, 1, 0], []])
def test_st_vit__refuses_parts_of_a_lead(keep: list[int]) -> None:
    with pytest.raises(ValueError, match=f"keep holds {len(keep)} patches, expected the 4 patches"):
        st_vit()(ecg(), keep=torch.tensor(keep, dtype=torch.long).expand(2, -1))


def test_wav2vec__counts_tokens_as_its_convolutions_do() -> None:
    for n in (5000, 4999, 2500, 33):
        assert EcgWav2VecConfig(n_samples=n).tokens == n // 16
    small = {"n_samples": 400, "conv_layers": [[16, 10, 5], [16, 3, 2]], "width": 32, "depth": 1, "heads": 4}
    encoder = EcgWav2Vec({**small, "hidden": 64, "pos_kernel": 8, "pos_groups": 4})
    assert encoder.forward_tokens(ecg(n=400)).shape == (2, encoder.tokens, 32) == (2, 39, 32)


def test_wav2vec__first_norm_takes_away_the_gain_of_the_whole_recording() -> None:
    torch.manual_seed(0)
    sizes = {"n_samples": 400, "conv_layers": [[16, 2, 2]] * 4, "width": 32, "depth": 1, "heads": 4, "hidden": 64}
    encoder = EcgWav2Vec({**sizes, "pos_kernel": 8, "pos_groups": 4}).eval()
    x = ecg(n=400)
    torch.testing.assert_close(encoder(5 * x + 2.0), encoder(x), rtol=0, atol=1e-4)  # no bias, GroupNorm over time
    shifted = x.clone()
    shifted[:, 3] *= 5
    assert (encoder(shifted) - encoder(x)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pos_groups": 5}, "not divisible by pos_groups 5"),
        ({"heads": 7}, "not divisible by heads 7"),
        ({"n_samples": 15}, "leave no token"),
        ({"conv_layers": []}, "conv_layers"),
        ({"conv_layers": [[256, 2]]}, "conv_layers"),
    ],
)
def test_wav2vec__refuses_sizes_that_do_not_fit(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EcgWav2Vec({"n_samples": 5000, **wrong})


def test_layer_scale__of_one_is_no_scale_and_of_zero_no_block() -> None:
    torch.manual_seed(0)
    plain, scaled = Block(16, 2), Block(16, 2, layer_scale=True)
    assert set(scaled.state_dict()) - set(plain.state_dict()) == {"ls1.gamma", "ls2.gamma"}
    scaled.load_state_dict({**scaled.state_dict(), **plain.state_dict()})
    x = torch.randn(2, 5, 16)
    for value, expected in ((1.0, plain(x)), (0.0, x)):
        for scale in (scaled.ls1, scaled.ls2):
            torch.nn.init.constant_(scale.gamma, value)
        torch.testing.assert_close(scaled(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(scaled(x, torch.ones(2, 2)), expected, rtol=0, atol=0)


def test_no_cls__has_no_row_of_positions_and_pools_all_patches() -> None:
    encoder, x = vit(cls_token=False), ecg()
    with_cls = vit()
    assert encoder.cls_token is None
    torch.testing.assert_close(encoder.pos_embed, with_cls.pos_embed[:, 1:], rtol=0, atol=0)
    tokens = encoder.forward_tokens(x)
    assert tokens.shape == (2, 48, 32)
    mean = torch.nn.functional.layer_norm(tokens.mean(dim=1), (32,), eps=1e-6)
    torch.testing.assert_close(encoder(x), mean, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="needs cls_token True"):
        vit(cls_token=False, pool="cls")


def test_no_cls__positions_are_interpolated_and_loaded() -> None:
    encoder, x = vit(cls_token=False), ecg(n=200)
    longer = encoder.resized(200)
    assert longer.pos_embed.shape == (1, 96, 32)
    other = create_ecg_encoder("nano", 200, patch=25, width=32, depth=2, heads=4, cls_token=False).eval()
    load_pretrained(other, encoder.state_dict())
    torch.testing.assert_close(other(x), longer(x), rtol=0, atol=0)


def test_no_cls__masked_autoencoder_predicts_every_patch() -> None:
    torch.manual_seed(0)
    sizes = {"preset": "nano", "layer_scale": True, "norm_eps": 1e-12}
    mae = EcgMae(vit(cls_token=False, layer_scale=True), sizes).eval()
    assert mae.decoder.config["cls_token"] is False
    masking = draw_masking((2, 48), 12, torch.Generator().manual_seed(0))
    out = mae(ecg(), masking)
    assert out.patches.shape == (2, 48, 25)
    hidden = ecg().view(2, 48, 25).clone()
    hidden[masking.mask.bool()] = 7.0  # what is hidden is not seen
    torch.testing.assert_close(mae(hidden.view(2, 12, 100), masking).patches, out.patches, rtol=0, atol=0)
