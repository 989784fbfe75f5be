"""How signals and images become integers on disk, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.schema import MISSING_SAMPLE

DEFAULT_STEP = 1e-3  # 1 uV for mV; one thousandth of a standard deviation for z
_LIMIT = 32767


def pack_ecg(samples: NDArray[np.float32]) -> tuple[NDArray[np.int16], float]:
    """Store a signal as int16.

    The step is 1 uV (0.001 of the unit); a recording that would not fit (beyond +-32.767) gets the smallest step that
    does, so nothing is ever clipped.

    Args:
        samples: Signal (L, T) in its unit; NaN where missing.

    Returns:
        (codes, step): little-endian int16 (L, T) and the value of one step, in the unit of the signal.

    Raises:
        ValueError: The signal holds an infinite value.
    """
    values = np.asarray(samples, dtype=np.float64)
    missing = np.isnan(values)
    if np.isinf(values).any():
        lead, sample = np.argwhere(np.isinf(values))[0]
        raise ValueError(f"row {lead}, sample {sample} is infinite; expected finite values, or NaN where missing")
    peak = float(np.max(np.abs(values), initial=0.0, where=~missing))
    step = DEFAULT_STEP if peak <= _LIMIT * DEFAULT_STEP else peak / _LIMIT
    codes = np.rint(np.where(missing, 0.0, values) / step).astype("<i2")
    if missing.any():
        codes[missing] = MISSING_SAMPLE
    return codes, step


def unpack_ecg(codes: NDArray[np.int16], step: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Codes (..., L, T) and steps (broadcast over them) -> float32 signal with NaN where missing."""
    samples = codes.astype(np.float32)
    missing = codes == MISSING_SAMPLE
    samples *= np.asarray(step, dtype=np.float32)
    if missing.any():
        samples[missing] = np.nan
    return samples


def pack_pixels(pixels: NDArray[np.generic], dtype: str) -> tuple[NDArray[np.generic], float, float]:
    """Store intensities as unsigned integers.

    Whole numbers within the range are kept as they are (scale 1, offset 0); everything else is mapped linearly from
    [min, max] onto the whole range: value = code * scale + offset.

    Args:
        pixels: Intensities, any shape.
        dtype: "uint8" or "uint16".

    Returns:
        (codes, scale, offset).

    Raises:
        ValueError: The image holds a value that is not finite.
    """
    top = int(np.iinfo(dtype).max)
    if pixels.dtype == np.dtype(dtype):
        return pixels.astype(np.dtype(dtype).newbyteorder("<"), copy=False), 1.0, 0.0
    values = np.asarray(pixels, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the image holds values that are not finite (NaN or infinite)")
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    whole = low >= 0 and high <= top and bool(np.all(values == np.rint(values)))
    if whole:
        scale, offset = 1.0, 0.0
    else:
        low = float(values.min())
        scale, offset = max((high - low) / top, np.finfo(np.float64).tiny), low
    codes = np.rint((values - offset) / scale).astype(np.dtype(dtype).newbyteorder("<"))
    return codes, scale, offset


def unpack_pixels(codes: NDArray[np.generic], scale: float, offset: float) -> NDArray[np.generic]:
    """The inverse of `pack_pixels`; untouched integers when nothing was scaled, else float32."""
    if scale == 1.0 and offset == 0.0:
        return codes
    return (codes.astype(np.float64) * scale + offset).astype(np.float32)
