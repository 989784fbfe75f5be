"""Named sizes of the ECG transformer and of its decoder: one name fixes width, depth, heads and patch length."""

from __future__ import annotations

from typing import Final

# `tiny` is the released reference model (arXiv 2308.05764); patches are in samples, at 500 Hz for all but nano.
ECG_PRESETS: Final[dict[str, dict[str, int]]] = {
    "nano": {"width": 96, "depth": 4, "heads": 4, "patch": 50},  # for 100 Hz: a patch is 0.5 s
    "tiny": {"width": 384, "depth": 3, "heads": 6, "patch": 100},
    "small": {"width": 512, "depth": 4, "heads": 8, "patch": 100},
    "base": {"width": 768, "depth": 12, "heads": 12, "patch": 100},
}

DECODER_PRESETS: Final[dict[str, dict[str, int]]] = {
    "nano": {"width": 48, "depth": 1, "heads": 2, "mlp_ratio": 2},
    "tiny": {"width": 256, "depth": 2, "heads": 8},
    "small": {"width": 256, "depth": 2, "heads": 8},
    "base": {"width": 512, "depth": 8, "heads": 16},
}


def preset_sizes(table: dict[str, dict[str, int]], name: str, what: str) -> dict[str, int]:
    """Look up a preset.

    Raises:
        ValueError: If there is no preset of that name; the message lists those there are.
    """
    if name not in table:
        raise ValueError(f"{what} preset {name!r} is unknown; choose one of {', '.join(table)}")
    return table[name]
