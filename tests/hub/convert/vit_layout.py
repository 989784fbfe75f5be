"""The reference's ECG transformer, written from its specification in plain torch: keys, shapes and forward pass.

Nothing of the package is used here: attention, LayerNorm, GELU and the position table are computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

LEADS, PATCH, EPS = 12, 100, 1e-6

# Name: width, depth, heads; decoder width, depth, heads (where no own decoder is stated, that of `tiny`).
MAE_SIZES = {
    "pluto": (256, 2, 8, 160, 1, 8),
    "tiny": (384, 3, 6, 256, 2, 8),
    "tinyDeep": (192, 12, 3, 256, 2, 8),
    "small": (512, 4, 8, 256, 2, 8),
    "smallDeep": (384, 12, 6, 256, 2, 8),
    "medium": (640, 5, 10, 256, 2, 8),
    "mediumDeep": (576, 12, 8, 256, 2, 8),
    "large": (864, 6, 12, 256, 2, 8),
    "base": (768, 12, 12, 512, 8, 16),
    "tiny2": (384, 3, 6, 128, 2, 4),
    "pluto2": (256, 2, 8, 128, 2, 4),
}


def sincos(windows: int, width: int) -> Tensor:
    """Position table: dims [0, D/2) sines then cosines of the time index, [D/2, D) of the lead; a zero row for cls."""
    quarter = width // 4
    table = np.zeros((1 + LEADS * windows, width))
    for lead in range(LEADS):
        for t in range(windows):
            for i in range(quarter):
                omega = 10000.0 ** (-i / quarter)
                row = table[1 + lead * windows + t]
                row[i], row[quarter + i] = math.sin(t * omega), math.cos(t * omega)
                row[2 * quarter + i], row[3 * quarter + i] = math.sin(lead * omega), math.cos(lead * omega)
    return torch.from_numpy(table).float()[None]


def drawn(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.05, about: float = 0.0) -> Tensor:
        return about + scale * torch.randn(*shape, generator=generator)

    return draw


def block(draw: Callable[..., Tensor], prefix: str, d: int) -> dict[str, Tensor]:
    state = {}
    for n in (1, 2):
        state |= {f"{prefix}norm{n}.weight": draw(d, about=1.0), f"{prefix}norm{n}.bias": draw(d)}
    shapes = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
    for name, shape in shapes.items():
        state[f"{prefix}{name}.weight"] = draw(*shape, scale=0.6 / math.sqrt(shape[1]))
        state[f"{prefix}{name}.bias"] = draw(shape[0])
    return state


def encoder_state(d: int, depth: int, n_samples: int = 2500, learned: bool = False, seed: int = 0) -> dict[str, Tensor]:
    draw, windows = drawn(seed), n_samples // PATCH
    state = {"cls_token": draw(1, 1, d)}
    state["pos_embed"] = draw(1, 1 + LEADS * windows, d, scale=0.3) if learned else sincos(windows, d)
    state |= {"patch_embed.proj.weight": draw(d, 1, 1, PATCH, scale=0.1), "patch_embed.proj.bias": draw(d)}
    for i in range(depth):
        state |= block(draw, f"blocks.{i}.", d)
    return state | {"norm.weight": draw(d, scale=0.2, about=1.0), "norm.bias": draw(d, scale=0.2)}


def decoder_state(d: int, width: int, depth: int, n_samples: int = 2500, seed: int = 1) -> dict[str, Tensor]:
    draw = drawn(seed)
    state = {
        "decoder_embed.weight": draw(width, d), "decoder_embed.bias": draw(width), "mask_token": draw(1, 1, width),
        "decoder_pos_embed": sincos(n_samples // PATCH, width),
    }  # fmt: skip
    for i in range(depth):
        state |= block(draw, f"decoder_blocks.{i}.", width)
    state |= {"decoder_norm.weight": draw(width, about=1.0), "decoder_norm.bias": draw(width)}
    return state | {"decoder_pred.weight": draw(PATCH, width), "decoder_pred.bias": draw(PATCH)}


def siamese_state(d: int, seed: int = 2) -> dict[str, Tensor]:
    """The projector and the predictor of later versions; the second BatchNorm of the projector has no weights."""
    draw = drawn(seed)
    state = {"projector.0.weight": draw(1024, d), "projector.3.weight": draw(d, 1024)}
    state |= {"projector.4.running_mean": draw(d), "projector.4.running_var": torch.ones(d)}
    return state | {"predictor.0.weight": draw(128, d), "predictor.3.weight": draw(d, 128), "predictor.3.bias": draw(d)}


def finetuned_state(d: int, depth: int, pool: str, outputs: int, seed: int = 3) -> dict[str, Tensor]:
    draw, state = drawn(seed), encoder_state(d, depth)
    if pool != "cls":
        del state["norm.weight"], state["norm.bias"]
        state |= {"fc_norm.weight": draw(d, scale=0.4, about=1.0), "fc_norm.bias": draw(d, scale=0.4)}
    if pool == "attention":
        state |= {
            "attention_pool.in_proj_weight": draw(3 * d, d), "attention_pool.in_proj_bias": draw(3 * d),
            "attention_pool.out_proj.weight": draw(d, d), "attention_pool.out_proj.bias": draw(d),
        }  # fmt: skip
    return state | {"head.weight": draw(outputs, d), "head.bias": draw(outputs)}


def layer_norm(x: Tensor, weight: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + EPS) * weight + bias


def run_block(state: dict[str, Tensor], prefix: str, x: Tensor, heads: int) -> Tensor:
    def w(name: str) -> Tensor:
        return state[prefix + name]

    y = layer_norm(x, w("norm1.weight"), w("norm1.bias"))
    d = x.shape[-1]
    q, k, v = (y @ w("attn.qkv.weight").T + w("attn.qkv.bias")).split(d, dim=-1)  # rows q, k, v
    out = []
    for h in range(heads):  # within each, head-major
        part = slice(h * d // heads, (h + 1) * d // heads)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(d // heads)
        out.append(torch.softmax(scores, dim=-1) @ v[..., part])
    x = x + torch.cat(out, dim=-1) @ w("attn.proj.weight").T + w("attn.proj.bias")
    y = layer_norm(x, w("norm2.weight"), w("norm2.bias")) @ w("mlp.fc1.weight").T + w("mlp.fc1.bias")
    y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
    return x + y @ w("mlp.fc2.weight").T + w("mlp.fc2.bias")


def tokens(state: dict[str, Tensor], ecg: Tensor, heads: int, keep: Tensor | None = None) -> Tensor:
    """Tokens after the last block, cls first; `keep` (B, n) picks patches. A patch is 100 samples of one lead."""
    image = ecg[:, None]  # one channel, 12 x T
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = torch.nn.functional.conv2d(image, weight, bias, stride=(1, PATCH)).flatten(2).transpose(1, 2)
    x = x + state["pos_embed"][:, 1:]
    if keep is not None:
        x = torch.stack([row[chosen] for row, chosen in zip(x, keep, strict=True)])
    cls = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(x), -1, -1)
    x = torch.cat([cls, x], dim=1)
    for i in range(sum(key.endswith("norm1.bias") and key.startswith("blocks.") for key in state)):
        x = run_block(state, f"blocks.{i}.", x, heads)
    return x


def embed(state: dict[str, Tensor], ecg: Tensor, heads: int, how: str) -> Tensor:
    x = tokens(state, ecg, heads)
    if how == "pre_norm":
        return x[:, 1:].mean(1)
    if how == "mean":
        return layer_norm(x[:, 1:].mean(1))
    x = layer_norm(x, state["norm.weight"], state["norm.bias"])
    return x[:, 0] if how == "cls" else x[:, 1:].mean(1)


def attention_pool(state: dict[str, Tensor], patches: Tensor, heads: int) -> Tensor:
    """One query, the mean of the patches; keys and values are the patches."""
    d = patches.shape[-1]
    weight, bias = state["attention_pool.in_proj_weight"], state["attention_pool.in_proj_bias"]
    q = patches.mean(1, keepdim=True) @ weight[:d].T + bias[:d]
    k, v = patches @ weight[d : 2 * d].T + bias[d : 2 * d], patches @ weight[2 * d :].T + bias[2 * d :]
    out = []
    for h in range(heads):
        part = slice(h * d // heads, (h + 1) * d // heads)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(d // heads)
        out.append(torch.softmax(scores, dim=-1) @ v[..., part])
    return (torch.cat(out, -1) @ state["attention_pool.out_proj.weight"].T + state["attention_pool.out_proj.bias"])[
        :, 0
    ]


def finetuned(state: dict[str, Tensor], ecg: Tensor, heads: int, pool: str) -> tuple[Tensor, Tensor]:
    """Embedding (after one fc_norm) and raw outputs of the head (after the second)."""
    x = tokens(state, ecg, heads)
    if pool == "cls":
        vector = again = layer_norm(x, state["norm.weight"], state["norm.bias"])[:, 0]
    else:
        pooled = attention_pool(state, x[:, 1:], heads) if pool == "attention" else x[:, 1:].mean(1)
        vector = layer_norm(pooled, state["fc_norm.weight"], state["fc_norm.bias"])
        again = layer_norm(vector, state["fc_norm.weight"], state["fc_norm.bias"])
    return vector, again @ state["head.weight"].T + state["head.bias"]


def decode(state: dict[str, Tensor], visible: Tensor, keep: Tensor, heads: int) -> Tensor:
    """Predict all patches (B, N, 100) from visible tokens (cls first) and the numbers of the visible patches."""
    y = visible @ state["decoder_embed.weight"].T + state["decoder_embed.bias"]
    positions = state["decoder_pos_embed"]
    full = state["mask_token"].expand(len(y), positions.shape[1] - 1, -1).clone()
    for row, chosen in enumerate(keep):
        full[row, chosen] = y[row, 1:]
    y = torch.cat([y[:, :1], full], dim=1) + positions
    for i in range(sum("decoder_blocks" in key and key.endswith("norm1.bias") for key in state)):
        y = run_block(state, f"decoder_blocks.{i}.", y, heads)
    y = layer_norm(y, state["decoder_norm.weight"], state["decoder_norm.bias"])
    return (y @ state["decoder_pred.weight"].T + state["decoder_pred.bias"])[:, 1:]


def prepared(batch: int = 2, n_samples: int = 2500, seed: int = 9) -> Tensor:
    """ECGs as they come out of the preprocessing: standardized, with some that are large."""
    return torch.randn(batch, LEADS, n_samples, generator=torch.Generator().manual_seed(seed)) * 1.3
