"""Random views of prepared CMR: one flip, rotation, resized crop and color jitter per sample, one interpolation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ecgcmr.cmr.warp import follow_contrast, warp_jitter

CROP_ATTEMPTS = 10
PIVOT_SIZE = 24  # side of the small copy on which the contrast pivot is followed
# Columns of the uniform numbers drawn for every sample.
FLIP, ROTATE, TOP, LEFT = 0, 1, 2, 3
STRENGTH, ORDER, AREA, RATIO = slice(4, 7), slice(7, 10), slice(10, 20), slice(20, 30)
N_DRAWS = 30


@dataclass(frozen=True)
class CmrAugmentConfig:
    """How strongly CMR views differ; the same random transform acts on all frames of a sample.

    Attributes:
        flip: Probability of a horizontal flip.
        rotation_deg: Rotation is uniform within plus and minus this angle [deg].
        scale: Range of the share of the area that the resized crop keeps.
        ratio: Range of the width to height ratio of that crop, log-uniform.
        brightness: Factors are uniform in [1 - b, 1 + b], not below 0.
        contrast: The same, about the mean gray of the rotated frame.
        saturation: The same, about the gray of each pixel. Defined for three channels, where it pulls the three
            frames together or apart; it does nothing to inputs of other shapes.
        size: Side of the output [px]; None keeps the input's height.
        gate: Probability that a sample is changed at all; the others are only resized, as the reference's alignment
            leaves 5 % of its studies alone (arXiv 2308.05764, its code).
    """

    flip: float = 0.0
    rotation_deg: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    size: int | None = None
    gate: float = 1.0

    def __post_init__(self) -> None:
        for pair in ("scale", "ratio"):
            object.__setattr__(self, pair, tuple(float(value) for value in getattr(self, pair)))
        for name in ("flip", "gate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        if min(self.rotation_deg, self.brightness, self.contrast, self.saturation) < 0.0:
            raise ValueError("rotation_deg, brightness, contrast and saturation must not be negative")
        if len(self.scale) != 2 or not 0.0 < self.scale[0] <= self.scale[1] <= 1.0:
            raise ValueError(f"scale must be a rising pair within 0 to 1, got {self.scale}")
        if len(self.ratio) != 2 or not 0.0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be a rising pair of positive numbers, got {self.ratio}")

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CmrAugmentConfig:
        """Rebuild a configuration.

        Raises:
            ValueError: Naming unknown keys.
        """
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"CMR augmentation has no settings {unknown}")
        return cls(**values)


_TORCHVISION_RATIO = (3.0 / 4.0, 4.0 / 3.0)
PRESETS: dict[str, CmrAugmentConfig] = {
    # The MMCL-ECG-CMR reference (arXiv:2308.05764) in pretraining, and its soft variant in evaluation.
    "reference": CmrAugmentConfig(0.5, 45.0, (0.6, 1.0), _TORCHVISION_RATIO, 0.5, 0.5, 0.5),
    "soft": CmrAugmentConfig(0.5, 20.0, (0.8, 1.0), _TORCHVISION_RATIO, 0.25, 0.25, 0.25),
    # No flip: the RV is on one side. Little stretching: the shape of the LV is what the labels are about.
    "demo": CmrAugmentConfig(0.0, 20.0, (0.8, 1.0), (0.9, 1.0 / 0.9), 0.3, 0.3, 0.0),
    "none": CmrAugmentConfig(),
}


def augment_preset(name: str) -> CmrAugmentConfig:
    """Give one of `PRESETS` by name.

    Raises:
        ValueError: When the name is unknown.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown CMR augmentation {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


class CmrAugment:
    """Callable that gives one random view of every sample.

    The order is the reference's: flip, rotation (outside is 0), brightness, contrast and saturation in random order,
    resized crop. Rotation and crop are one affine map, so a pixel is interpolated once; what is pointwise (jitter) is
    done after it, with the contrast pivot taken from a small copy of the uncropped frame.
    """

    def __init__(self, config: CmrAugmentConfig | str) -> None:
        self.config = augment_preset(config) if isinstance(config, str) else config

    def __call__(self, cmr: Tensor, generator: torch.Generator, shard: tuple[int, int] = (0, 1)) -> Tensor:
        """Give one view.

        Args:
            cmr: (B, C, H, W) or (B, V, F, H, W), uint8 or float in [0, 1].
            generator: In the same state on all ranks; random numbers are drawn for the global batch.
            shard: (rank, world): this process holds rows rank * B to (rank + 1) * B of the global batch.

        Returns:
            float32 in [0, 1] of the same shape, or with H = W = `config.size`.

        Raises:
            ValueError: When the shape is not one of the two, or `size` would shrink the image.
        """
        if cmr.ndim not in (4, 5):
            raise ValueError(f"CMR must have shape (B, C, H, W) or (B, V, F, H, W), got {tuple(cmr.shape)}")
        rank, world = shard
        count = len(cmr)
        draws = torch.rand(world * count, N_DRAWS, generator=generator, device=generator.device)
        draws = draws[rank * count : (rank + 1) * count].cpu()
        passed = torch.ones(count, dtype=torch.bool)
        if self.config.gate < 1:  # drawn only where it is used: presets without a gate all draw the same numbers
            chance = torch.rand(world * count, generator=generator, device=generator.device)
            passed = chance[rank * count : (rank + 1) * count].cpu() < self.config.gate
        image = cmr.flatten(1, -3)
        size = self._output_size(image)
        if self.is_identity and size == image.shape[2] == image.shape[3]:
            return cmr.float() / 255.0 if cmr.dtype == torch.uint8 else cmr.float()
        rotation = rotation_matrix(draws, self.config, (image.shape[2], image.shape[3]))
        matrix = rotation @ crop_matrix(draws, self.config, (image.shape[2], image.shape[3]), size)
        jitter = self._jitter(draws, image, rotation)
        matrix[~passed] = resize_matrix((image.shape[2], image.shape[3]), size)
        jitter[~passed] = torch.tensor([1.0, 0.0, 0.0])
        view = warp_jitter(image, matrix[:, :2].contiguous(), jitter, size)
        return view.reshape(*cmr.shape[:-2], size, size)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is random."""
        c = self.config
        still = c.flip == 0 and c.rotation_deg == 0 and c.scale == (1.0, 1.0) and c.ratio == (1.0, 1.0)
        return still and c.brightness == c.contrast == c.saturation == 0

    def _output_size(self, image_BCHW: Tensor) -> int:
        size = self.config.size or image_BCHW.shape[2]
        if size < min(image_BCHW.shape[2:]):
            raise ValueError(
                f"augmentation size {size} is smaller than the image {tuple(image_BCHW.shape[2:])}: "
                "shrink in the CMR pipeline (size=...), which does it without aliasing"
            )
        return int(size)

    def _jitter(self, draws: Tensor, image_BCHW: Tensor, rotation_B33: Tensor) -> Tensor:
        """Blends (B, J, 3) v <- clip(a v + b gray + c), following the contrast pivot on a small rotated copy."""
        c = self.config
        spread = [c.brightness, c.contrast, c.saturation if image_BCHW.shape[1] == 3 else 0.0]
        active = [index for index, value in enumerate(spread) if value > 0]
        if not active:
            return torch.zeros(len(image_BCHW), 0, 3)
        low = torch.tensor([max(0.0, 1.0 - value) for value in spread])
        high = torch.tensor([1.0 + value for value in spread])
        factor = low + draws[:, STRENGTH] * (high - low)
        order = draws[:, ORDER][:, active].argsort(dim=1)
        operation = torch.tensor(active)[order]  # (B, J): which operation comes at place j
        strength = factor.gather(1, operation)
        blends = torch.stack((strength, (operation == 2) * (1.0 - strength), torch.zeros_like(strength)), dim=2)
        if 1 in active:
            follow_contrast(_small_rotated(image_BCHW, rotation_B33), blends, operation == 1)
        return blends


def rotation_matrix(draws: Tensor, config: CmrAugmentConfig, shape: tuple[int, int]) -> Tensor:
    """Maps (B, 3, 3) from a pixel (column, row, 1) of the flipped, then rotated frame to one of the frame.

    Positive angles turn counter-clockwise, about the middle of the frame.
    """
    height, width = shape
    angle = (2.0 * draws[:, ROTATE] - 1.0) * math.radians(config.rotation_deg)
    mirror = torch.where(draws[:, FLIP] < config.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    middle_x, middle_y = 0.5 * (width - 1), 0.5 * (height - 1)
    zero = torch.zeros_like(cos)
    column = torch.stack((mirror * cos, -mirror * sin, middle_x - mirror * (cos * middle_x - sin * middle_y)), dim=1)
    row = torch.stack((sin, cos, middle_y - sin * middle_x - cos * middle_y), dim=1)
    return torch.stack((column, row, torch.stack((zero, zero, zero + 1.0), dim=1)), dim=1)


def crop_matrix(draws: Tensor, config: CmrAugmentConfig, shape: tuple[int, int], size: int) -> Tensor:
    """Maps (B, 3, 3) from an output pixel (column, row, 1) into a random resized crop of the frame.

    The distribution is torchvision's RandomResizedCrop: area and log ratio uniform, whole pixels, ten attempts, then
    the largest centered crop whose ratio is allowed.
    """
    height, width = shape
    area = height * width * (config.scale[0] + draws[:, AREA] * (config.scale[1] - config.scale[0]))
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    ratio = torch.exp(low + draws[:, RATIO] * (high - low))
    wide, tall = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    wide, tall = wide.gather(1, first)[:, 0], tall.gather(1, first)[:, 0]
    left = torch.floor(draws[:, LEFT] * (width - wide + 1.0))
    top = torch.floor(draws[:, TOP] * (height - tall + 1.0))
    allowed = min(max(width / height, config.ratio[0]), config.ratio[1])
    full_wide, full_tall = min(width, round(height * allowed)), min(height, round(width / allowed))
    found = fits.any(dim=1)
    wide, left = torch.where(found, wide, full_wide), torch.where(found, left, (width - full_wide) // 2)
    tall, top = torch.where(found, tall, full_tall), torch.where(found, top, (height - full_tall) // 2)
    zero, one = torch.zeros_like(wide), torch.ones_like(wide)
    across, down = wide / size, tall / size
    column = torch.stack((across, zero, left + 0.5 * across - 0.5), dim=1)
    row = torch.stack((zero, down, top + 0.5 * down - 0.5), dim=1)
    return torch.stack((column, row, torch.stack((zero, zero, one), dim=1)), dim=1)


def resize_matrix(shape: tuple[int, int], size: int) -> Tensor:
    """Maps (3, 3) from an output pixel (column, row, 1) to the place in the whole frame that it shows."""
    down, across = shape[0] / size, shape[1] / size
    return torch.tensor([[across, 0.0, 0.5 * across - 0.5], [0.0, down, 0.5 * down - 0.5], [0.0, 0.0, 1.0]])


def _small_rotated(image_BCHW: Tensor, rotation_B33: Tensor) -> Tensor:
    """Copy (B, C, PIVOT_SIZE, PIVOT_SIZE) on the CPU of the rotated frame, whose mean stands for the frame's."""
    height, width = image_BCHW.shape[2:]
    stride = max(1, min(height, width) // PIVOT_SIZE)
    small = image_BCHW[:, :, stride // 2 :: stride, stride // 2 :: stride].cpu()
    pick = torch.tensor([[stride, 0.0, stride // 2], [0.0, stride, stride // 2], [0.0, 0.0, 1.0]])
    matrix = torch.linalg.inv(pick) @ rotation_B33 @ resize_matrix((height, width), PIVOT_SIZE)
    return warp_jitter(small, matrix[:, :2].contiguous(), torch.zeros(len(small), 0, 3), PIVOT_SIZE)
