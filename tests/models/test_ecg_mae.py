"""The masked autoencoder: mask counts, what is seen and what is hidden, and exactness over processes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecgcmr.models import EcgMae, create_ecg_encoder
from ecgcmr.models.ecg_mae import EcgDecoder, draw_masking, len_keep


@pytest.fixture(scope="module")
def mae() -> EcgMae:
    torch.manual_seed(0)
    return EcgMae(create_ecg_encoder("nano", 100, patch=25), {"preset": "nano"}).eval()


def test_len_keep__rounds_and_the_legacy_flag_rounds_down() -> None:
    assert len_keep(300, 0.8) == 60
    assert len_keep(300, 0.8, legacy=True) == 59
    assert len_keep(600, 0.8, legacy=True) == 119
    assert len_keep(600, 0.7, legacy=True) == 180


def test_len_keep__refuses_to_hide_everything() -> None:
    with pytest.raises(ValueError, match=r"keeps 0 of 10"):
        len_keep(10, 0.99)


@given(tokens=st.integers(2, 60), data=st.data())
def test_draw_masking__hides_the_rest_of_a_permutation(tokens: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, tokens))
    masking = draw_masking((5, tokens), keep, torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    assert masking.mask.sum(1).tolist() == [tokens - keep] * 5
    assert torch.equal(masking.restore.sort(1).values, torch.arange(tokens).expand(5, -1))
    assert masking.mask.gather(1, masking.keep).sum() == 0


def test_draw_masking__ranks_hold_the_rows_of_one_global_draw() -> None:
    whole = draw_masking((6, 30), 7, torch.Generator().manual_seed(4))
    parts = [draw_masking((3, 30), 7, torch.Generator().manual_seed(4), (rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([part.keep for part in parts]), whole.keep)


def test_draw_masking__hides_each_patch_equally_often() -> None:
    mask = draw_masking((8000, 20), 5, torch.Generator().manual_seed(0)).mask
    assert (mask.mean(0) - 0.75).abs().max() < 0.02


def test_forward__does_not_see_hidden_patches(mae: EcgMae) -> None:
    ecg = torch.randn(2, 12, 100)
    masking = draw_masking((2, 48), 10, torch.Generator().manual_seed(0))
    hidden = mae.unpatchify(masking.mask[..., None].expand(-1, -1, 25)).bool()
    other = torch.where(hidden, torch.randn(2, 12, 100), ecg)
    torch.testing.assert_close(mae(ecg, masking).patches, mae(other, masking).patches, rtol=0, atol=0)
    visible = torch.where(hidden, ecg, ecg + 1)
    assert not torch.allclose(mae(ecg, masking).patches, mae(visible, masking).patches)


def test_forward__of_nothing_hidden_encodes_as_the_encoder_does(mae: EcgMae) -> None:
    ecg = torch.randn(2, 12, 100)
    masking = draw_masking((2, 48), 48, torch.Generator().manual_seed(0))
    tokens = mae.encoder.norm(mae.encoder.forward_tokens(ecg))
    in_order = torch.arange(48).expand(2, -1)
    torch.testing.assert_close(mae(ecg, masking).patches, mae.decoder(tokens, in_order), rtol=1e-4, atol=1e-5)


def test_unpatchify__undoes_patchify(mae: EcgMae) -> None:
    ecg = torch.randn(2, 12, 100)
    assert torch.equal(mae.unpatchify(mae.patchify(ecg)), ecg)
    assert torch.equal(mae.patchify(ecg)[:, 3 * 4 + 2], ecg[:, 3, 50:75])


def test_reconstruct__a_constant_is_learned_at_hidden_patches() -> None:
    torch.manual_seed(0)
    mae = EcgMae(create_ecg_encoder("nano", 100, patch=25, width=32, depth=1), {"preset": "nano"})
    optimizer = torch.optim.Adam([p for p in mae.parameters() if p.requires_grad], 6e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(80):
        ecg = (2 * torch.rand(8, 1, 1, generator=random) - 1).expand(8, 12, 100)
        out = mae(ecg, draw_masking((8, 48), 12, random))
        optimizer.zero_grad()
        (out.patches - mae.patchify(ecg)).square().mean().backward()
        optimizer.step()
    level = torch.tensor([-0.6, 0.2, 0.7]).view(3, 1, 1).expand(3, 12, 100)
    prediction, mask = mae.eval().reconstruct(level, 0.75, torch.Generator().manual_seed(1))
    assert mask.mean().item() == pytest.approx(0.75)
    error = ((prediction - level).square() * mask).sum((1, 2)) / mask.sum((1, 2))
    assert (error.sqrt() < 0.15).all()


def test_decoder__of_the_reference_has_the_stated_size() -> None:
    decoder = EcgMae(create_ecg_encoder("tiny", 2500), {"preset": "tiny"}).decoder
    assert sum(p.numel() for n, p in decoder.named_parameters() if n != "pos_embed") == pytest.approx(1.70e6, abs=1e4)


def test_decoder__asks_for_its_grid() -> None:
    with pytest.raises(ValueError, match="all four must be set"):
        EcgDecoder({"preset": "tiny"})
