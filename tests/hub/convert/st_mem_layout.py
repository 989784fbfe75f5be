"""The layout of MyoECG written from its description: a state dict of random numbers, and its forward pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def make_state(width: int, depth: int, patch: int, windows: int, head: bool, seed: int = 0) -> dict[str, Tensor]:
    """All keys of the file with their shapes; norms and embeddings are far from their starting values."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.3, about: float = 0.0) -> Tensor:
        return about + scale * torch.randn(shape, generator=random)

    def linear(name: str, out: int, inner: int) -> None:
        state[f"{name}.weight"] = draw(out, inner, scale=inner**-0.5)
        state[f"{name}.bias"] = draw(out, scale=0.1)

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(size, about=1.0, scale=0.2), draw(size)

    state: dict[str, Tensor] = {}
    norm("to_patch_embedding.1", patch)
    linear("to_patch_embedding.2", width, patch)
    norm("to_patch_embedding.3", width)
    state["pos_embedding"], state["sep_embedding"] = draw(1, windows + 2, width), draw(width)
    for lead in range(12):
        state[f"lead_embeddings.{lead}"] = draw(width)
    for i in range(depth):
        norm(f"block{i}.attn.norm", width)
        linear(f"block{i}.attn.fn.to_qkv", 3 * width, width)
        linear(f"block{i}.attn.fn.to_out.0", width, width)
        norm(f"block{i}.ff.norm", width)
        linear(f"block{i}.ff.fn.net.0", 4 * width, width)
        linear(f"block{i}.ff.fn.net.3", width, 4 * width)
    norm("norm", width)
    if head:
        linear("head", 1, width)
    return state


def embed(state: dict[str, Tensor], ecg: Tensor, heads: int, separator_leads: bool = True) -> Tensor:
    """The embedding, lead by lead and head by head, in float64."""
    s = {name: value.double() for name, value in state.items()}
    patch, windows = s["to_patch_embedding.2.weight"].shape[1], s["pos_embedding"].shape[1] - 2

    def norm(x: Tensor, name: str) -> Tensor:
        centered = x - x.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centered / scale * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    tokens, is_patch = [], []
    for lead in range(12):
        code = s[f"lead_embeddings.{lead}"]
        of_separator = code if separator_leads else torch.zeros_like(code)
        for slot in range(windows + 2):
            if slot in (0, windows + 1):
                token = (s["sep_embedding"] + of_separator).expand(len(ecg), -1)
            else:
                piece = ecg[:, lead, (slot - 1) * patch : slot * patch].double()
                piece = linear(norm(piece, "to_patch_embedding.1"), "to_patch_embedding.2")
                token = norm(piece, "to_patch_embedding.3") + code
            tokens.append(token + s["pos_embedding"][0, slot])
            is_patch.append(0 < slot <= windows)
    x = torch.stack(tokens, dim=1)
    width, i = x.shape[-1], 0
    size = width // heads
    while f"block{i}.attn.norm.weight" in s:
        qkv = linear(norm(x, f"block{i}.attn.norm"), f"block{i}.attn.fn.to_qkv")
        out = []
        for h in range(heads):
            q, k, v = (qkv[..., part * width + h * size : part * width + (h + 1) * size] for part in range(3))
            out.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size), dim=-1) @ v)
        x = x + linear(torch.cat(out, dim=-1), f"block{i}.attn.fn.to_out.0")
        hidden = linear(norm(x, f"block{i}.ff.norm"), f"block{i}.ff.fn.net.0")
        x = x + linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), f"block{i}.ff.fn.net.3")
        i += 1
    return norm(x[:, torch.tensor(is_patch)].mean(dim=1), "norm")
