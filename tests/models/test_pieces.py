"""Encoding in pieces gives what encoding at once gives, and is left alone where it does not belong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ecgcmr.models import create_ecg_encoder
from ecgcmr.models import pieces as module
from ecgcmr.models.ecg_mae import draw_masking
from ecgcmr.models.pieces import encode, piece_rows


@pytest.mark.parametrize("pool", ["mean", "cls", "attention"])
@pytest.mark.parametrize("masked", [False, True])
def test_encode__is_the_same_in_pieces(pool: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = create_ecg_encoder("nano", 200, pool=pool).eval().double()
    ecg = torch.randn(7, 12, 200, dtype=torch.float64)
    keep = draw_masking((7, 48), 20, torch.Generator().manual_seed(0)).keep if masked else None
    whole = encoder(ecg, keep=keep)
    calls: list[int] = []
    encoder.register_forward_hook(lambda *args: calls.append(len(args[2])))
    monkeypatch.setattr(module, "piece_rows", lambda encoder: 3)
    with torch.no_grad():
        assert torch.allclose(encode(encoder, ecg, keep), whole, rtol=1e-12, atol=1e-12)
    assert calls == [3, 3, 1]
    assert encode(encoder, ecg, keep).requires_grad  # with a gradient, pieces would keep all graphs anyway
    assert calls == [3, 3, 1, 7]


def test_piece_rows__keep_the_widest_layer_small() -> None:
    for preset, length in (("nano", 500), ("tiny", 2500), ("base", 5000)):
        encoder = create_ecg_encoder(preset, length)
        rows = piece_rows(encoder)
        assert rows is not None
        first: nn.Linear = encoder.blocks[0].mlp.fc1
        with torch.no_grad():
            widest = first(encoder.forward_tokens(torch.zeros(1, 12, length))).nbytes
        assert rows * widest <= module.PIECE_BYTES or rows == 1
        assert (rows + 1) * widest > module.PIECE_BYTES
    assert piece_rows(nn.Linear(2, 2)) is None
