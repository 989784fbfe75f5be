"""A generated stand-in cohort: recordings and cines of which every number is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.ledger import LedgerRow
from ecgcmr.cohort.schema import CohortSchema, LabelSpec
from ecgcmr.cohort.splits import make_split
from ecgcmr.cohort.writer import CohortWriter
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording

LABELS = (
    LabelSpec("LVEDV", "regression", "ml", "LV end-diastolic volume", ukb_field=24100, low=20, high=600),
    LabelSpec("MI", "binary", description="old infarction"),
    LabelSpec("MI_time", "time", "years", "time to infarction", low=0),
    LabelSpec("MI_event", "event", description="infarction seen"),
    LabelSpec("rhythm", "category", values=("SR", "AF")),
)


def make_ecg(subject: int, n_samples: int = 500, rate_hz: float = 100.0) -> EcgRecording:
    """Whole microvolts that name the subject: lead k holds subject * 10 + k + a ramp, all / 1000 mV."""
    ramp = np.arange(n_samples) % 50
    values = (subject * 10 + np.arange(12)[:, None] + ramp[None]) / 1000
    return EcgRecording(values.astype(np.float32), rate_hz, LEADS, "mV", "generated")


def make_cine(subject: int, view: str = "sax", size: int = 16, masks: bool = True) -> Cine:
    """Two slices, three frames; the first pixel of each frame is the subject."""
    pixels = np.zeros((2, 3, size, size), dtype=np.uint8)
    pixels[:, :, 2:-2, 2:-2] = 100 + np.arange(3, dtype=np.uint8)[None, :, None, None]
    pixels[..., 0, 0] = subject % 256
    labels = np.zeros_like(pixels)
    labels[:, :, 4:8, 4:8] = 1
    return Cine(
        pixels,
        (1.8, 1.8),
        10.0,
        np.diag([1.8, 1.8, 10.0, 1.0]),
        np.array([0.0, 150.0, 300.0]),
        view,
        labels if masks else None,
        {1: "lv_cavity"} if masks else {},
        "generated",
    )


def label_values(subject: int) -> dict[str, float]:
    """Labels that can be computed again; LVEDV of every fifth subject is missing."""
    return {
        "LVEDV": float("nan") if subject % 5 == 4 else 100.0 + subject,
        "MI": float(subject % 2),
        "MI_time": 1.0 + subject,
        "MI_event": float(subject % 3 == 0),
        "rhythm": float(subject % 4 == 0),
    }


def write_cohort(out: Path, n: int = 10, ragged: bool = False, chunk: int = 4, recordings: int = 1) -> Path:
    """Write a stand-in cohort of n subjects; ragged lengths alternate between 500 and 700 samples."""
    n_chunks = -(-n // chunk)
    with CohortWriter(out, {"kind": "stand-in", "n": n, "ragged": ragged}, n_chunks) as writer:
        for index in range(n_chunks):
            with writer.chunk(index) as rows:
                for subject in range(index * chunk, min(n, (index + 1) * chunk)):
                    fields = {"sex": "FM"[subject % 2], "age_years": 40.0 + subject, "site": "a", "scanner": "s1"}
                    rows.add_subject(subject, fields)
                    for visit in range(recordings):
                        length = 700 if ragged and subject % 2 else 500
                        row = rows.add_recording(make_ecg(subject + 100 * visit, length), subject, visit * 365.0)
                        rows.add_ledger(LedgerRow(f"{subject}.{visit}", "ecg", "kept", row=row))
                    rows.add_study(make_cine(subject, "4ch"), subject)
                    row = rows.add_study(make_cine(subject), subject)
                    rows.add_ledger(LedgerRow(f"{subject}", "cmr", "kept", row=row))
                    rows.add_labels(subject, label_values(subject))
                    rows.add_truth(subject, {"axis_deg": 30.0, "territory": "none", "activation_ms": [1.0, 2.0]})
            writer.merge_ready()
        schema = CohortSchema("stand-in", "generated", "0", labels=LABELS, group_columns=("sex", "scanner"))
        return writer.finish(writer.collect(), schema, [make_split(np.arange(n), seed=0)])
