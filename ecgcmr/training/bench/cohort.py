"""A cohort of noise, made in a second: shapes and types of a real one, and nothing can be learned from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.schema import CohortSchema, LabelSpec
from ecgcmr.cohort.splits import make_split
from ecgcmr.cohort.writer import CohortWriter
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.training.bench.presets import LABELS

_CHUNK = 64
_SIDE = 210


def write_noise_cohort(out: Path, n: int, seed: int = 0) -> Path:
    """Write n subjects with an ECG of 12 x 5000 samples at 500 Hz and three frames of 210 x 210 pixels.

    All subjects are in the training part of the split `default` but for a few.
    """
    rng = np.random.default_rng(seed)
    times = np.array([0.0, 150.0, 300.0])
    with CohortWriter(out, {"n": n, "seed": seed}, -(-n // _CHUNK)) as writer:
        for index in writer.missing():
            with writer.chunk(index) as rows:
                for subject in range(index * _CHUNK, min(n, (index + 1) * _CHUNK)):
                    samples = rng.normal(scale=0.3, size=(12, 5000)).astype(np.float32)
                    pixels = rng.integers(0, 255, (1, 3, _SIDE, _SIDE), dtype=np.uint8)
                    rows.add_subject(subject, {"sex": "female", "age_years": 60.0, "site": "0"})
                    rows.add_recording(EcgRecording(samples, 500.0, LEADS), subject)
                    rows.add_study(Cine(pixels, (1.83, 1.83), 0.0, np.eye(4), times, "sax"), subject)
                    rows.add_labels(subject, {name: float(rng.normal()) for name in LABELS})
            writer.merge_ready()
        specs = tuple(LabelSpec(name, "regression") for name in LABELS)
        schema = CohortSchema("noise", "generated", "0", labels=specs)
        return writer.finish(writer.collect(), schema, [make_split(np.arange(n), seed)])
