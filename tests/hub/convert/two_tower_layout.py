"""CARDIAC-FM's alignment file written from its description: random tensors, and the forward pass of its ECG tower."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

CONV = 4
POSITIONS = "ecg_encoder.conv_pos.pos_conv.0."


def make_state(
    width: int = 32,
    depth: int = 2,
    hidden: int = 64,
    channels: int = 16,
    kernel: int = 8,
    groups: int = 4,
    out: int = 8,
) -> dict[str, Tensor]:
    """All keys of the ECG tower, with what its pretraining left there, and of both heads; some of the CMR tower."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def draw(*shape: int, scale: float = 0.3, about: float = 0.0) -> Tensor:
        return about + scale * torch.randn(shape, generator=random)

    def linear(name: str, rows: int, inner: int) -> None:
        state[f"{name}.weight"] = draw(rows, inner, scale=inner**-0.5)
        state[f"{name}.bias"] = draw(rows, scale=0.1)

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(size, about=1.0, scale=0.2), draw(size)

    extractor = "ecg_encoder.feature_extractor.conv_layers"
    for i in range(CONV):
        inner = channels if i else 12
        state[f"{extractor}.{i}.0.weight"] = draw(channels, inner, 2, scale=(2 / inner) ** 0.5)
    norm(f"{extractor}.0.2", channels)
    norm("ecg_encoder.layer_norm", channels)
    linear("ecg_encoder.post_extract_proj", width, channels)
    state[f"{POSITIONS}weight_v"] = draw(width, width // groups, kernel)
    state[f"{POSITIONS}weight_g"] = draw(1, 1, kernel, about=1.0)
    state[f"{POSITIONS}bias"] = draw(width)
    norm("ecg_encoder.encoder.layer_norm", width)
    for i in range(depth):
        layer = f"ecg_encoder.encoder.layers.{i}"
        for name in ("q", "k", "v", "out"):
            linear(f"{layer}.self_attn.{name}_proj", width, width)
        norm(f"{layer}.self_attn_layer_norm", width)
        linear(f"{layer}.fc1", hidden, width)
        linear(f"{layer}.fc2", width, hidden)
        norm(f"{layer}.final_layer_norm", width)
    state["ecg_encoder.mask_emb"] = draw(width)
    state["ecg_encoder.quantizer.vars"] = draw(1, 4, 8)
    linear("ecg_encoder.final_proj", 8, width)
    for name, size in (("ecg", width), ("mri", 3 * width)):
        norm(f"{name}_projection.0", size)
        linear(f"{name}_projection.2", out, size)
    linear("mri_encoder.mae.enc_blocks.0.attn.qkv", 3 * width, width)
    state["mri_encoder.mae.cls_token"] = draw(1, 1, width)
    return state


def layer_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scale = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centered / scale * state[f"{name}.weight"].double() + state[f"{name}.bias"].double()


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double()


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def embed(state: dict[str, Tensor], ecg: Tensor, heads: int, groups: int) -> Tensor:
    """The mean of the ECG tower's tokens, in float64, convolutions as products over windows."""
    s = state
    x = ecg.double()
    for i in range(CONV):
        weight = s[f"ecg_encoder.feature_extractor.conv_layers.{i}.0.weight"].double()
        x = torch.einsum("bcnk,ock->bon", x.unfold(2, 2, 2), weight)
        if i == 0:  # a group for each channel: its mean and variance over time
            x = (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
            name = "ecg_encoder.feature_extractor.conv_layers.0.2"
            x = x * s[f"{name}.weight"].double()[:, None] + s[f"{name}.bias"].double()[:, None]
        x = gelu(x)
    x = linear(s, "ecg_encoder.post_extract_proj", layer_norm(s, "ecg_encoder.layer_norm", x.transpose(1, 2)))
    x = x + gelu(_positions(s, x, groups))
    x = layer_norm(s, "ecg_encoder.encoder.layer_norm", x)
    width, i = x.shape[-1], 0
    size = width // heads
    while f"ecg_encoder.encoder.layers.{i}.fc1.weight" in s:
        layer = f"ecg_encoder.encoder.layers.{i}"
        q, k, v = (linear(s, f"{layer}.self_attn.{name}_proj", x) for name in "qkv")
        out = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size), dim=-1)
            out.append(weights @ v[..., part])
        x = layer_norm(
            s, f"{layer}.self_attn_layer_norm", x + linear(s, f"{layer}.self_attn.out_proj", torch.cat(out, dim=-1))
        )
        hidden = gelu(linear(s, f"{layer}.fc1", x))
        x = layer_norm(s, f"{layer}.final_layer_norm", x + linear(s, f"{layer}.fc2", hidden))
        i += 1
    return x.mean(dim=1)


def _positions(s: dict[str, Tensor], x: Tensor, groups: int) -> Tensor:
    """The position convolution, group by group: padded by half a kernel, the last of an even kernel's outputs cut."""
    direction, length = s[f"{POSITIONS}weight_v"].double(), s[f"{POSITIONS}weight_g"].double()
    weight = torch.stack(
        [
            length[0, 0, tap] * direction[..., tap] / torch.linalg.norm(direction[..., tap])
            for tap in range(length.shape[2])
        ],
        dim=-1,
    )
    kernel, n = weight.shape[2], x.shape[1]
    padded = functional.pad(x.transpose(1, 2), (kernel // 2, kernel // 2))
    windows = padded.unfold(2, kernel, 1)[:, :, :n]
    size = x.shape[-1] // groups
    parts = [
        torch.einsum("bcnk,ock->bon", windows[:, g * size : (g + 1) * size], weight[g * size : (g + 1) * size])
        for g in range(groups)
    ]
    return (torch.cat(parts, dim=1) + s[f"{POSITIONS}bias"].double()[:, None]).transpose(1, 2)


def project(state: dict[str, Tensor], name: str, embedding: Tensor) -> Tensor:
    """The unit vector in the shared space; dropout is off."""
    z = linear(state, f"{name}_projection.2", layer_norm(state, f"{name}_projection.0", embedding.double()))
    return z / z.norm(dim=1, keepdim=True)
