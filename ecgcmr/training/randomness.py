"""All random streams of a run, derived from (seed, purpose, epoch, step)."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Give a 63-bit seed for one purpose; different purposes and indices give independent streams.

    Args:
        seed: The seed of the run, 0 or larger.
        purpose: What the numbers are for, for instance "step" or "init".
        indices: Epoch, step, rank, ...: whatever distinguishes one use from the next.

    Returns:
        A seed in [0, 2**63).
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *indices])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(device: torch.device | str, seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Give a torch generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *indices))
