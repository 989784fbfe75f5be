"""The ECG transformer of the reference family: its sizes from the shapes in a file, its options, and the filled module.

Layout by arXiv 2308.05764 and its released files: cls_token, pos_embed, patch_embed.proj, blocks.i.*, norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import EcgPipeline, Step, named_pipeline
from ecgcmr.hub.convert.registry import AUTO
from ecgcmr.hub.convert.state import State
from ecgcmr.hub.convert.values import number_option, whole_option, word_option
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.positions import sincos_table
from ecgcmr.models.presets import ECG_PRESETS

# (width, depth) to name and heads: no file holds the heads. Only tiny, small and base agree between the two packages.
MAE_SIZES = {
    (256, 2): ("pluto", 8), (384, 3): ("tiny", 6), (192, 12): ("tinyDeep", 3), (512, 4): ("small", 8),
    (384, 12): ("smallDeep", 6), (640, 5): ("medium", 10), (576, 12): ("mediumDeep", 8), (864, 6): ("large", 12),
    (768, 12): ("base", 12),
}  # fmt: skip
MMCL_SIZES = {
    (384, 3): ("tiny", 6), (512, 4): ("small", 8), (640, 6): ("medium", 8), (768, 8): ("big", 8),
    (768, 12): ("base", 12), (1024, 24): ("large", 16),
}  # fmt: skip
DING_SIZES = {(768, 12): ("base", 12), (1024, 24): ("large", 16)}
Sizes = Mapping[tuple[int, int], tuple[str, int]]

TABLE_TOLERANCE = 1e-6
"""The fixed position table of the published files equals ours to this."""
ROUNDING = 1e-4
"""Up to here a difference is the rounding of a table that was made in another precision."""


@dataclass(frozen=True)
class VitSize:
    """What shapes tell of a transformer; `tokens` is the number of patches, `name` that of the published size."""

    width: int
    depth: int
    hidden: int
    patch: int
    tokens: int

    @property
    def n_samples(self) -> int:
        """Input length that the position table is for [samples]."""
        return self.tokens // len(LEADS) * self.patch

    def shapes(self, norm: bool = True) -> dict[str, tuple[int, ...]]:
        """Give every key of the encoder with its shape; `norm` says whether the closing norm is among them."""
        d = self.width
        shapes: dict[str, tuple[int, ...]] = {
            "cls_token": (1, 1, d),
            "pos_embed": (1, 1 + self.tokens, d),
            "patch_embed.proj.weight": (d, 1, 1, self.patch),
            "patch_embed.proj.bias": (d,),
        }
        for i in range(self.depth):
            shapes |= block_shapes(f"blocks.{i}.", d, self.hidden)
        return shapes | ({"norm.weight": (d,), "norm.bias": (d,)} if norm else {})


def block_shapes(prefix: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Give the keys of one transformer block with their shapes."""
    weights = {
        "attn.qkv": (3 * width, width), "attn.proj": (width, width),
        "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}norm{n}.{part}": (width,) for n in (1, 2) for part in _AFFINE}
    for name, shape in weights.items():
        shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
    return shapes


_AFFINE = ("weight", "bias")


def vit_size(state: State) -> VitSize:
    """Read the sizes off the shapes.

    Raises:
        ValueError: If a telling key is missing, or the shapes are not those of patches of single leads.
    """
    width = state.shape("cls_token", 3)[-1]
    tokens = state.shape("pos_embed", 3)[1] - 1
    patch = state.shape("patch_embed.proj.weight", 4)
    if patch[1:3] != (1, 1):
        raise ValueError(
            f"{state.file}: patch_embed.proj.weight has shape {patch}, expected ({width}, 1, 1, P): patches of one lead"
        )
    if tokens < 1 or tokens % len(LEADS):
        raise ValueError(
            f"{state.file}: pos_embed has {tokens} rows beside that of cls, no multiple of {len(LEADS)} leads"
        )
    hidden = state.shape("blocks.0.mlp.fc1.weight", 2)[0]
    return VitSize(width, state.count("blocks.{}."), hidden, patch[3], tokens)


def choose_heads(size: VitSize, sizes: Sizes, options: Mapping[str, str], file: Path) -> tuple[int, str]:
    """Choose the number of heads, which no file holds.

    Returns:
        The number and a sentence that says where it comes from.

    Raises:
        ValueError: If it does not divide the width, or nothing says it.
    """
    known = sizes.get((size.width, size.depth))
    shape = f"width {size.width}, depth {size.depth}"
    if options["heads"] != AUTO:
        heads, why = whole_option(options, "heads", 1), "as the option says"
    elif known:
        heads, why = known[1], f"by the published size {known[0]!r} ({shape})"
    elif size.width % 64 == 0:
        heads, why = size.width // 64, f"width / 64, as {shape} is no published size; give --option heads=N if not so"
    else:
        raise ValueError(f"{file}: {shape} is no published size and no multiple of 64; give --option heads=N")
    if size.width % heads:
        raise ValueError(f"{file}: heads={heads} does not divide the width {size.width}")
    return heads, f"Attention heads are not in the file: {heads}, {why}."


def build_vit(
    size: VitSize, tensors: Mapping[str, Tensor], heads: int, pool: str, n_samples: int, learn_positions: bool = False
) -> EcgViT:
    """Build the encoder, fill it, and fit it to an input length.

    Args:
        size: Its sizes.
        tensors: By key; parts of the pooling that are not among them keep their identity (LayerNorm: 1 and 0).
        heads: Attention heads.
        pool: As in `EcgEncoderConfig`.
        n_samples: Wanted input length [samples].
        learn_positions: Whether the position table was trained.
    """
    name = next((n for n, p in ECG_PRESETS.items() if (p["width"], p["depth"]) == (size.width, size.depth)), "tiny")
    config = {
        "preset": name, "n_samples": size.n_samples, "patch": size.patch, "width": size.width, "depth": size.depth,
        "heads": heads, "mlp_ratio": size.hidden / size.width, "pool": pool, "learn_positions": learn_positions,
    }  # fmt: skip
    encoder = EcgViT(config)
    own = encoder.state_dict()
    identity = ("norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias")
    assert {key for key in own if key not in tensors} <= set(identity), "a key has no tensor"
    encoder.load_state_dict({**own, **tensors})
    return (encoder if n_samples == size.n_samples else encoder.resized(n_samples)).eval()


def choose_input(size: VitSize, options: Mapping[str, str], file: Path) -> tuple[EcgPipeline, int, list[str]]:
    """Choose the pipeline and the input length.

    Returns:
        The pipeline, the length [samples] and sentences about the choice.

    Raises:
        ValueError: For an unknown pipeline, a rate or length that is no number, or a length that the pipeline does not
            give or that is no multiple of the patch.
    """
    pipeline = named_pipeline(options["pipeline"])
    if options["rate_hz"] != AUTO:
        hz = number_option(options, "rate_hz", 500.0)
        steps = tuple(Step(s.name, {**s.params, "hz": hz}) if s.name == "to_rate" else s for s in pipeline.steps)
        pipeline = EcgPipeline(f"{pipeline.name}_{hz:g}hz", steps, pipeline.requires_mv)
    n_samples, notes = whole_option(options, "n_samples", size.n_samples), []
    if n_samples % size.patch:
        raise ValueError(f"{file}: n_samples={n_samples} is no multiple of the patch of {size.patch} samples")
    if n_samples != size.n_samples:
        notes.append(
            f"pos_embed is interpolated along time (bicubic, align_corners False, cls row kept) from {size.n_samples} "
            f"to {n_samples} samples."
        )
    if n_samples > pipeline.n_samples:
        raise ValueError(
            f"{file}: the encoder reads {n_samples} samples, but the pipeline {pipeline.name!r} gives "
            f"{pipeline.n_samples} ({pipeline.rate_hz:g} Hz); give another pipeline, rate_hz or n_samples"
        )
    seconds = n_samples / pipeline.rate_hz
    notes.append(
        f"Input: pipeline {pipeline.name!r} at {pipeline.rate_hz:g} Hz, the first {n_samples} samples ({seconds:g} s)."
    )
    return pipeline, n_samples, notes


def check_table(key: str, table: Tensor, options: Mapping[str, str], file: Path) -> list[str]:
    """Compare a fixed position table with the sin-cos table: the one thing that shows shuffled tensors.

    Args:
        key: Its key.
        table: (1, 1 + 12 W, D) as in the file, in the precision it is stored in.
        options: Of which `positions` is "check" or "keep".
        file: For messages.

    Returns:
        A sentence if it differs and is kept.

    Raises:
        ValueError: If it is another table; the message says which, if that can be told.
    """
    option = word_option(options, "positions", ("check", "keep"))
    width, windows = table.shape[2], (table.shape[1] - 1) // len(LEADS)
    expected, found = sincos_table(len(LEADS), windows, width), table.float()
    difference = float((found - expected).abs().max())
    if difference <= TABLE_TOLERANCE:
        return []
    if difference <= max(ROUNDING, 4 * torch.finfo(table.dtype).eps):
        return [f"{key} differs from the sin-cos table by {difference:.1g}, as rounding would; it is as in the file."]
    what = _other_table(expected, found, windows)
    if option == "keep":
        return [f"{key} is not the sin-cos table (up to {difference:.2g} away: {what}); it is kept as the option says."]
    raise ValueError(
        f"{file}: {key} is up to {difference:.2g} away from the sin-cos table that masked autoencoders of this family "
        f"keep fixed: {what}. If you know that the file is right, give --option positions=keep"
    )


def _other_table(expected: Tensor, found: Tensor, windows: int) -> str:
    half = expected.shape[2] // 2
    exchanged = torch.cat([expected[..., half:], expected[..., :half]], dim=-1)
    grid = expected[:, 1:].reshape(len(LEADS), windows, -1).transpose(0, 1).reshape(1, -1, 2 * half)
    time_major = torch.cat([expected[:, :1], grid], dim=1)
    if torch.allclose(found, exchanged, atol=ROUNDING):
        return "the halves for time and lead are exchanged, so this is another layout"
    if torch.allclose(found, time_major, atol=ROUNDING):
        return "its rows go by time and not by lead, so this is another order of tokens"
    return "positions that were trained (as in signal_encoder_mmcl), or tensors that were exchanged"
