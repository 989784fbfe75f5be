"""Planting defects into a recording: what bad contact, cables, recorders and files do to an ECG.

They are the known answers against which `ecgcmr.ecg.quality` was set (docs/quality.md), and may serve to test any
other quality check. Every function returns a new recording of the twelve canonical leads [mV].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS, to_canonical
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation.lead_field import ELECTRODES, to_leads

Array = NDArray[np.float64]
Planter = Callable[[EcgRecording, np.random.Generator], EcgRecording]


def exchange_electrodes(recording: EcgRecording, first: str, second: str) -> EcgRecording:
    """Connect two electrodes to each other's cable.

    The potentials of the electrodes follow from the leads, up to the same potential in all of them. The right leg's
    electrode (`RL`) is no part of any lead; its potential is about that of the left leg.

    Args:
        recording: Any leads from which the twelve follow.
        first: One of RA, LA, LL, V1 ... V6.
        second: One of the same, or RL.

    Raises:
        ValueError: An electrode is unknown, or leads are missing.
    """
    recording = to_canonical(recording)
    known = [*ELECTRODES, "RL"]
    for name in (first, second):
        if name not in known:
            raise ValueError(f"unknown electrode {name!r}; expected one of {', '.join(known)}")
    one, two = recording.samples[0].astype(float), recording.samples[1].astype(float)
    potential = dict(zip(ELECTRODES, [-(one + two) / 3, (2 * one - two) / 3, (2 * two - one) / 3], strict=False))
    potential |= {lead: recording.samples[LEADS.index(lead)].astype(float) for lead in LEADS[6:]}
    potential["RL"] = 0.97 * potential["LL"]
    potential[first], potential[second] = potential[second], potential[first]
    return _with(recording, to_leads(np.stack([potential[name] for name in ELECTRODES])))


def reverse_chest(recording: EcgRecording) -> EcgRecording:
    """Call V1 ... V6 V6 ... V1."""
    recording = to_canonical(recording)
    return _with(recording, recording.samples[[*range(6), *range(11, 5, -1)]])


def add_noise(recording: EcgRecording, rng: np.random.Generator, share: float) -> EcgRecording:
    """White noise at the electrodes, RMS `share` times the median range of the leads."""
    recording = to_canonical(recording)
    noise = share * _size(recording) / np.sqrt(2.0) * rng.standard_normal((len(ELECTRODES), recording.n_samples))
    return _with(recording, recording.samples + to_leads(noise))


def add_mains(recording: EcgRecording, rng: np.random.Generator, share: float, hz: float = 50.0) -> EcgRecording:
    """The mains in the right arm's electrode, amplitude `share` times the median range of the leads."""
    time = np.arange(recording.n_samples) / recording.rate_hz
    return _with_electrode(
        recording, "RA", share * _size(recording) * np.sin(2 * np.pi * hz * time + rng.uniform(0, 6.28))
    )


def add_wander(recording: EcgRecording, rng: np.random.Generator, share: float) -> EcgRecording:
    """A slow wave in one electrode, range `share` times the median range of the leads."""
    time = np.arange(recording.n_samples) / recording.rate_hz
    wave = 0.5 * np.sin(2 * np.pi * rng.uniform(0.15, 0.3) * time + rng.uniform(0, 6.28))
    return _with_electrode(recording, str(rng.choice(ELECTRODES[3:])), share * _size(recording) * wave)


def hold_still(recording: EcgRecording, rng: np.random.Generator, seconds: float) -> EcgRecording:
    """One precordial lead keeps its value for some time."""
    recording = to_canonical(recording)
    samples = recording.samples.astype(float)
    n = min(round(seconds * recording.rate_hz), recording.n_samples)
    begin = int(rng.integers(recording.n_samples - n + 1))
    row = int(rng.integers(6, 12))
    samples[row, begin : begin + n] = samples[row, begin]
    return _with(recording, samples)


def drop_samples(recording: EcgRecording, rng: np.random.Generator, share: float) -> EcgRecording:
    """One lead lacks a share of its samples, in one piece."""
    recording = to_canonical(recording)
    samples = recording.samples.astype(float)
    n = max(1, round(share * recording.n_samples))
    begin = int(rng.integers(recording.n_samples - n + 1))
    samples[int(rng.integers(12)), begin : begin + n] = np.nan
    return _with(recording, samples)


def clip(recording: EcgRecording, rng: np.random.Generator, share: float) -> EcgRecording:
    """The recorder's rails lie at `share` of the largest deflection."""
    recording = to_canonical(recording)
    rail = share * float(np.nanmax(np.abs(recording.samples)))
    return _with(recording, np.clip(recording.samples, -rail, rail))


def add_spike(recording: EcgRecording, rng: np.random.Generator, millivolts: float) -> EcgRecording:
    """A jump of one lead for a twentieth of a second."""
    recording = to_canonical(recording)
    samples = recording.samples.astype(float)
    n = max(1, round(0.05 * recording.rate_hz))
    begin = int(rng.integers(recording.n_samples - n))
    samples[int(rng.integers(12)), begin : begin + n] += millivolts * rng.choice([-1.0, 1.0])
    return _with(recording, samples)


def scale(recording: EcgRecording, factor: float) -> EcgRecording:
    """All leads times a factor."""
    recording = to_canonical(recording)
    return _with(recording, recording.samples * factor)


def misscale_leads(recording: EcgRecording, rng: np.random.Generator, sd: float) -> EcgRecording:
    """Each lead times its own factor, whose logarithm has the given SD."""
    recording = to_canonical(recording)
    return _with(recording, recording.samples * np.exp(sd * rng.standard_normal((12, 1))))


def noise_only(recording: EcgRecording, rng: np.random.Generator) -> EcgRecording:
    """Electrodes on nobody."""
    noise = 0.2 * rng.standard_normal((len(ELECTRODES), recording.n_samples))
    return _with(to_canonical(recording), to_leads(noise))


def _replace_lead(recording: EcgRecording, rng: np.random.Generator, value: float | None) -> EcgRecording:
    """One lead is a constant, or a copy of its neighbour when no value is given."""
    recording = to_canonical(recording)
    samples = recording.samples.astype(float)
    row = int(rng.integers(12))
    samples[row] = samples[(row + 1) % 12] if value is None else value
    return _with(recording, samples)


def _cut(recording: EcgRecording, seconds: float) -> EcgRecording:
    return replace(recording, samples=recording.samples[:, : round(seconds * recording.rate_hz)])


def _size(recording: EcgRecording) -> float:
    return float(np.nanmedian(np.nanmax(recording.samples, axis=1) - np.nanmin(recording.samples, axis=1)))


def _with(recording: EcgRecording, samples: NDArray[np.floating]) -> EcgRecording:
    return replace(recording, samples=samples.astype(np.float32))


def _with_electrode(recording: EcgRecording, name: str, extra: Array) -> EcgRecording:
    recording = to_canonical(recording)
    potentials = np.zeros((len(ELECTRODES), recording.n_samples))
    potentials[ELECTRODES.index(name)] = extra
    return _with(recording, recording.samples + to_leads(potentials))


@dataclass(frozen=True)
class Defect:
    """A defect of stated size.

    Attributes:
        plant: Plants it.
        codes: Flags of which at least one tells it.
    """

    plant: Planter
    codes: tuple[str, ...]


_LIMB_CODES = ("swapped_arms", "swapped_left", "swapped_right", "swapped_limbs")

DEFECTS: dict[str, Defect] = {
    "3 s long": Defect(lambda r, g: _cut(r, 3.0), ("too_short",)),
    "a lead lacks 60 % of its samples": Defect(lambda r, g: drop_samples(r, g, 0.6), ("missing_lead",)),
    "a lead lacks 1 % of its samples": Defect(lambda r, g: drop_samples(r, g, 0.01), ("missing_samples",)),
    "a lead is constant": Defect(lambda r, g: _replace_lead(r, g, 0.0), ("flat_lead",)),
    "a lead repeats its neighbour": Defect(lambda r, g: _replace_lead(r, g, None), ("duplicate_lead",)),
    "a chest lead stands still for 3 s": Defect(lambda r, g: hold_still(r, g, 3.0), ("lead_off",)),
    "rails at 60 % of the largest deflection": Defect(lambda r, g: clip(r, g, 0.6), ("clipped",)),
    "a jump of 10 mV": Defect(lambda r, g: add_spike(r, g, 10.0), ("artefact",)),
    "ten times the voltage": Defect(lambda r, g: scale(r, 10.0), ("amplitude_large",)),
    "a tenth of the voltage": Defect(lambda r, g: scale(r, 0.1), ("amplitude_small",)),
    "noise of 8 % of the size": Defect(lambda r, g: add_noise(r, g, 0.08), ("noise",)),
    "50 Hz of 8 % of the size": Defect(lambda r, g: add_mains(r, g, 0.08, 50.0), ("mains", "lead_off")),
    "60 Hz of 8 % of the size": Defect(lambda r, g: add_mains(r, g, 0.08, 60.0), ("mains", "lead_off")),
    "drift of twice the size": Defect(lambda r, g: add_wander(r, g, 2.0), ("baseline_wander",)),
    "gains of the leads off by 20 %": Defect(lambda r, g: misscale_leads(r, g, 0.2), ("einthoven",)),
    "RA and LA exchanged": Defect(lambda r, g: exchange_electrodes(r, "RA", "LA"), ("swapped_arms",)),
    "RA and LL exchanged": Defect(lambda r, g: exchange_electrodes(r, "RA", "LL"), ("swapped_right",)),
    "LA and LL exchanged": Defect(lambda r, g: exchange_electrodes(r, "LA", "LL"), ("swapped_left",)),
    "RA and LA exchanged, any limb flag": Defect(lambda r, g: exchange_electrodes(r, "RA", "LA"), _LIMB_CODES),
    "RA and LL exchanged, any limb flag": Defect(lambda r, g: exchange_electrodes(r, "RA", "LL"), _LIMB_CODES),
    "RA and RL exchanged": Defect(lambda r, g: exchange_electrodes(r, "RA", "RL"), ("swapped_leg",)),
    "LA and RL exchanged": Defect(lambda r, g: exchange_electrodes(r, "LA", "RL"), ("swapped_leg",)),
    **{
        f"V{k} and V{k + 1} exchanged": Defect(
            lambda r, g, k=k: exchange_electrodes(r, f"V{k}", f"V{k + 1}"),  # type: ignore[misc]
            ("precordial_order",),
        )
        for k in range(1, 6)
    },
    "V1 to V6 reversed": Defect(lambda r, g: reverse_chest(r), ("precordial_order",)),
    "electrodes on nobody": Defect(noise_only, ("no_beats",)),
}
"""Defects of stated size, and the flags that must tell them."""
