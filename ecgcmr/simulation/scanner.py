"""Scanner presets and the imaging nuisance of one subject: where the heart lies in the image, contrast, bias, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.heart import Heart, Purpose

Array = NDArray[np.float64]

MAX_SLICES = 64  # breath-hold shifts are drawn for this many slices, so that a subset of slices keeps its shifts
TEXTURE_SHAPE = (16, 48, 4)  # long axis, angle, wall depth
# Order of the signal levels that the painters read.
TISSUES = ("blood", "myocardium", "fat", "lung", "liver", "muscle", "bone")


@dataclass(frozen=True)
class Scanner:
    """A vendor-like balanced SSFP preset; signals are relative to the full scale of 8 bits.

    Attributes:
        signals: Signal of `TISSUES`.
        edge_mm: Half-width of an edge (resolution) [mm].
        noise: SD of the noise of each of the two receiver channels.
        bias: SD of the shading across the field of view.
        slice_mm: Slice thickness [mm].
    """

    signals: tuple[float, ...]
    edge_mm: float
    noise: float
    bias: float
    slice_mm: float = 8.0


SCANNERS: dict[str, Scanner] = {
    "alpha": Scanner((0.80, 0.27, 0.78, 0.05, 0.36, 0.20, 0.26), edge_mm=1.6, noise=0.030, bias=0.16),
    "beta": Scanner((0.74, 0.31, 0.86, 0.07, 0.42, 0.26, 0.30), edge_mm=1.9, noise=0.022, bias=0.10),
    "gamma": Scanner((0.84, 0.22, 0.66, 0.04, 0.30, 0.16, 0.22), edge_mm=2.3, noise=0.042, bias=0.28, slice_mm=10.0),
}


@dataclass(frozen=True)
class ImagingDesign:
    """Spread of the imaging nuisance between subjects.

    Attributes:
        noise_scale: Scales the noise of the scanner.
        slice_shift_sd_mm: SD of the breath-hold shift of a slice, per axis [mm].
        center_sd_mm: SD of the place of the heart in the image, per axis [mm].
        rotation_sd_deg: SD of the rotation of the image about its normal [degree].
        gain_sd: Relative SD of the signal between subjects.
        minority_contrast_shift: Relative loss of contrast in group 1.
    """

    noise_scale: float = 1.0
    slice_shift_sd_mm: float = 1.5
    center_sd_mm: float = 5.0
    rotation_sd_deg: float = 8.0
    gain_sd: float = 0.05
    minority_contrast_shift: float = 0.15

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"imaging.{name} must not be negative, got {value}")


@dataclass(frozen=True)
class Imaging:
    """The imaging nuisance of one subject.

    Attributes:
        scanner: The preset.
        signals: (7,) signal of `TISSUES` in this subject.
        noise: SD of the noise of each receiver channel.
        rotation: Rotation of the short-axis image about its normal [radian].
        center_mm: (2, 2) place of the LV axis right of and above the image center: short axis, four-chamber view [mm].
        shift_mm: (MAX_SLICES, 2) breath-hold shift of each slice [mm].
        bias: (2, 5) coefficients of the shading, for short axis and four-chamber view.
        texture: TEXTURE_SHAPE relative texture of the wall.
        key: Two keys of the noise, for short axis and four-chamber view.
    """

    scanner: Scanner
    signals: Array
    noise: float
    rotation: float
    center_mm: Array
    shift_mm: Array
    bias: Array
    texture: NDArray[np.float32]
    key: tuple[int, int]


def draw_imaging(heart: Heart, design: ImagingDesign, scanner: str | None = None) -> Imaging:
    """Imaging nuisance of a heart; `scanner` replaces the preset of the heart.

    Raises:
        ValueError: The preset is unknown.
    """
    name = scanner or heart.scanner
    if name not in SCANNERS:
        raise ValueError(f"unknown scanner {name!r}; known presets: {sorted(SCANNERS)}")
    preset = SCANNERS[name]
    rng = heart.stream(Purpose.IMAGE)
    signals = np.array(preset.signals) * (1 + 0.04 * rng.standard_normal(len(TISSUES)))
    signals *= 1 + design.gain_sd * np.clip(rng.standard_normal(), -2.5, 2.5)
    middle = 0.5 * (signals[0] + signals[1])
    if heart.group:
        signals = middle + (signals - middle) * (1 - design.minority_contrast_shift)
    center = np.array([[13.0, 0.0], [12.0, -26.0]]) + design.center_sd_mm * rng.standard_normal((2, 2))
    coarse = heart.stream(Purpose.TISSUE).standard_normal(TEXTURE_SHAPE)
    # Neighbors along the angle are averaged: a patch of tissue is about 10 mm wide.
    texture = 0.11 * (coarse + np.roll(coarse, 1, axis=1)) / np.sqrt(2.0)
    return Imaging(
        scanner=preset,
        signals=np.clip(signals, 0.02, 1.0),
        noise=preset.noise * design.noise_scale,
        rotation=float(np.deg2rad(design.rotation_sd_deg) * np.clip(rng.standard_normal(), -2.5, 2.5)),
        center_mm=center,
        shift_mm=design.slice_shift_sd_mm * rng.standard_normal((MAX_SLICES, 2)),
        bias=preset.bias * rng.standard_normal((2, 5)) * np.array([1.0, 1.0, 0.4, 0.4, 0.4]),
        texture=texture.astype(np.float32),
        key=(int(rng.integers(1 << 62)), int(rng.integers(1 << 62))),
    )
