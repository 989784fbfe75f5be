"""Samples a second of the loader with augmentation, in process: the reference's way against ours, interleaved.

    python benchmarks/loader.py [--rounds 5]

The reference's way is written from its description: one tensor file for all ECGs and one for all images, held in memory
as float32; each sample is cropped and augmented by itself (the ECG in float64 for the surrogate, the image by
torchvision from a fixed 78 x 78 window), then samples are stacked. Ours reads memory-mapped prepared arrays of a cohort
and augments the batch. Both draw from the same distributions (tests/ecg, tests/cmr). Opening is told beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cmr_augmentation import torchvision_chain
from ecg_augmentation import Reference
from sides import QUICK, Group, Side, measure, ratio, spread
from torch import Tensor
from torchvision.transforms.functional import resize

from ecgcmr.cmr.augmentation import CmrAugment, CmrAugmentConfig
from ecgcmr.cmr.augmentation import augment_preset as cmr_preset
from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.augmentation import AUGMENT_PRESETS, EcgAugment
from ecgcmr.ecg.crop import crop_random
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.training.bench.cohort import write_noise_cohort

SUBJECTS = 32 if QUICK else 128
BATCH = 16 if QUICK else 64
OPENED = 40 if QUICK else 1000
TOP, LEFT, WINDOW, FRAME = 44, 68, 78, 210
GATE = 0.95


@functools.cache
def cohort() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """A cohort of noise; the folder goes away with the process."""
    folder = tempfile.TemporaryDirectory()
    return folder, write_noise_cohort(Path(folder.name) / "cohort", SUBJECTS)


def reference_mae() -> Side:
    ecg = torch.randn(SUBJECTS, 12, 5000)
    augment = Reference(AUGMENT_PRESETS["mae"])

    def step() -> Tensor:
        picked = torch.randint(0, SUBJECTS, (BATCH,)).tolist()
        return torch.stack([augment(ecg[i][None])[0] for i in picked])

    return Side(step, BATCH)


def reference_align() -> Side:
    ecg, frames = torch.randn(SUBJECTS, 12, 5000), torch.rand(SUBJECTS, 3, FRAME, FRAME)
    augment, images = Reference(AUGMENT_PRESETS["mmcl"]), torchvision_chain(cmr_preset("reference"), FRAME)

    def image(i: int) -> Tensor:
        cut = frames[i][:, TOP : TOP + WINDOW, LEFT : LEFT + WINDOW]
        changed = images(cut) if torch.rand(()) < GATE else resize(cut, [FRAME, FRAME], antialias=True)
        return torch.as_tensor(changed)

    def step() -> tuple[Tensor, Tensor]:
        picked = torch.randint(0, SUBJECTS, (BATCH,)).tolist()
        return torch.stack([augment(ecg[i][None])[0] for i in picked]), torch.stack([image(i) for i in picked])

    return Side(step, BATCH)


def ours_mae() -> Side:
    _, path = cohort()
    data = PairedDataset(
        Cohort.open(path), np.arange(SUBJECTS), ecg_pipeline("reference"), options=DatasetOptions(require="ecg")
    )
    augment, random = EcgAugment("mae"), torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)

    def step() -> Tensor:
        ecg = data.batch(rng.permutation(SUBJECTS)[:BATCH])["ecg"]
        return augment(crop_random(ecg, 2500, random), random, inplace=True)

    return Side(step, BATCH)


def ours_align() -> Side:
    _, path = cohort()
    data = PairedDataset(
        Cohort.open(path), np.arange(SUBJECTS), ecg_pipeline("reference"), cmr_pipeline("reference_crop"),
        options=DatasetOptions(require="both"),
    )  # fmt: skip
    augment, random = EcgAugment("mmcl"), torch.Generator().manual_seed(0)
    images = CmrAugment(CmrAugmentConfig.from_dict({**cmr_preset("reference").to_dict(), "gate": GATE}))
    rng = np.random.default_rng(0)

    def step() -> tuple[Tensor, Tensor]:
        batch = data.batch(rng.permutation(SUBJECTS)[:BATCH])
        ecg = augment(crop_random(batch["ecg"], 2500, random), random, inplace=True)
        return ecg, images(batch["cmr"], random)

    return Side(step, BATCH)


GROUPS = {
    "loader_mae": Group({"reference": reference_mae, "reference+malloc": reference_mae, "ours": ours_mae}),
    "loader_align": Group({"reference": reference_align, "reference+malloc": reference_align, "ours": ours_align}),
}


def opening(n: int = OPENED) -> dict[str, Any]:
    """Seconds and memory [MiB] to open n subjects: the tensor files of the reference, and a cohort."""
    found: dict[str, Any] = {"subjects": n}
    with tempfile.TemporaryDirectory() as folder:
        path = write_noise_cohort(Path(folder) / "cohort", n)
        before, start = _peak_mib(), time.perf_counter()
        opened = Cohort.open(path)
        found["ours_seconds"], found["ours_mib"] = time.perf_counter() - start, _peak_mib() - before
        assert len(opened.subjects) == n
        files = [Path(folder) / name for name in ("ecg.pt", "images.pt")]
        for file, shape in zip(files, ((n, 12, 5000), (n, 3, FRAME, FRAME)), strict=True):
            torch.save(torch.zeros(shape), file)
        before, start = _peak_mib(), time.perf_counter()
        held = [torch.load(file, weights_only=True) for file in files]
        found["reference_seconds"] = time.perf_counter() - start
        found["reference_mib"] = sum(tensor.nbytes for tensor in held) / 2**20
    return found | {"times_reference": found["reference_seconds"] / found["ours_seconds"]}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    report: dict[str, Any] = {"opening": opening()}
    for name, group in GROUPS.items():
        found = measure("loader", name, Group(group.sides, group.threads, rounds))
        report[name] = {
            "samples_per_second": {side: spread(about["samples_per_second"]) for side, about in found.items()},
            "times reference": ratio(found, "ours", "reference"),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
