"""EcgPipeline: from a recording to what a model reads, as a list of named steps that is saved beside the weights."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS, to_canonical
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.steps import STEPS

PIPELINE_VERSION = 1
"""Raised when a registered step computes something else than before."""

HIGHPASS_UNIT_MV = 0.5
"""Scale of the high-pass pipelines [mV]: it brings QRS complexes to the order of one."""


@dataclass(frozen=True)
class Step:
    """One step: the name of a function of `ecgcmr.ecg.steps` and its parameters."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in STEPS:
            raise ValueError(f"unknown ECG preprocessing step {self.name!r}; known: {', '.join(sorted(STEPS))}")
        try:
            inspect.signature(STEPS[self.name]).bind(None, None, **self.params)
        except TypeError as error:
            raise ValueError(f"parameters of ECG preprocessing step {self.name!r}: {error}") from None


@dataclass(frozen=True)
class EcgPipeline:
    """A versioned list of steps, from a recording of twelve leads to (12, n_samples) float32.

    Leads are brought to canonical order by name first. Each recording is computed by itself in float64, so that a
    batch gives exactly what single recordings give.

    Attributes:
        name: Name for people; part of the fingerprint.
        steps: Steps in order. There must be a `to_rate`, and the last step that changes the length must be
            `fit_duration`.
        requires_mv: Refuse recordings whose voltage is lost (unit `z`).
        version: Version of the steps' arithmetic.
    """

    name: str
    steps: tuple[Step, ...]
    requires_mv: bool = True
    version: int = PIPELINE_VERSION

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        lengths = [n for n in names if n in ("to_rate", "cut_duration", "fit_duration")]
        if "to_rate" not in names or not lengths or lengths[-1] != "fit_duration":
            raise ValueError(f"pipeline {self.name!r} needs a to_rate step and, after it, fit_duration; got {names}")
        if self.version != PIPELINE_VERSION:
            raise ValueError(
                f"pipeline {self.name!r} has version {self.version}, this ecgcmr computes version {PIPELINE_VERSION}; "
                "use the ecgcmr release that wrote it"
            )

    @property
    def rate_hz(self) -> float:
        """Sampling rate of the output [Hz]."""
        return float(next(s.params["hz"] for s in reversed(self.steps) if s.name == "to_rate"))

    @property
    def n_samples(self) -> int:
        """Number of samples of each output lead."""
        seconds = next(s.params["seconds"] for s in reversed(self.steps) if s.name == "fit_duration")
        return round(float(seconds) * self.rate_hz)

    def __call__(self, recording: EcgRecording) -> NDArray[np.float32]:
        """Prepare one recording.

        Args:
            recording: Twelve leads in any order; samples (L, T) at any rate with a rational ratio.

        Returns:
            (12, n_samples) float32.

        Raises:
            ValueError: A lead is missing or has no finite sample, the recording is too short, or its voltage is
                lost and this pipeline needs it.
        """
        if self.requires_mv and recording.unit != "mV":
            raise ValueError(
                f"pipeline {self.name!r} needs voltages, but the recording's unit is {recording.unit!r}; "
                "use a pipeline that standardises each lead, such as 'highpass_z'"
            )
        return self._run(to_canonical(recording).samples, recording.rate_hz)

    def apply_batch(self, samples_BLT: NDArray[np.floating], rate_hz: float, workers: int = 1) -> NDArray[np.float32]:
        """Prepare recordings of equal length and rate whose twelve leads are in canonical order.

        Args:
            samples_BLT: (B, 12, T), in mV (or standardised, if the pipeline does not need voltages).
            rate_hz: Sampling rate [Hz].
            workers: Threads; the compiled steps release the interpreter lock.

        Returns:
            (B, 12, n_samples) float32, each row equal to what `__call__` gives.

        Raises:
            ValueError: As `__call__`, naming the row.
        """
        if samples_BLT.ndim != 3 or samples_BLT.shape[1] != len(LEADS):
            raise ValueError(f"expected samples of shape (recordings, {len(LEADS)}, time), got {samples_BLT.shape}")
        out = np.empty((samples_BLT.shape[0], len(LEADS), self.n_samples), np.float32)

        def fill(row: int) -> None:
            try:
                out[row] = self._run(samples_BLT[row], rate_hz)
            except ValueError as error:
                raise ValueError(f"recording {row} of the batch: {error}") from error

        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(fill, range(len(out))))
        else:
            for row in range(len(out)):
                fill(row)
        return out

    def _run(self, samples_LT: NDArray[np.floating], rate_hz: float) -> NDArray[np.float32]:
        # convert before any arithmetic: integer input would truncate
        x, rate = np.asarray(samples_LT, dtype=np.float64), float(rate_hz)
        for step in self.steps:
            x, rate = STEPS[step.name](x, rate, **step.params)
        return x.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return what preprocess.json holds; `rate_hz`, `n_samples` and `leads` are there for readers."""
        return {
            "kind": "ecg",
            "name": self.name,
            "version": self.version,
            "leads": list(LEADS),
            "rate_hz": self.rate_hz,
            "n_samples": self.n_samples,
            "requires_mv": self.requires_mv,
            "steps": [{"name": step.name, **step.params} for step in self.steps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EcgPipeline:
        """Rebuild a pipeline from `to_dict`.

        Raises:
            ValueError: A field is missing, a step or parameter is unknown, or the stated rate, length or leads
                contradict the steps.
        """
        missing = [key for key in ("name", "version", "requires_mv", "steps") if key not in data]
        if missing:
            raise ValueError(f"ECG preprocessing lacks {', '.join(missing)}")
        if data.get("kind", "ecg") != "ecg":
            raise ValueError(f"expected preprocessing of kind 'ecg', got {data['kind']!r}")
        steps = tuple(Step(s["name"], {k: v for k, v in s.items() if k != "name"}) for s in data["steps"])
        pipeline = cls(str(data["name"]), steps, bool(data["requires_mv"]), int(data["version"]))
        for key, value in pipeline.to_dict().items():
            if key in data and data[key] != value:
                raise ValueError(f"ECG preprocessing states {key} {data[key]!r}, but its steps give {value!r}")
        return pipeline

    def fingerprint(self) -> str:
        """Return the sha256 of the canonical JSON of `to_dict`: the key of prepared arrays."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def _reference() -> tuple[Step, ...]:
    """Return the chain of Turgut et al. (arXiv 2308.05764): clip, asymmetric least squares, group-wise z-score."""
    return (
        Step("nan_to_zero", {"partial": "zero", "whole_lead": "refuse"}),
        Step("cut_duration", {"seconds": 10.0, "where": "start"}),
        Step("to_rate", {"hz": 500.0}),
        Step("clip_sd", {"factor": 4.0}),
        Step("als_detrend", {"lam": 1e7, "p": 0.3, "n_iter": 5}),
        Step("group_zscore"),
        Step("fit_duration", {"seconds": 10.0, "min_seconds": 5.0}),
    )


def _filtered(hz: float, filters: tuple[Step, ...], last: Step) -> tuple[Step, ...]:
    """Return resampling first (its anti-alias filter makes the rest cheap), filters, scale, and zeros to 10 s."""
    return (
        Step("nan_to_zero", {"partial": "interpolate", "whole_lead": "refuse"}),
        Step("cut_duration", {"seconds": 10.0, "where": "start"}),
        Step("to_rate", {"hz": hz}),
        *filters,
        last,
        Step("fit_duration", {"seconds": 10.0, "min_seconds": 5.0}),
    )


MYOECG_CROPS = ("start", "center", "end")
"""The three equally spaced crops over which MyoECG averages its logits at test time."""


def _myoecg(crop: str) -> tuple[Step, ...]:
    """Return the chain of MyoECG: Fourier resampling, crop, filters on the crop, z-score of all leads together.

    The edges are continued over 18 samples, scipy's default for these filters.
    """
    pad_s = 18 / 250.0
    return (
        Step("nan_to_zero", {"partial": "interpolate", "whole_lead": "refuse"}),
        Step("to_rate", {"hz": 250.0, "method": "fourier"}),
        Step("cut_duration", {"seconds": 9.0, "where": crop}),
        Step("highpass", {"low_hz": 0.67, "order": 5, "pad_s": pad_s}),
        Step("lowpass", {"high_hz": 40.0, "order": 5, "pad_s": pad_s}),
        Step("sample_zscore"),
        Step("fit_duration", {"seconds": 9.0, "min_seconds": 9.0}),
    )


def myoecg_pipeline(crop: str = "center") -> EcgPipeline:
    """Return the pipeline of MyoECG for one of its crops of 2,250 samples (9 s at 250 Hz).

    The crop is part of the pipeline, because the filters and the z-score come after it: preparing the whole recording
    and cropping it afterwards gives other samples. The name tells the crop, so that caches of them stay apart.

    Args:
        crop: One of `MYOECG_CROPS`.

    Raises:
        ValueError: For another crop.
    """
    if crop not in MYOECG_CROPS:
        raise ValueError(f"MyoECG has no crop {crop!r}; expected one of {', '.join(MYOECG_CROPS)}")
    return EcgPipeline("myoecg" if crop == "center" else f"myoecg_{crop}", _myoecg(crop))


def _eccl() -> tuple[Step, ...]:
    """Return the chain of ECCL (MICCAI 2024): the trend over one beat subtracted, each lead scaled to [-1, 1]."""
    return (
        Step("nan_to_zero", {"partial": "interpolate", "whole_lead": "refuse"}),
        Step("cut_duration", {"seconds": 10.0, "where": "start"}),
        Step("to_rate", {"hz": 500.0}),
        Step("beat_trend"),
        Step("lead_minmax"),
        Step("fit_duration", {"seconds": 10.0, "min_seconds": 5.0}),
    )


NAMED_PIPELINES = ("reference", "highpass", "highpass_z", "highpass500", "myoecg", "eccl")


def named_pipeline(name: str, mains_hz: float | None = None) -> EcgPipeline:
    """Return a pipeline by name; all give twelve leads of 10 s, but for `myoecg`.

    - `reference`: 500 Hz; missing samples become 0, clip at 4 SD, ALS baseline, group-wise z-score.
    - `highpass`: 0.5-40 Hz at 100 Hz, in units of 0.5 mV (voltage is kept).
    - `highpass_z`: the same band, each lead z-scored; takes sources that have lost their voltage.
    - `highpass500`: 0.5 Hz high-pass at 500 Hz, in units of 0.5 mV.
    - `eccl`: 500 Hz, a moving average over one beat subtracted, each lead scaled to [-1, 1].
    - `myoecg`: the 9 s in the middle at 250 Hz, 0.67-40 Hz, all leads together z-scored; see `myoecg_pipeline`.

    Longer recordings give their first 10 s; shorter ones get zeros at the end, below 5 s (`myoecg`: 9 s) they are
    refused.

    Args:
        name: One of `NAMED_PIPELINES`.
        mains_hz: Adds a notch at this frequency [Hz] to `highpass500` (the other bands end below the mains).

    Raises:
        ValueError: Unknown name, or a notch where it has no place.
    """
    band = (Step("bandpass", {"low_hz": 0.5, "high_hz": 40.0, "order": 2, "pad_s": 1.5}),)
    high: tuple[Step, ...] = (Step("highpass", {"low_hz": 0.5, "order": 2, "pad_s": 1.5}),)
    scale = Step("scale_mv", {"unit_mv": HIGHPASS_UNIT_MV})
    if mains_hz is not None:
        if name != "highpass500":
            raise ValueError(f"mains_hz has no place in pipeline {name!r}; only 'highpass500' takes it")
        high += (Step("mains_notch", {"mains_hz": float(mains_hz), "quality": 30.0}),)
    if name == "reference":
        return EcgPipeline(name, _reference())
    if name == "highpass":
        return EcgPipeline(name, _filtered(100.0, band, scale))
    if name == "highpass_z":
        return EcgPipeline(name, _filtered(100.0, band, Step("lead_zscore")), requires_mv=False)
    if name == "highpass500":
        return EcgPipeline(name, _filtered(500.0, high, scale))
    if name == "myoecg":
        return myoecg_pipeline()
    if name == "eccl":
        return EcgPipeline(name, _eccl(), requires_mv=False)
    raise ValueError(f"unknown ECG pipeline {name!r}; expected one of {', '.join(NAMED_PIPELINES)}")
