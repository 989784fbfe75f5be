"""ECG augmentation: the reference arithmetic against ours, interleaved in one run on one thread.

    OMP_NUM_THREADS=1 python benchmarks/ecg_augmentation.py

The reference arithmetic is written anew from its description: one sample at a time, random crop, Fourier surrogate by
a float64 full FFT with antisymmetric phases, multiplicative jitter, rescaling. Times are CPU times of the one thread,
which other programs on the machine disturb least. Both get the same random numbers once
for the largest difference of the surrogate, which is the only step whose arithmetic differs.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecgcmr.ecg.augmentation import AUGMENT_PRESETS, AugmentConfig, EcgAugment, crop_random, fourier_surrogate

CROP = 2500


def reference_surrogate(ecg_LT: Tensor, turns_F: Tensor, eps: float) -> Tensor:
    """Surrogate of one sample by a float64 full FFT; `turns_F` are the random numbers of frequencies 1 .. T/2 - 1."""
    n = ecg_LT.shape[-1]
    spectrum = torch.fft.fft(ecg_LT.double(), dim=-1)
    zero = torch.zeros(1, dtype=torch.float64)
    middle = [zero] if n % 2 == 0 else []
    turns = torch.cat([zero, turns_F, *middle, -turns_F.flip(0)])
    return torch.fft.ifft(spectrum * torch.exp(eps * 2j * math.pi * turns), dim=-1).real.float()


@dataclass
class Reference:
    """The chain of one preset, sample by sample."""

    config: AugmentConfig

    def __call__(self, ecg_BLT: Tensor) -> Tensor:
        """Augment a batch in a loop."""
        return torch.stack([self._one(sample) for sample in ecg_BLT])

    def _one(self, ecg_LT: Tensor) -> Tensor:
        c = self.config
        start = int(torch.randint(0, ecg_LT.shape[-1] - CROP, ()))
        x = ecg_LT[:, start : start + CROP]
        if torch.rand(()) >= c.gate:
            return x
        if c.surrogate_eps > 0 and torch.rand(()) < c.surrogate_p:
            x = reference_surrogate(x, torch.rand((CROP - 1) // 2, dtype=torch.float64), c.surrogate_eps)
        if c.jitter_sigma > 0:
            x = x + c.jitter_amplitude * x * torch.normal(0.0, c.jitter_sigma, x.shape)
        if c.rescale_sigma > 0:
            x = x * torch.normal(1.0, c.rescale_sigma, ())
        return x


def surrogate_difference(ecg_BLT: Tensor, eps: float = 0.1) -> float:
    """Largest difference between our float32 surrogate and the float64 one, over the signal's largest value."""
    turns = torch.rand(len(ecg_BLT), CROP // 2 + 1, dtype=torch.float64)
    expected = torch.stack([reference_surrogate(x, u[1:-1], eps) for x, u in zip(ecg_BLT, turns, strict=True)])
    got = fourier_surrogate(ecg_BLT, (turns * eps * 2 * math.pi).float())
    return float((got - expected).abs().max() / ecg_BLT.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    ecg = torch.randn(arguments.batch, 12, 2 * CROP)
    for preset in ("mae", "mmcl", "finetune", "light"):
        reference, ours = Reference(AUGMENT_PRESETS[preset]), EcgAugment(preset)
        slow, fast = [], []
        for k in range(arguments.rounds + 1):
            begin = time.process_time()
            reference(ecg)
            between = time.process_time()
            ours(crop_random(ecg, CROP, generator), generator, inplace=True)
            if k > 0:  # the first round warms up
                slow.append(between - begin)
                fast.append(time.process_time() - between)
        ratio = np.array(slow) / np.array(fast)
        per_second = len(ecg) / np.median(slow), len(ecg) / np.median(fast)
        print(
            f"{preset:9s} samples/s: reference {per_second[0]:6.0f}, ours {per_second[1]:6.0f}"
            f"   ratio {np.median(ratio):5.2f} [{ratio.min():.2f}, {ratio.max():.2f}]"
        )
    print(f"largest difference of the surrogate: {surrogate_difference(ecg[..., :CROP]):.1e} of the largest value")


if __name__ == "__main__":
    main()
