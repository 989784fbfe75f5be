"""Inference on the CPU: embeddings by torch in float32 and bfloat16, by onnxruntime in float32 and int8; start-up.

    python benchmarks/inference.py [--presets nano tiny] [--batches 1 64] [--repeats 7] [--threads N] [--starts 3]

All sides hold the same random weights and read the same inputs, interleaved in one run; a ratio is taken within each
round, and median, smallest and largest are told. `reference` is the reference's arithmetic, written from its
description: patches by a convolution, attention in separate steps, float32. bfloat16 is measured as autocast (what
`load_model(dtype="bfloat16")` does) and with all weights in bfloat16. Agreement with torch float32 stands beside
each side. Start-up is that of fresh processes: import of the package, and first embedding of one 10 s recording by the
weights folder and by its ONNX export (which needs no torch).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mae_step import reference_block
from numpy.typing import NDArray
from torch import Tensor

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.onnx_export import export_onnx
from ecgcmr.hub.onnx_model import OnnxModel
from ecgcmr.hub.weights import load_weights, save_weights
from ecgcmr.models import EcgViT, create_ecg_encoder
from ecgcmr.models.blocks import Block

SIZES = {"nano": ("highpass", 250), "tiny": ("highpass500", 2500), "small": ("highpass500", 2500)}
Side = Callable[[], NDArray[np.float32]]

RECORDING = """
from ecgcmr.ecg.recording import EcgRecording
with np.load({recording!r}) as stored:
    recording = EcgRecording(stored["samples"], 500.0, tuple(stored["leads"].tolist()))
"""
FIRST = {
    "import ecgcmr": "import ecgcmr",
    "first embedding, torch": "import numpy as np, ecgcmr\nmodel = ecgcmr.load_model({weights!r})"
    + RECORDING
    + "assert np.isfinite(model.embed(recording)).all()",
    "first embedding, ONNX": "import numpy as np\nfrom ecgcmr.hub import OnnxModel\nmodel = OnnxModel({onnx!r})"
    + RECORDING
    + "x = model.spec.ecg_pipeline(recording)[None, :, : model.spec.input_shape('ecg')[1]]\n"
    "assert np.isfinite(model.encode(x)).all()",
}


def reference_embed(encoder: EcgViT, ecg: Tensor) -> Tensor:
    """The reference's arithmetic for an embedding."""
    x = encoder.patch_embed.proj(ecg[:, None]).flatten(2).transpose(1, 2) + encoder.pos_embed[:, 1:]
    x = torch.cat([(encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
    for block in cast(list[Block], encoder.blocks):
        x = reference_block(x, block)
    embedding: Tensor = encoder.fc_norm(x[:, 1:].mean(dim=1))
    return embedding


def write_folders(preset: str, place: Path) -> tuple[Path, Path]:
    """A weights folder with a random encoder, and its ONNX export with int8."""
    torch.manual_seed(0)
    pipeline, n_samples = SIZES[preset]
    card = {"name": preset, "stage": "random", "license": "MIT", "provenance": "simulated", "trained_on": "nothing"}
    modules = {"ecg": create_ecg_encoder(preset, n_samples)}
    weights = save_weights(place / preset, modules, named_pipeline(pipeline), None, card)
    return weights, export_onnx(weights, place / f"{preset}_onnx", int8=True)


def sides_of(weights: Path, onnx: Path, ecg: Tensor, threads: int) -> dict[str, Side]:
    encoder: Any = load_weights(weights).modules["ecg"]
    bf16: Any = load_weights(weights).modules["ecg"].to(torch.bfloat16)
    exact, small = OnnxModel(onnx, threads=threads), OnnxModel(onnx, int8=True, threads=threads)
    array = ecg.numpy()

    def autocast() -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = encoder(ecg)
        return out.float().numpy()

    return {
        "reference": lambda: reference_embed(encoder, ecg).numpy(),
        "torch float32": lambda: encoder(ecg).numpy(),
        "torch autocast": autocast,
        "torch bf16": lambda: bf16(ecg.to(torch.bfloat16)).float().numpy(),
        "ONNX float32": lambda: exact.encode(array),
        "ONNX int8": lambda: small.encode(array),
    }


def measure(sides: dict[str, Side], repeats: int, at_least: float) -> dict[str, list[float]]:
    """Seconds of one call of each side in each round; fast calls are repeated until they take `at_least` seconds."""
    calls = {}
    for name, side in sides.items():  # warms up, too
        side()
        start = time.perf_counter()
        side()
        calls[name] = max(1, round(at_least / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                side()
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return seconds


def summary(values: list[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def throughput(weights: Path, onnx: Path, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    leads, n_samples = OnnxModel(onnx).spec.input_shape("ecg") or (0, 0)
    ecg = torch.randn(batch, leads, n_samples, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sides = sides_of(weights, onnx, ecg, args.threads)
        outputs = {name: side().astype(np.float64) for name, side in sides.items()}
        seconds = measure(sides, args.repeats, args.at_least)
    exact, found = outputs["torch float32"], {}
    for name, values in seconds.items():
        other = outputs[name]
        cosine = (exact * other).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(other, axis=1)
        found[name] = {
            "samples_per_second": summary([batch / s for s in values]),
            "times_the_reference": summary([r / s for r, s in zip(seconds["reference"], values, strict=True)]),
            "smallest_cosine": float(cosine.min()),
            "largest_difference": float(np.abs(exact - other).max()),
        }
    assert found["reference"]["largest_difference"] < 1e-4, "the reference's arithmetic must be the same function"
    return found


def start_up(weights: Path, onnx: Path, place: Path, repeats: int) -> dict[str, list[float]]:
    """Wall time of fresh processes [s], the interpreter's own start included; `python -c pass` is told beside them."""
    recording = synthetic_recording()
    stored = place / "recording.npz"
    np.savez(stored, samples=recording.samples, leads=np.array(recording.leads))
    names = {"weights": str(weights), "onnx": str(onnx), "recording": str(stored)}
    programs = {"python alone": "pass"} | {title: text.format(**names) for title, text in FIRST.items()}
    seconds: dict[str, list[float]] = {title: [] for title in programs}
    for repeat in range(repeats + 1):  # the first round fills the disk cache and compiles what numba keeps
        for title, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            if repeat:
                seconds[title].append(time.perf_counter() - start)
    return {title: summary(values) for title, values in seconds.items()}


def show(report: dict[str, Any]) -> None:
    columns = ("samples/s", "min", "max", "x reference", "min", "max", "cosine")
    print(f"{'':<28}" + "".join(f"{name:>13}" for name in columns))
    for title, sides in report["throughput"].items():
        for name, found in sides.items():
            numbers = [*found["samples_per_second"], *found["times_the_reference"]]
            text = "".join(f"{value:>13.2f}" if i > 2 else f"{value:>13.1f}" for i, value in enumerate(numbers))
            print(f"{title:<13}{name:<15}{text}{found['smallest_cosine']:>13.6f}")
    for title, (median, low, high) in report["start_up_seconds"].items():
        print(f"{title:<28}{median:>13.2f}{low:>13.2f}{high:>13.2f}  s")
    print(f"load average {report['load_average'][0]:.1f} before, {report['load_average'][1]:.1f} after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["nano", "tiny"], choices=sorted(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--starts", type=int, default=3, help="fresh processes of each kind")
    parser.add_argument("--at-least", type=float, default=0.2, help="seconds of one measurement")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before, rates = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for preset in args.presets:
            weights, onnx = write_folders(preset, place)
            for batch in args.batches:
                rates[f"{preset}, B={batch}"] = throughput(weights, onnx, batch, args)
        starts = start_up(weights, onnx, place, args.starts) if args.starts else {}
    report = {
        "threads": args.threads,
        "torch": torch.__version__,
        "throughput": rates,
        "start_up_seconds": starts,
        "load_average": [before, os.getloadavg()[0]],
    }
    show(report)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
