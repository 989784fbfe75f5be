"""ViTMAE under Hugging Face's names written from its description: random tensors, encoder and decoder in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEADS = 12


def make_state(
    biases: str = "qv", scale: str = "lo", cls: bool = True, decoder: str = "ptacl", width: int = 32, depth: int = 2,
    patch: int = 25, windows: int = 4, decoder_width: int = 16,
) -> dict[str, Tensor]:  # fmt: skip
    """All keys of the file.

    Args:
        biases: "qv" (q_bias and v_bias, none for k: PTACL), "qkv" (plain layout), "" (none).
        scale: Where the layer's two factors stand: "lo" (layer, output), "ao" (attention.output, output), "" (none).
        cls: Whether there is a cls token and its row of positions.
        decoder: "ptacl", "plain" (other names for positions and norm), "" (none).
        width: Of the encoder; also depth, patch and windows.
        depth: Layers of the encoder.
        patch: Samples of a patch.
        windows: Patches of a lead.
        decoder_width: Of the decoder, of one layer.
    """
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    rows = LEADS * windows + cls

    def draw(*shape: int, scale: float = 0.3, about: float = 0.0) -> Tensor:
        return about + scale * torch.randn(shape, generator=random)

    def linear(name: str, out: int, inner: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = draw(out, inner, scale=inner**-0.5)
        if bias:
            state[f"{name}.bias"] = draw(out, scale=0.2)

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(size, about=1.0, scale=0.2), draw(size)

    def layer(name: str, size: int) -> None:
        for part in ("query", "key", "value"):
            linear(f"{name}.attention.attention.{part}", size, size, biases == "qkv")
        if biases == "qv":
            state[f"{name}.attention.attention.q_bias"] = draw(size)
            state[f"{name}.attention.attention.v_bias"] = draw(size)
        linear(f"{name}.attention.output.dense", size, size)
        linear(f"{name}.intermediate.dense", 4 * size, size)
        linear(f"{name}.output.dense", size, 4 * size)
        if scale:
            first = "layerscale" if scale == "lo" else "attention.output.layerscale"
            state[f"{name}.{first}.layerscale_c"] = draw(size, about=0.6, scale=0.1)
            state[f"{name}.output.layerscale.layerscale_c"] = draw(size, about=0.4, scale=0.1)
        norm(f"{name}.layernorm_before", size)
        norm(f"{name}.layernorm_after", size)

    if cls:
        state["vit.embeddings.cls_token"] = draw(1, 1, width)
    state["vit.embeddings.position_embeddings"] = draw(1, rows, width)
    state["vit.embeddings.patch_embeddings.projection.weight"] = draw(width, 1, 1, patch, scale=patch**-0.5)
    state["vit.embeddings.patch_embeddings.projection.bias"] = draw(width)
    for i in range(depth):
        layer(f"vit.encoder.layer.{i}", width)
    norm("vit.layernorm", width)
    if decoder:
        linear("decoder.decoder_embed", decoder_width, width)
        state["decoder.mask_token"] = draw(1, 1, decoder_width)
        positions = "decoder_position_embeddings" if decoder == "ptacl" else "decoder_pos_embed"
        state[f"decoder.{positions}"] = draw(1, rows, decoder_width)
        layer("decoder.decoder_layers.0", decoder_width)
        norm("decoder.decoder_layernorm" if decoder == "ptacl" else "decoder.decoder_norm", decoder_width)
        linear("decoder.decoder_pred", patch, decoder_width)
    return state


def _norm(s: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scale = (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    return centered / scale * s[f"{name}.weight"].double() + s[f"{name}.bias"].double()


def _linear(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = x @ s[f"{name}.weight"].double().T
    return y + s[f"{name}.bias"].double() if f"{name}.bias" in s else y


def _layer(s: dict[str, Tensor], name: str, x: Tensor, heads: int, eps: float) -> Tensor:
    y = _norm(s, f"{name}.layernorm_before", x, eps)
    q, k, v = (_linear(s, f"{name}.attention.attention.{part}", y) for part in ("query", "key", "value"))
    if f"{name}.attention.attention.q_bias" in s:
        q = q + s[f"{name}.attention.attention.q_bias"].double()
        v = v + s[f"{name}.attention.attention.v_bias"].double()
    size, out = x.shape[-1] // heads, []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        out.append(torch.softmax(q[..., part] @ k[..., part].mT / math.sqrt(size), dim=-1) @ v[..., part])
    one = torch.ones(())
    y = _linear(s, f"{name}.attention.output.dense", torch.cat(out, dim=-1))
    inner = s.get(f"{name}.attention.output.layerscale.layerscale_c", one)
    x = x + y * inner * s.get(f"{name}.layerscale.layerscale_c", one)
    y = _linear(s, f"{name}.intermediate.dense", _norm(s, f"{name}.layernorm_after", x, eps))
    y = _linear(s, f"{name}.output.dense", y * 0.5 * (1 + torch.erf(y / math.sqrt(2))))
    return x + y * s.get(f"{name}.output.layerscale.layerscale_c", one)


def tokens(s: dict[str, Tensor], ecg: Tensor, heads: int, eps: float) -> Tensor:
    """Tokens of all patches (and cls) after the last layer, before the closing norm."""
    weight = s["vit.embeddings.patch_embeddings.projection.weight"].double()[:, 0, 0]
    patch, windows = weight.shape[1], ecg.shape[2] // weight.shape[1]
    pieces = [ecg[:, lead, t * patch : (t + 1) * patch].double() for lead in range(LEADS) for t in range(windows)]
    x = torch.stack(pieces, dim=1) @ weight.T + s["vit.embeddings.patch_embeddings.projection.bias"].double()
    if "vit.embeddings.cls_token" in s:
        x = torch.cat([s["vit.embeddings.cls_token"].double().expand(len(x), -1, -1), x], dim=1)
    x, i = x + s["vit.embeddings.position_embeddings"].double(), 0
    while f"vit.encoder.layer.{i}.layernorm_before.weight" in s:
        x, i = _layer(s, f"vit.encoder.layer.{i}", x, heads, eps), i + 1
    return x


def embed(s: dict[str, Tensor], ecg: Tensor, heads: int, eps: float = 1e-12, way: str = "norm_mean") -> Tensor:
    """The embedding by each of the ways that the options name."""
    x, first = tokens(s, ecg, heads, eps), int("vit.embeddings.cls_token" in s)
    if way == "norm_mean":
        return _norm(s, "vit.layernorm", x, eps)[:, first:].mean(dim=1)
    if way == "cls":
        return _norm(s, "vit.layernorm", x, eps)[:, 0]
    mean = x[:, first:].mean(dim=1)
    unit = {"unit.weight": torch.ones(mean.shape[1]), "unit.bias": torch.zeros(mean.shape[1])}
    return mean if way == "pre_norm" else _norm(unit, "unit", mean, eps)


def reconstruct(s: dict[str, Tensor], ecg: Tensor, heads: int, decoder_heads: int, eps: float = 1e-12) -> Tensor:
    """All patches predicted from all patches, (B, N, P); nothing is hidden."""
    first = int("vit.embeddings.cls_token" in s)
    x = _linear(s, "decoder.decoder_embed", _norm(s, "vit.layernorm", tokens(s, ecg, heads, eps), eps))
    positions = s.get("decoder.decoder_position_embeddings", s.get("decoder.decoder_pos_embed"))
    assert positions is not None
    x = _layer(s, "decoder.decoder_layers.0", x + positions.double(), decoder_heads, eps)
    last = "decoder.decoder_layernorm" if "decoder.decoder_layernorm.weight" in s else "decoder.decoder_norm"
    return _linear(s, "decoder.decoder_pred", _norm(s, last, x, eps))[:, first:]
