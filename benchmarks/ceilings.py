"""What an ECG and a cine can tell about the heart: the ceilings of the simulated cohort (6.5 of its specification).

    python benchmarks/ceilings.py --subjects 4000                       # simulate (cached), then all three learners
    python benchmarks/ceilings.py --subjects 2000 --ecg-only --epochs 0 --set placement_mm=0   # what one nuisance costs

Test R2 with all labels of 4,000 subjects should lie in .45-.75 (LV mass), .35-.65 (LVEDV), .15-.45 (LVEF) from the
ECG, and above .9 (LVEDV) from three frames of the cine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from scipy.signal import find_peaks
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from torch import nn

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.simulation.acquisition import AcquisitionDesign
from ecgcmr.simulation.cine import render_mid3
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.electrical_latents import ElectricsDesign
from ecgcmr.simulation.phenotypes import measure
from ecgcmr.simulation.population import draw_heart
from ecgcmr.simulation.subject import simulate_heart

TARGETS = ("LVM", "LVEDV", "LVEF")
CROP = 64


def changed_design(changes: list[str]) -> Design:
    """The default design with FIELD=VALUE changes of itself or of its electrics or acquisition."""
    design = Design()
    for change in changes:
        name, _, text = change.partition("=")
        value = float(text)
        if name in {item.name for item in fields(ElectricsDesign)}:
            design = replace(design, electrics=replace(design.electrics, **{name: value}))
        elif name in {item.name for item in fields(AcquisitionDesign)}:
            design = replace(design, acquisition=replace(design.acquisition, **{name: value}))
        elif name in {item.name for item in fields(Design)}:
            design = replace(design, **{name: value})
        else:
            raise SystemExit(f"{name} is no field of Design, ElectricsDesign or AcquisitionDesign")
    return design


def simulate_block(job: tuple[Design, int, range, bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ECG (n, 12, 1000), median beats (n, 12, 350), images (n, 3, 64, 64) and targets (n, 3) of some subjects."""
    design, seed, subjects, with_cine = job
    pipeline = named_pipeline("highpass")
    ecgs, beats, images, targets = [], [], [], []
    for subject in subjects:
        heart, ecg = simulate_heart(draw_heart(design, seed, subject), design)
        signal = ecg.recording.millivolts
        ecgs.append(pipeline.apply_batch(signal[None], 500.0)[0].astype(np.float16))
        beats.append(median_beat(signal).astype(np.float16))
        phenotypes = measure(heart)
        targets.append([phenotypes[name] for name in TARGETS])
        if with_cine:
            pixels = np.asarray(render_mid3(heart, imaging=design.imaging).pixels[0])
            edge = (pixels.shape[-1] - CROP) // 2
            images.append(pixels[:, edge : edge + CROP, edge : edge + CROP])
    return np.stack(ecgs), np.stack(beats), np.array(images, np.uint8), np.array(targets)


def median_beat(signal: np.ndarray) -> np.ndarray:
    """Median beat (12, 350) at 500 Hz around the R peak, from the recording alone."""
    slow = signal - np.median(signal, axis=1, keepdims=True)
    speed = np.sqrt((np.diff(slow, axis=1) ** 2).sum(axis=0))
    energy = np.convolve(speed, np.ones(40) / 40, mode="same")
    peaks, _ = find_peaks(energy, height=0.4 * np.percentile(energy, 98), distance=150)
    starts = [p - 140 for p in peaks if p >= 140 and p + 210 <= signal.shape[1]]
    if len(starts) < 2:
        return np.zeros((signal.shape[0], 350))
    cut = np.stack([slow[:, s : s + 350] for s in starts])
    beat = np.median(cut - np.median(cut[:, :, 60:90], axis=2, keepdims=True), axis=0)
    spacing = np.median(np.diff(peaks)) / 500.0
    beat[:, -1] = spacing  # the rate rides along as one more sample
    return beat


def simulate(design: Design, seed: int, n: int, with_cine: bool, workers: int) -> dict[str, np.ndarray]:
    """Simulate or load from the cache."""
    key = hashlib.sha256(json.dumps([design.to_dict(), seed, n, with_cine, source_digest()]).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"ecgcmr_ceilings_{key}.npz"
    if path.exists():
        return dict(np.load(path))
    begin = time.perf_counter()
    jobs = [(design, seed, range(k, min(k + 50, n)), with_cine) for k in range(0, n, 50)]
    with ProcessPoolExecutor(workers) as pool:
        blocks = list(pool.map(simulate_block, jobs))
    names = ("ecg", "beat", "image", "target")
    data = {name: np.concatenate([block[k] for block in blocks]) for k, name in enumerate(names)}
    np.savez(path, **data)
    print(f"simulated {n} subjects in {time.perf_counter() - begin:.0f} s", flush=True)
    return data


def source_digest() -> str:
    """Digest of the simulator's source: a changed simulator is a new cache."""
    folder = Path(sys.modules["ecgcmr.simulation.electrics"].__file__ or "").parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def r2(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    residual = ((truth - prediction) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    return {name: round(float(1.0 - value), 3) for name, value in zip(TARGETS, residual, strict=True)}


def hand_features(beat: np.ndarray) -> np.ndarray:
    """Amplitudes, areas and widths of the median beat."""
    beat = beat.astype(np.float64)
    rate, beat = beat[:, 0, -1], beat[:, :, :-1]
    qrs, t = beat[:, :, 110:190], beat[:, :, 200:]
    size = np.sqrt((np.diff(beat, axis=2)[:, :, 100:200] ** 2).mean(axis=1))
    width = (size > 0.15 * size.max(axis=1, keepdims=True)).sum(axis=1)
    parts = [qrs.max(2), qrs.min(2), np.abs(qrs).mean(2), t.max(2), t.min(2), t.mean(2), beat[:, :, 20:100].max(2)]
    columns = np.concatenate([*parts, rate[:, None], width[:, None], np.log(width + 1.0)[:, None]], axis=1)
    product = (qrs.max(2) - qrs.min(2)) * width[:, None]
    return np.concatenate([columns, product, np.sqrt(np.abs(qrs.max(2) - qrs.min(2)))], axis=1)


def standardize(x: np.ndarray, train: slice) -> np.ndarray:
    return (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-9)


def classical(beat: np.ndarray, target: np.ndarray, train: slice, test: slice) -> dict[str, dict[str, float]]:
    """Ridge on hand features, and kernel ridge on principal components of the median beat."""
    x = np.clip(standardize(hand_features(beat), train), -5, 5)
    mean, sd = target[train].mean(axis=0), target[train].std(axis=0)
    y = (target - mean) / sd
    ridge = RidgeCV(np.logspace(-1, 4, 11)).fit(x[train], y[train])
    flat = beat[:, :, :-1:2].astype(np.float64).reshape(len(beat), -1)
    parts = PCA(40, random_state=0).fit(flat[train]).transform(flat)
    z = np.concatenate([standardize(parts, train), x], axis=1)
    best, kernel = -1e9, KernelRidge()
    cut = slice(int(train.stop * 0.8))
    rest = slice(int(train.stop * 0.8), train.stop)
    for gamma in (3e-4, 1e-3, 3e-3):
        for alpha in (0.1, 0.5, 2.0):
            model = KernelRidge(alpha=alpha, gamma=gamma, kernel="rbf").fit(z[cut], y[cut])
            score = float(-((model.predict(z[rest]) - y[rest]) ** 2).mean())
            if score > best:
                best, kernel = score, model
    kernel.fit(z[train], y[train])
    return {
        "ridge": r2(target[test], ridge.predict(x[test]) * sd + mean),
        "kernel": r2(target[test], kernel.predict(z[test]) * sd + mean),
    }


def ecg_network() -> nn.Module:
    layers: list[nn.Module] = []
    for i, (before, after, width) in enumerate([(12, 32, 9), (32, 48, 7), (48, 64, 7), (64, 96, 5), (96, 128, 5)]):
        layers += [nn.Conv1d(before, after, width, stride=2 if i < 4 else 1, padding=width // 2)]
        layers += [nn.BatchNorm1d(after), nn.GELU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, len(TARGETS)))


def image_network() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in [(3, 16), (16, 32), (32, 64), (64, 96)]:
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 128), nn.GELU(), nn.Linear(128, len(TARGETS)))


def train_network(
    model: nn.Module, data: torch.Tensor, target: np.ndarray, train: slice, test: slice, epochs: int
) -> dict[str, float]:
    """AdamW with a one-cycle schedule; ECGs are cropped to 5 s at a random start."""
    mean, sd = target[train].mean(axis=0), target[train].std(axis=0)
    goal = torch.as_tensor((target - mean) / sd, dtype=torch.float32)
    torch.manual_seed(0)
    n, batch = train.stop, 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * (n // batch))
    series = data.ndim == 3
    for _ in range(epochs):
        model.train()
        for index in torch.randperm(n)[: n // batch * batch].split(batch):
            x = data[index].float()
            if series:
                start = int(torch.randint(0, x.shape[2] - 500 + 1, (1,)))
                x = x[:, :, start : start + 500]
            loss = ((model(x) - goal[index]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        prediction = torch.cat([model(part.float()) for part in data[test].split(200)]).numpy()
    return r2(target[test], prediction * sd + mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ecg-only", action="store_true", help="no images")
    parser.add_argument("--epochs", type=int, default=25, help="of the ECG network; 0 for the classical learners alone")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", dest="changes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    design = changed_design(arguments.changes)
    data = simulate(design, arguments.seed, arguments.subjects, not arguments.ecg_only, arguments.workers)
    n = arguments.subjects
    train, test = slice(0, int(0.7 * n)), slice(int(0.8 * n), n)
    label = " ".join(arguments.changes) or "default"
    for name, scores in classical(data["beat"], data["target"], train, test).items():
        print(f"{label}: ECG {name}: {scores}", flush=True)
    networks = [("ECG network", ecg_network(), torch.from_numpy(data["ecg"]), arguments.epochs)]
    if not arguments.ecg_only:
        images = torch.from_numpy(data["image"]).div(128.0).sub(1.0).half()
        networks.insert(0, ("CMR network", image_network(), images, 20))
    for name, model, x, epochs in networks if arguments.epochs else []:
        begin = time.perf_counter()
        scores = train_network(model, x, data["target"], train, test, epochs)
        print(f"{label}: {name}: {scores} ({time.perf_counter() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
