"""Measure the batched CMR augmentation against torchvision's transforms sample by sample, interleaved, one thread.

Run from the root of the repository: `python benchmarks/cmr_augmentation.py`. The two sides draw from the same
distribution (tests/cmr/test_cmr_augmentation.py compares them). torchvision runs on uint8 and on float; the faster
one counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torchvision import transforms

from ecgcmr.cmr.augmentation import PRESETS, CmrAugment, CmrAugmentConfig


def torchvision_chain(config: CmrAugmentConfig, size: int) -> transforms.Compose:
    """The same chain as the reference composes it (arXiv:2308.05764)."""
    return transforms.Compose(
        [
            transforms.RandomHorizontalFlip(config.flip),
            transforms.RandomRotation(config.rotation_deg),
            transforms.ColorJitter(config.brightness, config.contrast, config.saturation),
            transforms.RandomResizedCrop(size, config.scale, config.ratio, antialias=True),
        ]
    )


def rate(run: Callable[[], object], samples: int) -> float:
    """Samples per second of one call."""
    start = time.perf_counter()
    run()
    return samples / (time.perf_counter() - start)


def compare(side: int, size: int, batch: int, rounds: int) -> None:
    config = PRESETS["reference"]
    ours = CmrAugment(CmrAugmentConfig.from_dict({**config.to_dict(), "size": size}))
    theirs = torchvision_chain(config, size)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    floats = images.float() / 255.0
    generator = torch.Generator().manual_seed(0)
    runs: dict[str, Callable[[], object]] = {
        "torchvision, uint8 then float": lambda: torch.stack([theirs(image).float() / 255.0 for image in images]),
        "torchvision, float": lambda: torch.stack([theirs(image) for image in floats]),
        "ecgcmr": lambda: ours(images, generator),
    }
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(rate(run, batch))
    print(f"3 x {side} x {side} -> 3 x {size} x {size}, batch {batch}, {rounds} rounds, one thread [samples/s]")
    for name, values in rates.items():
        print(f"  {name:30s} median {statistics.median(values):9.0f}  min {min(values):9.0f}  max {max(values):9.0f}")
    best = max(statistics.median(values) for name, values in rates.items() if name != "ecgcmr")
    print(f"  ratio to the faster torchvision: {statistics.median(rates['ecgcmr']) / best:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for side, size in ((78, 210), (64, 64)):
        compare(side, size, options.batch, options.rounds)


if __name__ == "__main__":
    main()
