"""The clean and the recorded 12-lead ECG of one heart.

Nothing here draws a wave: P, QRS and T come out of early sites, speeds, action-potential durations and geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.acquisition import AcquisitionDesign, Recording, record
from ecgcmr.simulation.activation import activation_times
from ecgcmr.simulation.ecg_truth import BeatTruth, measure_beat
from ecgcmr.simulation.electrical_latents import Electrics, ElectricsDesign, draw_electrics
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.lead_field import dipole_potentials, to_leads
from ecgcmr.simulation.potentials import DoubleLayer, fibrillatory_drive, ventricular_potentials
from ecgcmr.simulation.rhythm import Rhythm, draw_rhythm
from ecgcmr.simulation.wall import VentricularWall, build_wall

Array = NDArray[np.float64]

RATE_HZ = 500.0
DURATION_S = 10.0

# Millivolts per unit of the double layer. Calibrated once, so that the median R in lead II of healthy men is 1.0 mV:
#   python benchmarks/simulate_ecg.py --calibrate --subjects 400 --seed 2024
GAIN_MV = 31.9
# The thin right wall is trabeculated and its fronts are ragged: its double layer is weaker per area.
RIGHT_STRENGTH = 0.34
RIGHT_GRADIENT = 1.2
APICAL_GRADIENT = 0.2
SEPTAL_GRADIENT = 0.36


@dataclass(frozen=True)
class Activation:
    """Where and when the wall is activated.

    Attributes:
        wall: Wall points.
        endo_ms: Inner face (n,) after the onset of ventricular activation [ms].
        epi_ms: Outer face (n,) [ms].
        segment_ms: Mean over the wall of each AHA segment (17,) [ms].
        right_ms: Mean of the right free wall [ms].
    """

    wall: VentricularWall
    endo_ms: Array
    epi_ms: Array
    segment_ms: Array
    right_ms: float


def activate(heart: Heart, electrics: Electrics) -> Activation:
    """Activation of both ventricles; time 0 is the first face reached."""
    points = build_wall(heart)
    endo, epi = activation_times(points.wall, electrics.conduction)
    first = min(float(endo.min()), float(epi.min()))
    endo, epi = endo - first, epi - first
    middle = 0.5 * (endo + epi)
    return Activation(points, endo, epi, points.segment_means(middle), float(middle[points.wall.right].mean()))


def double_layer(activation: Activation, electrics: Electrics) -> DoubleLayer:
    """Both faces in time: gradients of the action potential, its coupling to activation, and ischemia."""
    points = activation.wall
    wall = points.wall
    late = electrics.coupling * (activation.endo_ms - np.median(activation.endo_ms))
    apd_endo = electrics.apd_ms + electrics.apex_base_ms * (points.depth - 0.5) - late
    # the gradient follows the transient outward current: strong in the right ventricle and the apex, weaker at the
    # base; both faces of the septum are endocardium
    share = np.where(wall.right, RIGHT_GRADIENT, 1.0 + APICAL_GRADIENT * (points.depth - 0.5))
    share = np.where(wall.septum, SEPTAL_GRADIENT * share, share)
    gradient = electrics.transmural_ms * share
    ischemic = np.clip(points.ischemia, 0.0, 1.0)
    apd_epi = apd_endo - gradient
    # ischemia shortens the subendocardial action potential and lowers its plateau (Janse & Wit, Physiol Rev 69:1049)
    return DoubleLayer(activation.endo_ms, activation.epi_ms, apd_endo - 22.0 * ischemic, apd_epi, 0.06 * ischemic)


def transfer(heart: Heart, electrics: Electrics, points: VentricularWall) -> tuple[Array, Array]:
    """Potential [mV] of each wall point at each electrode (9, n), and its change per unit of breath."""
    strength = GAIN_MV * electrics.tissue * (1.0 - points.wall.scar) * np.where(points.wall.right, RIGHT_STRENGTH, 1.0)
    moments = points.wall.area_vector * strength[:, None] @ heart.rotation.T
    center = points.wall.position_mm.mean(axis=0)
    arms = (points.wall.position_mm - center) @ heart.rotation.T
    middle = heart.position_mm + heart.rotation @ center
    states = []
    for breath in (-1.0, 1.0):
        angle = np.deg2rad(electrics.breath_deg * breath)
        # inspiration lowers the heart and turns its axis down: a rotation about the front-back axis
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        place = middle + arms @ turn.T - np.array([0.0, 0.0, electrics.breath_mm * breath])
        states.append(dipole_potentials(moments @ turn.T, place, electrics.electrodes_mm))
    return 0.5 * (states[0] + states[1]), 0.5 * (states[1] - states[0])


def atrial_transfer(electrics: Electrics) -> Array:
    """Potential [mV] of the atrial dipoles along x, y, z at each electrode, (9, 2, 3), for unit moments."""
    place = electrics.atria.position_mm
    columns = [dipole_potentials(np.tile(axis, (2, 1)), place, electrics.electrodes_mm) for axis in np.eye(3)]
    return GAIN_MV * np.stack(columns, axis=2)


@dataclass(frozen=True)
class EcgSimulation:
    """The ECG of one heart, with everything that made it.

    Attributes:
        clean: Leads (12, T) [mV] at `RATE_HZ` before any noise.
        recording: What the device stored, and what went wrong.
        rhythm: The beats.
        beat: One clean beat and its intervals.
        r_peaks: Sample indices of the R peaks inside the recording.
        electrics: Electrical latents.
        activation: Activation of the wall.
        truth: ECG truths and nuisance parameters by name, floats.
    """

    clean: Array
    recording: Recording
    rhythm: Rhythm
    beat: BeatTruth
    r_peaks: NDArray[np.int64]
    electrics: Electrics
    activation: Activation
    truth: dict[str, float]


def electrode_potentials(
    electrics: Electrics, layer: DoubleLayer, fields: tuple[Array, Array], rhythm: Rhythm, rng: np.random.Generator
) -> Array:
    """Clean potentials (9, T) [mV] of the electrodes over the whole recording; `fields` come from `transfer`."""
    n = round(DURATION_S * RATE_HZ)
    mean, swing = fields
    ventricles = ventricular_potentials(
        layer,
        mean + rhythm.breath[:, None, None] * swing,
        rhythm.onset_s,
        rhythm.apd_scale,
        n_samples=n,
        rate_hz=RATE_HZ,
        split=False,
    ).total
    places = atrial_transfer(electrics)
    if rhythm.fibrillation:
        course = electrics.fibrillation_moment * fibrillatory_drive(n, RATE_HZ, rng)
        return ventricles + np.einsum("eak,akt->et", places, course)
    columns = np.einsum("eak,ak->ea", places, electrics.atria.moment)
    return ventricles + columns @ electrics.atria.drive(rhythm.onset_s, n, RATE_HZ)


def _truth(heart: Heart, electrics: Electrics, beat: BeatTruth, peaks_s: Array) -> dict[str, float]:
    """ECG truths and nuisance of one recording."""
    rr_ms = 1000.0 * float(np.diff(peaks_s).mean()) if len(peaks_s) > 1 else heart.rr_ms
    missing = float("nan")
    values = {
        "heart_rate_bpm": 60_000.0 / rr_ms,
        "pr_ms": missing if heart.af else electrics.atria.pr_ms + beat.qrs_ms[0],
        "p_duration_ms": missing if heart.af else electrics.atria.p_duration_ms,
        "qrs_ms": beat.qrs_duration_ms,
        "qt_ms": beat.qt_ms,
        "qtc_ms": beat.qt_ms / np.cbrt(rr_ms / 1000.0),
        "axis_deg": beat.axis_deg,
        "tissue_gain": electrics.tissue,
        "speed_left_m_s": electrics.conduction.left_m_s,
        "apd_ms": electrics.apd_ms,
        "transmural_gradient_ms": electrics.transmural_ms,
        "placement_right_mm": float(electrics.placement_mm[:, 0].mean()),
        "placement_up_mm": float(electrics.placement_mm[:, 1].mean()),
    }
    return {name: float(value) for name, value in values.items()}


def simulate_ecg(
    heart: Heart,
    rng: np.random.Generator,
    *,
    design: ElectricsDesign | None = None,
    acquisition: AcquisitionDesign | None = None,
    electrics: Electrics | None = None,
    activation: Activation | None = None,
) -> EcgSimulation:
    """Simulate the 12-lead ECG of a heart: 10 s at 500 Hz.

    Args:
        heart: The latent heart.
        rng: Generator; the only source of randomness.
        design: Spread of the electrical latents, used when `electrics` is None.
        acquisition: Noise and errors of the recording.
        electrics: Electrical latents that were drawn before.
        activation: Activation that was computed before, for these `electrics`.
    """
    electrics = electrics or draw_electrics(heart, rng, design)
    activation = activation or activate(heart, electrics)
    variability = float(np.clip(rng.lognormal(np.log(0.022), 0.4), 0.005, 0.07))
    rhythm = draw_rhythm(
        heart.heart_rate_bpm, rng, duration_s=DURATION_S, fibrillation=heart.af, variability=variability
    )
    layer, fields = double_layer(activation, electrics), transfer(heart, electrics, activation.wall)
    potentials = electrode_potentials(electrics, layer, fields, rhythm, rng)
    beat = measure_beat(layer, fields[0], float(rhythm.apd_scale.mean()))
    recording = record(potentials, RATE_HZ, rhythm, rng, acquisition)
    peaks_s = rhythm.onset_s + beat.peak_ms * 1e-3
    inside = (peaks_s >= 0.0) & (peaks_s < DURATION_S)
    truth = _truth(heart, electrics, beat, peaks_s[inside]) | recording.truth
    peaks = np.round(peaks_s[inside] * RATE_HZ).astype(np.int64)
    return EcgSimulation(to_leads(potentials), recording, rhythm, beat, peaks, electrics, activation, truth)
