"""From a recording to the windows that an encoder reads: the first, some, or all of a long recording.

A recording is cut into segments of the pipeline's duration, each is prepared as the training data were, and each
gives as many windows, side by side, as the encoder's input fits into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.reduced import NoLeadError, available_leads, leads_present, prepare_available

Windows = Literal["first", "all"] | int
Short = Literal["refuse", "pad", "repeat"]


@dataclass(frozen=True)
class Window:
    """One input of an encoder.

    Attributes:
        samples: Prepared signal (12, n_samples) float32; rows of absent leads are NaN.
        leads: Leads that are there, in canonical order.
        start_s: Where it begins in the recording [s].
    """

    samples: NDArray[np.float32]
    leads: tuple[str, ...]
    start_s: float


@dataclass(frozen=True)
class Cutter:
    """Cuts recordings into windows.

    Attributes:
        pipeline: The model's preprocessing.
        n_samples: Input length of the encoder, at the pipeline's rate.
        windows: "first", "all", or how many from the start.
        short: A recording shorter than the input is refused, or its end is padded with zeros by the pipeline
            ("pad"), or it is repeated until it is long enough ("repeat", with a seam).
        only_leads: Use no other leads, in canonical spelling.
    """

    pipeline: EcgPipeline
    n_samples: int
    windows: Windows = "first"
    short: Short = "refuse"
    only_leads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        wrong = isinstance(self.windows, bool) or not (
            self.windows in ("first", "all") or (isinstance(self.windows, int) and self.windows >= 1)
        )
        if wrong:
            raise ValueError(f"windows is {self.windows!r}, expected 'first', 'all' or a whole number from 1")
        if self.short not in ("refuse", "pad", "repeat"):
            raise ValueError(f"short is {self.short!r}, expected 'refuse', 'pad' or 'repeat'")
        if self.most != 1 and not self._from_the_start():
            raise ValueError(
                f"windows={self.windows!r}: pipeline {self.pipeline.name!r} does not begin at the start of a "
                "recording, so that further windows are not defined; use windows='first'"
            )

    @property
    def most(self) -> float:
        """Largest number of windows of a recording."""
        return {"first": 1.0, "all": math.inf}.get(str(self.windows)) or float(self.windows)

    def __call__(self, recording: EcgRecording) -> Iterator[Window]:
        """Give the windows of a recording, in order; segments in which no lead has a sample are passed over.

        What is left at the end and fills no window, or is shorter than the pipeline takes, gives none.

        Raises:
            ValueError: The recording is shorter than the input, has no usable lead, or does not suit the pipeline.
        """
        recording = self._long_enough(recording)
        given, empty = 0, None
        for start, part in self._segments(recording):
            try:
                twelve = available_leads(part, self.only_leads)
            except NoLeadError as error:
                empty = error
                continue
            prepared, leads = prepare_available(self.pipeline, twelve), leads_present(twelve.samples)
            # a recording that the pipeline pads on request gives one window
            fit = max(1, min(self._at_rate(part), self.pipeline.n_samples) // self.n_samples)
            for i in range(fit):
                samples = prepared[:, i * self.n_samples : (i + 1) * self.n_samples]
                yield Window(samples, leads, start + i * self.n_samples / self.pipeline.rate_hz)
                given += 1
                if given >= self.most:
                    return
        if not given:
            assert empty is not None, "a recording that is long enough has a segment"
            raise empty

    def _segments(self, recording: EcgRecording) -> Iterator[tuple[float, EcgRecording]]:
        """(start [s], segment); the first is the whole recording where the pipeline does not cut at the start."""
        if not self._from_the_start():
            yield 0.0, recording
            return
        seconds, rate = self.pipeline.n_samples / self.pipeline.rate_hz, recording.rate_hz
        length = math.ceil(seconds * rate - 1e-6)  # as the step cut_duration counts
        for i in range(max(1, math.ceil(recording.duration_s / seconds))):
            begin = round(i * seconds * rate)
            part = replace(recording, samples=recording.samples[:, begin : begin + length])
            if i and (self._at_rate(part) < self.n_samples or part.duration_s < self.pipeline.min_seconds):
                return
            yield begin / rate, part

    def _from_the_start(self) -> bool:
        cut = [step.params for step in self.pipeline.steps if step.name == "cut_duration"]
        seconds = self.pipeline.n_samples / self.pipeline.rate_hz
        # Fourier resampling of a part differs from that of the whole, which is what the training data had.
        if any(step.params.get("method") == "fourier" for step in self.pipeline.steps):
            return False
        return len(cut) == 1 and cut[0].get("where", "start") == "start" and cut[0]["seconds"] == seconds

    def _at_rate(self, recording: EcgRecording) -> int:
        """Samples of a recording after resampling."""
        return math.ceil(recording.n_samples * self.pipeline.rate_hz / recording.rate_hz - 1e-6)

    def _long_enough(self, recording: EcgRecording) -> EcgRecording:
        needed_s = self.n_samples / self.pipeline.rate_hz
        is_short = self._at_rate(recording) < self.n_samples
        if self.short == "repeat" and (is_short or recording.duration_s < self.pipeline.min_seconds):
            length = math.ceil(self.pipeline.n_samples / self.pipeline.rate_hz * recording.rate_hz)
            times = math.ceil(length / max(recording.n_samples, 1))
            return replace(recording, samples=np.tile(recording.samples, (1, times))[:, :length])
        if is_short and self.short == "refuse":
            raise ValueError(
                f"the recording lasts {recording.duration_s:.4g} s, the model reads {needed_s:g} s; give "
                "short='pad' to fill it up with zeros or short='repeat' to repeat it, or take a longer recording"
            )
        return recording
