"""A cohort whose ECGs carry a latent number, labels that depend on it and on age and sex, and weights that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.ledger import LedgerRow, Reason
from ecgcmr.cohort.schema import CohortSchema, LabelSpec
from ecgcmr.cohort.splits import make_split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.writer import CohortWriter
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.embeddings import EmbedOptions, embed
from ecgcmr.hub.weights import save_weights
from ecgcmr.models.build import build_module

SPECS = (
    LabelSpec("mass", "regression", "g", "myocardial mass"),
    LabelSpec("old_mi", "binary", description="old infarction"),
    LabelSpec("hf_time_years", "time", "years"),
    LabelSpec("hf_event", "event", description="incident heart failure"),
    LabelSpec("late_time_years", "time", "years"),
    LabelSpec("late_event", "event", description="an event that nobody had"),
    LabelSpec("absent", "regression", "ml", "measured in nobody"),
    LabelSpec("flat", "regression", "ml", "the same in all"),
    LabelSpec("one_class", "binary", description="nobody has it"),
    LabelSpec("few", "regression", "ml", "measured in one subject of fifty"),
    LabelSpec("stage", "category", values=("none", "mild", "severe")),
)
RATE, SAMPLES = 100.0, 500


def latent(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"z": rng.normal(size=n), "age": rng.uniform(40, 80, n), "male": rng.integers(0, 2, n).astype(float)}


def make_ecg(z: float, rng: np.random.Generator) -> EcgRecording:
    """A beat each second; the relation of two deflections of it is the latent number."""
    t = np.arange(SAMPLES) / RATE % 1.0
    wave = np.exp(-(((t - 0.3) / 0.02) ** 2)) + (0.4 + 0.25 * z) * np.exp(-(((t - 0.6) / 0.05) ** 2))
    signal = np.linspace(0.5, 1.5, 12)[:, None] * wave[None] + rng.normal(0, 0.02, (12, SAMPLES))
    return EcgRecording(signal.astype(np.float32), RATE, LEADS, "mV", "generated")


def write_planted(out: Path, n: int = 240, seed: int = 0, recordings: int = 1, known: bool = True) -> Path:
    """Subjects 0 ... n - 1 (60/20/20); every tenth has no BMI, the last has no recording.

    With `known` false nothing is known of a subject but the labels.
    """
    rng = np.random.default_rng([seed, 1])
    who = latent(n, seed)
    risk = 0.9 * who["z"] + 0.04 * (who["age"] - 60)
    years, lost = rng.exponential(12 * np.exp(-risk)), rng.uniform(2, 12, n)
    with CohortWriter(out, {"kind": "planted", "n": n, "seed": seed}, 1) as writer:
        with writer.chunk(0) as rows:
            for k in range(n):
                z, age, male = (float(who[name][k]) for name in ("z", "age", "male"))
                bmi = float("nan") if k % 10 == 0 else float(22 + 8 * rng.random())
                fields = {"sex": "male" if male else "female", "age_years": age, "site": str(k % 3), "bmi": bmi}
                nothing = {"sex": None, "age_years": float("nan"), "site": "a", "bmi": float("nan")}
                rows.add_subject(k, fields if known else nothing)
                for visit in range(recordings if k < n - 1 else 0):
                    row = rows.add_recording(make_ecg(z, rng), k, float(visit))
                    rows.add_ledger(LedgerRow(f"{k}.{visit}", "ecg", "kept", row=row))
                if k == n - 1:
                    rows.add_ledger(LedgerRow(f"{k}.0", "ecg", "dropped", Reason.TOO_SHORT, "0.5 s"))
                mass = 100 + 20 * z + 0.6 * (age - 60) + 12 * male + rng.normal(0, 8)
                chance = 1 / (1 + np.exp(-(-0.5 + 1.6 * z + 0.06 * (age - 60))))
                values = {
                    "mass": mass, "old_mi": float(rng.random() < chance), "absent": np.nan, "flat": 7.0,
                    "one_class": 0.0, "few": mass if k % 50 == 0 else np.nan,
                    "stage": float(np.digitize(z, [-0.5, 0.8])),
                    "hf_time_years": min(years[k], lost[k]), "hf_event": float(years[k] <= lost[k]),
                    "late_time_years": lost[k], "late_event": 0.0,
                }  # fmt: skip
                rows.add_labels(k, values)
        writer.merge_ready()
        schema = CohortSchema("planted", "simulated", "0", labels=SPECS, group_columns=("site",))
        split = make_split(np.arange(n), seed=seed, fractions=(0.6, 0.2, 0.2))
        return writer.finish(writer.collect(), schema, [split])


def write_weights(folder: Path, cohort: Path, labels: Sequence[Mapping[str, str]], run: Mapping | None = None) -> Path:
    """A small random encoder with a linear head that was fitted to the latent number on training subjects."""
    torch.manual_seed(0)
    encoder = build_module({"kind": "ecg_vit", "n_samples": 200, "width": 32, "depth": 1, "heads": 2, "patch": 20})
    pipeline = named_pipeline("highpass")
    opened = Cohort.open(cohort)
    dataset = PairedDataset(opened, open_split(opened).train, pipeline, options=DatasetOptions(require="ecg"))
    found = embed(encoder, dataset, options=EmbedOptions(crop_samples=200))
    x = np.concatenate([np.ones((len(found.values), 1)), found.values], axis=1).astype(np.float64)
    z = latent(len(opened))["z"][found.subjects]
    fit = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ z)
    kind = "class_head" if any(label.get("class") for label in labels) else "prediction_head"
    plain = [{key: value for key, value in label.items() if key != "class"} for label in labels]
    head = build_module({"kind": kind, "in_features": 32, "labels": plain})
    slopes = {"regression": (0.9, 0.0), "binary": (1.6, -0.5)}
    with torch.no_grad():
        for k, label in enumerate(labels):
            slope, level = slopes[label["kind"]]
            if kind == "class_head":
                slope, level = 3.0 * (k - 1), [0.0, 1.0, 0.0][k]
            head.layers[0].weight[k] = torch.from_numpy(slope * fit[1:]).float()
            head.layers[0].bias[k] = float(slope * fit[0] + level)
        scaled = [label["kind"] == "regression" and label["unit"] != "log hazard" for label in labels]
        if kind == "prediction_head":
            head.set_statistics([105.0 if s else 0.0 for s in scaled], [22.0 if s else 1.0 for s in scaled])
    card = {"name": folder.name, "stage": "supervised", "license": "MIT", "provenance": "simulated",
            "trained_on": "planted", "run": dict(run or {})}  # fmt: skip
    return save_weights(folder, {"ecg": encoder, "head": head}, pipeline, None, card)


def regression(name: str, unit: str = "g") -> dict[str, str]:
    return {"name": name, "kind": "regression", "unit": unit}


def binary(name: str) -> dict[str, str]:
    return {"name": name, "kind": "binary", "unit": ""}
