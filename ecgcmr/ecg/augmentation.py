"""Augmentations of ECG batches, on the device of the batch, with the generator passed in.

Random numbers that belong to samples are those of the global batch (world * B rows), so that P processes of B samples
see exactly what one process of P * B samples sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ecgcmr.ecg.crop import Shard, crop_random, crop_start
from ecgcmr.ecg.noise import normal_rows

__all__ = [
    "AUGMENT_PRESETS",
    "AugmentConfig",
    "EcgAugment",
    "augment_preset",
    "crop_random",
    "crop_start",
    "fourier_surrogate",
]

# Values of a block on the CPU: four samples of 12 x 2500, half a megabyte.
_BLOCK_VALUES = 120_000

# Rows that share a stream of noise on a device.
_DEVICE_ROWS = 64

_SWITCHES = ("jitter_additive", "legacy_crop")


@dataclass(frozen=True)
class AugmentConfig:
    """Settings of the chain random crop -> Fourier surrogate -> jitter -> rescaling -> lead dropout.

    Attributes:
        gate: Probability that a sample goes through the chain at all.
        surrogate_eps: Size of the phase turn, in turns; 0 switches the surrogate off.
        surrogate_p: Probability of the surrogate for each sample that passed the gate.
        jitter_sigma: Standard deviation of the noise; 0 switches the jitter off.
        jitter_amplitude: Factor of the noise.
        jitter_p: Probability of the jitter.
        jitter_additive: Add the noise to the sample, as the text of the reference says, instead of multiplying it with
            the sample, as its code does: x + a n instead of x + a x n.
        rescale_sigma: Standard deviation of the scale factor about 1; 0 switches it off.
        rescale_p: Probability of the rescaling.
        lead_dropout: Probability that one lead is set to zero, for each lead.
        legacy_crop: Whoever crops a window before the chain never takes the last start, as the reference.
    """

    gate: float = 1.0
    surrogate_eps: float = 0.0
    surrogate_p: float = 1.0
    jitter_sigma: float = 0.0
    jitter_amplitude: float = 0.6
    jitter_p: float = 1.0
    jitter_additive: bool = False
    rescale_sigma: float = 0.0
    rescale_p: float = 1.0
    lead_dropout: float = 0.0
    legacy_crop: bool = False

    def __post_init__(self) -> None:
        for name in ("gate", "surrogate_p", "jitter_p", "rescale_p", "lead_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("surrogate_eps", "jitter_sigma", "jitter_amplitude", "rescale_sigma"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AugmentConfig:
        """Rebuild the settings; unknown names are refused."""
        known = [f.name for f in fields(cls)]
        unknown = [key for key in data if key not in known]
        if unknown:
            raise ValueError(f"unknown augmentation settings {', '.join(unknown)}; known: {', '.join(known)}")
        values: dict[str, Any] = {key: value if key in _SWITCHES else float(value) for key, value in data.items()}
        return cls(**values)


def _mmcl(jitter: float, rescale: float, eps: float) -> AugmentConfig:
    return AugmentConfig(gate=0.95, surrogate_eps=eps, jitter_sigma=jitter, rescale_sigma=rescale)


AUGMENT_PRESETS: dict[str, AugmentConfig] = {
    # the reference's settings (Turgut et al., arXiv 2308.05764, and its code)
    "mae": AugmentConfig(surrogate_eps=0.1, surrogate_p=0.5, jitter_sigma=0.25, rescale_sigma=0.5),
    "mmcl": _mmcl(0.25, 0.5, 0.1),
    "mmcl_light": _mmcl(0.1, 0.075, 0.05),
    "mmcl_medium": _mmcl(0.25, 0.3, 0.1),
    "mmcl_heavy": _mmcl(0.4, 0.65, 0.125),
    "finetune": AugmentConfig(surrogate_eps=0.075, surrogate_p=0.5, jitter_sigma=0.2, rescale_sigma=0.5),
    # ours: no rescaling, because voltage carries the size of the heart
    "light": AugmentConfig(surrogate_eps=0.05, surrogate_p=0.5, jitter_sigma=0.1),
    "none": AugmentConfig(gate=0.0),
}


def augment_preset(name: str) -> AugmentConfig:
    """Return the settings of a preset.

    Raises:
        ValueError: Unknown name.
    """
    if name not in AUGMENT_PRESETS:
        raise ValueError(f"unknown ECG augmentation {name!r}; expected one of {', '.join(AUGMENT_PRESETS)}")
    return AUGMENT_PRESETS[name]


def fourier_surrogate(ecg_BLT: Tensor, phase_BF: Tensor) -> Tensor:
    """Turn the phases of each frequency by the same angle in all leads of a sample.

    The amplitude spectrum is kept, and so is the relation between leads (Schwabedal et al., arXiv 1806.08675).

    Args:
        ecg_BLT: (B, L, T), float32 or float64.
        phase_BF: Angles (B, T // 2 + 1) [rad]; zero frequency and, for even T, the Nyquist frequency are not turned.

    Returns:
        (B, L, T).
    """
    n = ecg_BLT.shape[-1]
    phase = phase_BF.clone()
    phase[:, 0] = 0.0
    if n % 2 == 0:
        phase[:, -1] = 0.0
    turn = torch.polar(torch.ones_like(phase), phase).unsqueeze(1)
    return torch.fft.irfft(torch.fft.rfft(ecg_BLT).mul_(turn), n=n)


class EcgAugment:
    """The chain of an `AugmentConfig`, applied to a batch.

    Example:
        >>> augment = EcgAugment("mae")
        >>> ecg = augment(torch.zeros(4, 12, 500), torch.Generator().manual_seed(0))
    """

    def __init__(self, config: AugmentConfig | Mapping[str, Any] | str = "none") -> None:
        if isinstance(config, str):
            config = augment_preset(config)
        elif isinstance(config, Mapping):
            config = AugmentConfig.from_dict(config)
        self.config = config

    def __call__(
        self, ecg_BLT: Tensor, generator: torch.Generator, shard: Shard = (0, 1), inplace: bool = False
    ) -> Tensor:
        """Return the augmented batch.

        Args:
            ecg_BLT: (B, L, T), floating point.
            generator: In the same state on every rank.
            shard: (rank, world) of this part of the global batch.
            inplace: Write into the input, which spares the memory's first touch; for a crop that nobody else holds.

        Returns:
            (B, L, T), type and device of the input, which is unchanged unless `inplace`.
        """
        c = self.config
        if c.gate == 0.0:
            return ecg_BLT
        draw = _Draw(ecg_BLT, generator, shard)
        passed = draw.chance(c.gate)
        phase = self._phase(draw, passed)
        jitter, scale = self._sizes(draw, passed)
        keep = (draw.uniform(ecg_BLT.shape[1]) >= c.lead_dropout) | ~passed[:, None] if c.lead_dropout > 0 else None
        seed = draw.seed()
        out = ecg_BLT if inplace else torch.empty_like(ecg_BLT)
        # block by block, so that a block's spectrum and noise stay in the processor's cache
        for rows in _blocks(ecg_BLT):
            block = ecg_BLT[rows] if phase is None else _turned(ecg_BLT[rows], phase[rows])
            factor, added = scale[rows, None, None], None
            if jitter is not None and c.jitter_additive:
                added = draw.factor(seed, rows, torch.zeros_like(scale[rows]), jitter[rows] * scale[rows])
            elif jitter is not None:
                factor = draw.factor(seed, rows, scale[rows], jitter[rows] * scale[rows])
            if keep is not None:
                kept = keep[rows, :, None].to(factor.dtype)
                factor, added = factor * kept, added * kept if added is not None else None
            torch.mul(block, factor, out=out[rows])
            if added is not None:
                out[rows].add_(added)
        return out

    def _phase(self, draw: _Draw, passed: Tensor) -> Tensor | None:
        """Return the angles (B, F) [rad] of the surrogate, 0 in rows that are left alone, or None."""
        c = self.config
        if c.surrogate_eps == 0 or c.surrogate_p == 0:
            return None
        chosen = passed & draw.chance(c.surrogate_p)
        turns = draw.uniform(draw.shape[-1] // 2 + 1)
        return turns * (c.surrogate_eps * 2.0 * math.pi) * chosen[:, None]

    def _sizes(self, draw: _Draw, passed: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return what multiplies the noise (B,), or None without jitter, and the scale of each sample (B,)."""
        c = self.config
        jitter = None
        scale = torch.ones(draw.shape[0], dtype=draw.dtype, device=draw.device)
        if c.jitter_sigma > 0 and c.jitter_amplitude > 0 and c.jitter_p > 0:
            jitter = (passed & draw.chance(c.jitter_p)).to(draw.dtype) * (c.jitter_sigma * c.jitter_amplitude)
        if c.rescale_sigma > 0 and c.rescale_p > 0:
            size = (passed & draw.chance(c.rescale_p)).to(draw.dtype) * c.rescale_sigma
            scale = draw.normal() * size + scale
        return jitter, scale


def _turned(block_BLT: Tensor, phase_BF: Tensor) -> Tensor:
    """Apply the surrogate to the rows of a block that have an angle; on the CPU the others cost nothing."""
    if block_BLT.device.type != "cpu":  # a fixed shape keeps the device from waiting for the host
        return fourier_surrogate(block_BLT, phase_BF)
    rows = phase_BF.any(dim=1).nonzero().flatten()
    if rows.numel() == len(block_BLT):
        return fourier_surrogate(block_BLT, phase_BF)
    if rows.numel() == 0:
        return block_BLT
    return block_BLT.index_copy(0, rows, fourier_surrogate(block_BLT[rows], phase_BF[rows]))


class _Draw:
    """Random numbers for the rows of one rank, the same as if one process had drawn them for the global batch."""

    def __init__(self, ecg_BLT: Tensor, generator: torch.Generator, shard: Shard) -> None:
        rank, world = shard
        if not 0 <= rank < world:
            raise ValueError(f"shard is (rank, world) with 0 <= rank < world, got {shard}")
        self.shape = ecg_BLT.shape
        self.dtype, self.device = ecg_BLT.dtype, ecg_BLT.device
        self._generator = generator
        self._n_global, self._first = ecg_BLT.shape[0] * world, rank * ecg_BLT.shape[0]

    def _draw(self, normal: bool, *shape: int) -> Tensor:
        # always float32: the same stream whatever the batch's precision is
        function = torch.randn if normal else torch.rand
        drawn = function((self._n_global, *shape), generator=self._generator, device=self._generator.device)
        return drawn[self._first : self._first + self.shape[0]].to(self.device, self.dtype)

    def uniform(self, n: int) -> Tensor:
        return self._draw(False, n)

    def chance(self, p: float) -> Tensor:
        """Return which samples are chosen (B,), each with probability p."""
        return self._draw(False) < p

    def normal(self) -> Tensor:
        return self._draw(True)

    def seed(self) -> int:
        """Return a number that all ranks share."""
        return int(torch.randint(2**62, (), generator=self._generator, device=self._generator.device))

    def factor(self, seed: int, rows: slice, shift_B: Tensor, size_B: Tensor) -> Tensor:
        """Return shift + size * noise (B, L, T) for some of the rank's rows, B of them.

        The noise of a row depends on the seed and the row's number in the global batch only: a rank computes its own
        rows, whatever the number of ranks is.
        """
        first, n_rows = self._first + rows.start, rows.stop - rows.start
        shape = (n_rows, *self.shape[1:])
        if self.device.type == "cpu":
            values = shape[1] * shape[2]
            drawn = normal_rows(seed, first, (n_rows, values), shift_B.float().numpy(), size_B.float().numpy())
            return torch.from_numpy(drawn).view(shape).to(self.dtype)
        # devices: groups of rows with a stream each, on a grid over the global batch
        parts, stream = [], torch.Generator(self.device)
        for group in range(first // _DEVICE_ROWS, -(-(first + n_rows) // _DEVICE_ROWS)):
            stream.manual_seed(seed + group)
            drawn_rows = torch.randn((_DEVICE_ROWS, *shape[1:]), generator=stream, device=self.device)
            begin = group * _DEVICE_ROWS
            parts.append(drawn_rows[max(first - begin, 0) : first + n_rows - begin])
        return torch.cat(parts).to(self.dtype).mul_(size_B[:, None, None]).add_(shift_B[:, None, None])


def _blocks(ecg_BLT: Tensor) -> Iterator[slice]:
    """Yield the rows of each block: on the CPU a few samples, on devices the whole batch."""
    batch = ecg_BLT.shape[0]
    size = max(1, _BLOCK_VALUES // math.prod(ecg_BLT.shape[1:])) if ecg_BLT.device.type == "cpu" else batch
    for begin in range(0, batch, size):
        yield slice(begin, min(begin + size, batch))
