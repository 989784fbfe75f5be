"""Windows of ECG batches: the first samples in evaluation, a random window in training."""

from __future__ import annotations

import torch
from torch import Tensor

Shard = tuple[int, int]


def crop_start(ecg_BLT: Tensor, n: int) -> Tensor:
    """Return the first n samples (B, L, n): the crop of evaluation."""
    _check_crop(ecg_BLT, n)
    return ecg_BLT[..., :n]


def crop_random(
    ecg_BLT: Tensor, n: int, generator: torch.Generator, shard: Shard = (0, 1), legacy: bool = False
) -> Tensor:
    """Return n consecutive samples of each sample, all leads alike; the start is uniform over 0 .. T - n.

    Args:
        ecg_BLT: (B, L, T).
        n: Length of the crop.
        generator: In the same state on every rank.
        shard: (rank, world) of this part of the global batch.
        legacy: Never draw the last start T - n, as the reference (arXiv 2308.05764, its code); T == n gives 0.

    Returns:
        (B, L, n), a copy.
    """
    _check_crop(ecg_BLT, n)
    batch = ecg_BLT.shape[0]
    rank, world = shard
    surplus = ecg_BLT.shape[-1] - n
    spread = max(surplus, 1) if legacy else surplus + 1
    start = torch.randint(spread, (batch * world,), generator=generator, device=generator.device)
    start = start[rank * batch : (rank + 1) * batch].to(ecg_BLT.device)
    if ecg_BLT.device.type == "cpu":  # copying runs of memory is twice as fast as gathering; elsewhere it would wait
        return torch.stack([x.narrow(-1, s, n) for x, s in zip(ecg_BLT, start.tolist(), strict=True)])
    windows = ecg_BLT.unfold(-1, n, 1)  # a view (B, L, T - n + 1, n)
    return windows[torch.arange(batch, device=ecg_BLT.device), :, start]


def _check_crop(ecg_BLT: Tensor, n: int) -> None:
    if not 0 < n <= ecg_BLT.shape[-1]:
        raise ValueError(f"cannot crop {n} samples from {ecg_BLT.shape[-1]}")
