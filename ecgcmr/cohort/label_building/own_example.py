"""Made-up ECG files and two tables of labels, as a hospital might have them, to try `ecgcmr finetune` without any data.

The voltage of a made-up ECG grows with a made-up LV mass, and its shape tells one of three made-up types, so that there
is something to learn. Nobody is described by them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ecgcmr.ecg.leads import LEADS

_RATE_HZ, _SECONDS = 250, 10
_TYPES = ("narrow", "wide", "inverted T")
_CHEST = (-0.4, 0.5, 0.9, 1.3, 1.2, 0.9)


def write_own_example(folder: Path, n_subjects: int, rng: np.random.Generator) -> list[Path]:
    """Write `ecg/rec0001.hea` and so on (WFDB), `labels.csv` with two columns, and `labels_more.csv` with all.

    Args:
        folder: An empty folder.
        n_subjects: Number of subjects; every fourth has two recordings.
        rng: Draws everything.

    Returns:
        The tables and the folder of the ECGs.
    """
    import wfdb

    owner = np.concatenate([np.arange(n_subjects), np.arange(0, n_subjects, 4)])
    recordings = [f"rec{number:04d}" for number in range(1, len(owner) + 1)]
    age, male = rng.integers(40, 80, n_subjects), rng.random(n_subjects) < 0.5
    mass = np.clip(85 + 30 * male + 0.3 * (age - 60) + rng.normal(0, 22, n_subjects), 45, 250)
    kind = rng.integers(0, len(_TYPES), n_subjects)
    until = rng.exponential(20 / np.exp((mass - 100) / 40))
    watched = rng.uniform(2, 12, n_subjects)
    of_subjects = pd.DataFrame(
        {
            "subject": [f"S{number:04d}" for number in range(n_subjects)],
            "age": age,
            "sex": np.where(male, "male", "female"),
            "LVM [g]": np.where(rng.random(n_subjects) < 0.1, np.nan, np.round(mass, 1)),
            "hypertrophy": (mass > np.quantile(mass, 0.6)).astype(int),
            "type": [_TYPES[code] for code in kind],
            "death_time_years": np.round(np.minimum(until, watched), 2),
            "death_event": (until < watched).astype(int),
        }
    )
    table = of_subjects.iloc[owner].reset_index(drop=True)
    table.insert(0, "recording", recordings)
    (folder / "ecg").mkdir(parents=True)
    for name, subject in zip(recordings, owner, strict=True):
        signal = _signal(float(mass[subject]), int(kind[subject]), rng)
        wfdb.wrsamp(name, _RATE_HZ, ["mV"] * 12, list(LEADS), signal.T, fmt=["16"] * 12, write_dir=str(folder / "ecg"))
    files = {"labels.csv": table[["recording", "hypertrophy"]], "labels_more.csv": table}
    for file, content in files.items():
        content.to_csv(folder / file, index=False, lineterminator="\n")
    return [*(folder / file for file in files), folder / "ecg"]


def _signal(mass: float, kind: int, rng: np.random.Generator) -> np.ndarray:
    """One ECG (12, T) [mV] that obeys Einthoven and Goldberger."""
    rate = rng.uniform(55, 95)
    phase = (np.arange(_RATE_HZ * _SECONDS) / _RATE_HZ * rate / 60 + rng.random()) % 1.0
    width, t_wave = (0.03, 0.3) if kind == 1 else (0.012, -0.3 if kind == 2 else 0.3)
    waves = ((0.25, 0.03, 0.12), (0.40, width, 1.0), (0.43, width, -0.2), (0.68, 0.05, t_wave))
    bumps = [height * np.exp(-0.5 * ((phase - at) / spread) ** 2) for at, spread, height in waves]
    beat = np.sum(bumps, axis=0) * (mass / 100) * rng.lognormal(0, 0.1)
    one, two = 0.7 * beat, 1.0 * beat
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    signal = np.stack([*limb, *(gain * beat for gain in _CHEST)])
    return signal + rng.normal(0, 0.01, signal.shape)
