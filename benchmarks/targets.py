"""All rows of the speed targets in one run, interleaved, written as JSON from which docs/performance.md is filled.

    python benchmarks/targets.py --out docs/results/performance.json [--only mae align ...] [--rounds 5]
    python scripts/fill_performance.py

On an idle machine of two cores it takes six to ten minutes. Rows of parts that are not measured again keep the numbers
of the file. ECGCMR_BENCH_QUICK=1 takes sizes that only show that it runs; such a file is marked.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import align_step
import loader
import torch
from cmr_augmentation import torchvision_chain
from ecg_augmentation import CROP, Reference
from ecg_preprocessing import reference_chain, synthetic_recordings
from inference import reference_embed
from mae_step import our_step, reference_step
from sides import QUICK, Group, Side, agreement, gradient_check, measure, ratio, spread
from torch import Tensor

from ecgcmr.cmr.augmentation import CmrAugment
from ecgcmr.cmr.augmentation import augment_preset as cmr_preset
from ecgcmr.ecg.augmentation import AUGMENT_PRESETS, EcgAugment
from ecgcmr.ecg.crop import crop_random
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.folder import write_text
from ecgcmr.models import EcgMae, create_ecg_encoder
from ecgcmr.models.config import EcgDecoderConfig
from ecgcmr.models.ecg_mae import draw_masking
from ecgcmr.models.pieces import encode
from ecgcmr.training.bench.machine import peak_gflops, processor_name

SMALL = 8 if QUICK else 1
GFLOP = {"mae": 5.45, "align": 35.0, "embed": 3.64}
"""A sample, forward and backward, as `ecgcmr bench` counts them (tests/training/bench)."""


def preprocessing(fast: bool) -> Side:
    warnings.simplefilter("ignore")
    ecg, pipeline = synthetic_recordings(16), named_pipeline("reference")
    pipeline.apply_batch(ecg[:1], 500.0)
    if fast:
        return Side(lambda: pipeline.apply_batch(ecg, 500.0), len(ecg))
    return Side(lambda: reference_chain(ecg[0]), 1)


def ecg_augmentation(fast: bool) -> Side:
    ecg, random = torch.randn(64, 12, 2 * CROP), torch.Generator().manual_seed(0)
    if fast:
        ours = EcgAugment("mae")
        return Side(lambda: ours(crop_random(ecg, CROP, random), random, inplace=True), len(ecg))
    reference = Reference(AUGMENT_PRESETS["mae"])
    return Side(lambda: reference(ecg), len(ecg))


def cmr_augmentation(fast: bool) -> Side:
    images = torch.randint(0, 256, (64, 3, 78, 78), dtype=torch.uint8)
    if fast:
        ours = CmrAugment(type(cmr_preset("reference")).from_dict({**cmr_preset("reference").to_dict(), "size": 210}))
        random = torch.Generator().manual_seed(0)
        return Side(lambda: ours(images, random), len(images))
    floats, chain = images.float() / 255, torchvision_chain(cmr_preset("reference"), 210)
    return Side(lambda: torch.stack([chain(image) for image in floats]), len(images))


def mae(side: str, batch: int, views: int) -> Side:
    """A step with optimizer; the reference embeds all patches first and encodes `views` times."""
    batch //= SMALL
    torch.manual_seed(0)
    model = EcgMae(create_ecg_encoder("tiny", 2500), EcgDecoderConfig(preset="tiny"))
    ecg, random = torch.randn(batch, 12, 2500), torch.Generator().manual_seed(0)
    maskings = [draw_masking((batch, 300), 59, random) for _ in range(views)]
    ours, low = side != "reference", side == "bf16"
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, fused=ours or None)

    def loss() -> Tensor:
        if not ours:
            return reference_step(model, ecg, maskings)
        with torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext():
            return our_step(model, ecg, maskings[0])

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    value = loss()
    value.backward()
    return Side(step, batch, gradient_check(float(value.detach()), [p.grad for p in trained if p.grad is not None]))


@torch.no_grad()
def embed(side: str) -> Side:
    torch.manual_seed(0)
    encoder = create_ecg_encoder("tiny", 2500).eval()
    ecg = torch.randn(64 // SMALL, 12, 2500)
    low = copy.deepcopy(encoder).bfloat16() if side == "bf16" else encoder

    def once() -> Tensor:
        if side == "reference":
            return reference_embed(encoder, ecg)
        if side == "bf16":
            return encode(low, ecg.bfloat16()).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=side == "autocast"):
            return encode(encoder, ecg).float()

    def step() -> Tensor:
        with torch.no_grad():
            return once()

    exact, found = encoder(ecg), once()
    cosine = torch.nn.functional.cosine_similarity(exact.double(), found.double()).min()
    return Side(step, len(ecg), {"cosine": float(cosine), "difference": float((exact - found).abs().max())})


def _pair(make: Callable[[bool], Side], threads: int = 1) -> Group:
    slow = partial(make, False)
    return Group({"reference": slow, "reference+malloc": slow, "ours": partial(make, True)}, threads)


def _mae_group(batch: int, views: int, ours: tuple[str, ...]) -> Group:
    slow = partial(mae, "reference", batch, views)
    fast = {f"ours_{side}": partial(mae, side, batch, views) for side in ours}
    return Group({"reference": slow, "reference+malloc": slow, **fast})


GROUPS: dict[str, Group] = {
    "preprocessing": _pair(preprocessing),
    "ecg_augmentation": _pair(ecg_augmentation),
    "cmr_augmentation": _pair(cmr_augmentation),
    "mae_32": _mae_group(32, 2, ("fp32", "bf16")),
    "mae_64": _mae_group(64, 1, ("bf16",)),
    **align_step.GROUPS,
    **loader.GROUPS,
    "embed": Group(
        {
            "reference": partial(embed, "reference"),
            "reference+malloc": partial(embed, "reference"),
            "ours_fp32": partial(embed, "fp32"),
            "ours_autocast": partial(embed, "autocast"),
            "ours_bf16": partial(embed, "bf16"),
        }
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: a side of a group, and how many times the reference's rate it must and should reach.

    Attributes:
        title: What it is.
        group: Where it is measured.
        side: Which side of it.
        shipped: Must reach, against the reference as it ships.
        malloc: Must reach, against the reference with the allocator setting; None where that is not told.
        aim: Should reach.
    """

    title: str
    group: str
    side: str
    shipped: float
    malloc: float | None
    aim: float | None


ROWS = (
    Row("ECG preprocessing, 1 thread", "preprocessing", "ours", 100, 95, 200),
    Row("ECG augmentation chain, 1 thread", "ecg_augmentation", "ours", 4, 4, 6),
    Row("image augmentation, 1 thread", "cmr_augmentation", "ours", 4, 4, 6),
    Row("MAE step bf16, batch 32, two views", "mae_32", "ours_bf16", 3.5, 2.9, 5),
    Row("MAE step bf16, batch 64, one view", "mae_64", "ours_bf16", 5.5, 3.6, 7),
    Row("MAE step fp32, batch 32, two views", "mae_32", "ours_fp32", 2.1, 1.7, 2.8),
    Row("alignment step bf16, batch 16", "align", "ours_bf16", 2.7, 2.6, 3.5),
    Row("alignment step fp32, batch 16", "align", "ours_fp32", 1.6, 1.6, 2),
    Row("loader, MAE samples", "loader_mae", "ours", 1.9, None, 4),
    Row("loader, alignment samples", "loader_align", "ours", 3.5, None, 8),
    Row("ECG embeddings fp32, batch 64", "embed", "ours_fp32", 3, 1.75, None),
    Row("ECG embeddings bf16 (autocast), batch 64", "embed", "ours_autocast", 4.5, 2.9, 6),
    Row("ECG embeddings bf16 (weights), batch 64", "embed", "ours_bf16", 4.5, 2.9, 6),
)


def row_of(row: Row, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of one line."""
    shipped, malloc = (ratio(found, row.side, to) for to in ("reference", "reference+malloc"))
    met = shipped["median"] >= row.shipped and (row.malloc is None or malloc["median"] >= row.malloc)
    about: dict[str, Any] = {
        "title": row.title,
        "reference": spread(found["reference"]["samples_per_second"]),
        "reference_malloc": spread(found["reference+malloc"]["samples_per_second"]),
        "ours": spread(found[row.side]["samples_per_second"]),
        "times_shipped": shipped,
        "times_malloc": malloc,
        "must_shipped": row.shipped,
        "must_malloc": row.malloc,
        "aim": row.aim,
        "met": met,
    }
    check, to = found[row.side]["check"], found["reference"]["check"]
    if "projections" in check:
        about["agreement"] = agreement(check, to)
    elif check:
        about["agreement"] = check
    return about


def peaks() -> dict[str, float]:
    """Matrix throughput of two threads in both precisions [GFLOP/s]."""
    torch.set_num_threads(2)
    return {name: peak_gflops(torch.device("cpu"), getattr(torch, name), 1.0) for name in ("float32", "bfloat16")}


def shares(rows: Mapping[str, Mapping[str, Any]], peak: Mapping[str, float]) -> list[dict[str, Any]]:
    """Part of the matrix peak that steps and embeddings reach."""
    kinds = (
        ("MAE step bf16, batch 64, one view", "mae", "bfloat16", 0.45),
        ("MAE step fp32, batch 32, two views", "mae", "float32", None),
        ("alignment step bf16, batch 16", "align", "bfloat16", 0.45),
        ("alignment step fp32, batch 16", "align", "float32", None),
        ("ECG embeddings bf16 (weights), batch 64", "embed", "bfloat16", 0.5),
        ("ECG embeddings fp32, batch 64", "embed", "float32", None),
    )
    return [
        {"title": title, "share": rows[title]["ours"]["median"] * GFLOP[kind] / peak[name], "must": must}
        for title, kind, name, must in kinds
        if title in rows
    ]


def profile(side: str = "bf16", batch: int = 32, top: int = 12) -> list[dict[str, Any]]:
    """Where the time of an MAE step goes: operators by their own time, as torch.profiler counts it."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    made = mae(side, batch, 1)
    made.step()
    with profiler(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            made.step()
    events = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    return [
        {"operator": event.key, "share": event.self_cpu_time_total / whole, "calls": event.count / 3}
        for event in events[:top]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/performance.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parts = [*GROUPS, "opening", "memory", "profile"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"rows": {}}
    if arguments.out.is_file():
        report = json.loads(arguments.out.read_text())
    if report.get("quick", QUICK) != QUICK:
        raise SystemExit(f"{arguments.out} holds numbers of other sizes (quick: {report['quick']}); take another --out")
    report |= {"quick": QUICK, "peak_gflops": peaks()}
    begin, load = time.perf_counter(), os.getloadavg()[0]
    extra: dict[str, Callable[[], Any]] = {
        "opening": loader.opening,
        "memory": align_step.memory_at,
        "profile": lambda: {side: profile(side, 32) for side in ("bf16", "fp32")},
    }
    for name in arguments.only:
        print(f"{name} ... ({time.perf_counter() - begin:.0f} s)", flush=True)
        if name in extra:
            report[name] = extra[name]()
        else:
            group = GROUPS[name]
            found = measure("targets", name, Group(group.sides, group.threads, arguments.rounds))
            report["rows"] |= {row.title: row_of(row, found) for row in ROWS if row.group == name}
        report["rows"] = {row.title: report["rows"][row.title] for row in ROWS if row.title in report["rows"]}
        report["shares"] = shares(report["rows"], report["peak_gflops"])
        report["machine"] = {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "load_average": [load, os.getloadavg()[0]],
        }
        write_text(arguments.out, json.dumps(report, indent=1) + "\n")  # after each part: a long run may be stopped
    for title, row in report["rows"].items():
        times = row["times_shipped"]["median"], row["times_malloc"]["median"]
        print(f"{title:<44} {row['ours']['median']:>9.1f}/s  x{times[0]:.2f}, x{times[1]:.2f}  met: {row['met']}")


if __name__ == "__main__":
    main()
