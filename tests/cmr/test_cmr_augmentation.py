"""Augmentation: exact cases, equality of the two implementations, shards, and the distribution of torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.transforms import functional as tv

from ecgcmr.cmr.augmentation import (
    FLIP,
    N_DRAWS,
    ORDER,
    PRESETS,
    ROTATE,
    STRENGTH,
    CmrAugment,
    CmrAugmentConfig,
    augment_preset,
    crop_matrix,
    rotation_matrix,
)
from ecgcmr.cmr.warp import warp_jitter, warp_jitter_torch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(batch: int = 4, channels: int = 3, side: int = 33) -> torch.Tensor:
    """Smooth random pictures in [0, 1], so that interpolation is exact enough to compare."""
    small = torch.rand(batch, channels, 5, 5, generator=generator(7))
    return torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic").clamp(0, 1)


def warp(image: torch.Tensor, draws: torch.Tensor, config: CmrAugmentConfig) -> torch.Tensor:
    shape = (image.shape[2], image.shape[3])
    matrix = rotation_matrix(draws, config, shape) @ crop_matrix(draws, config, shape, shape[0])
    return warp_jitter(image, matrix[:, :2].contiguous(), torch.zeros(len(image), 0, 3), shape[0])


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (2, 3, 4, 16, 16)])
def test_augment__none_is_the_identity(shape: tuple[int, ...]) -> None:
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator())
    out = CmrAugment("none")(image, generator())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, image.float() / 255.0, rtol=0, atol=0)


def test_warp__identity_matrix_gives_the_image_back() -> None:
    image = torch.rand(3, 5, 17, 17, generator=generator())
    draws = torch.full((3, N_DRAWS), 0.5)
    torch.testing.assert_close(warp(image, draws, CmrAugmentConfig()), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("draw", "turns"), [(1.0, 1), (0.0, -1)])
def test_warp__ninety_degrees_equals_rot90(draw: float, turns: int) -> None:
    image = torch.rand(2, 3, 24, 24, generator=generator())
    draws = torch.full((2, N_DRAWS), 0.9)
    draws[:, ROTATE] = draw
    out = warp(image, draws, CmrAugmentConfig(rotation_deg=90.0))
    torch.testing.assert_close(out, torch.rot90(image, turns, (2, 3)), rtol=0, atol=1e-4)


def test_warp__flip_equals_torch_flip() -> None:
    image = torch.rand(2, 3, 9, 9, generator=generator())
    draws = torch.full((2, N_DRAWS), 0.5)
    draws[0, FLIP] = 0.0
    out = warp(image, draws, CmrAugmentConfig(flip=0.4))
    torch.testing.assert_close(out[0], image[0].flip(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(out[1], image[1], rtol=0, atol=1e-5)


def test_warp__flip_then_rotate_then_crop_equals_torchvision() -> None:
    """The composed map against torchvision's three steps, bilinear, away from borders."""
    image = smooth(1, 3, 65)
    config = CmrAugmentConfig(flip=1.0, rotation_deg=30.0, scale=(0.5, 0.5))
    draws = torch.full((1, N_DRAWS), 0.5)
    draws[:, ROTATE] = 1.0
    ours = warp(image, draws, config)
    side = round(math.sqrt(0.5 * 65 * 65))
    offset = math.floor(0.5 * (65 - side + 1))
    turned = tv.rotate(tv.hflip(image), 30.0, interpolation=tv.InterpolationMode.BILINEAR)
    theirs = tv.resized_crop(turned, offset, offset, side, side, [65, 65], antialias=True)
    assert (ours - theirs)[:, :, 2:-2, 2:-2].abs().max() < 0.02


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_warp_jitter__compiled_equals_torch(channels: int, dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (5, channels, 20, 20), dtype=torch.uint8, generator=generator())
    image = image if dtype == torch.uint8 else image.float() / 255.0
    draws = torch.rand(5, N_DRAWS, generator=generator(1))
    config = PRESETS["reference"]
    matrix = (rotation_matrix(draws, config, (20, 20)) @ crop_matrix(draws, config, (20, 20), 30))[:, :2].contiguous()
    jitter = torch.rand(5, 3, 3, generator=generator(2)) - 0.3
    torch.testing.assert_close(
        warp_jitter(image, matrix, jitter, 30), warp_jitter_torch(image, matrix, jitter, 30), rtol=0, atol=2e-5
    )


def test_warp_jitter__threads_do_not_change_the_result() -> None:
    image = torch.rand(33, 3, 20, 20, generator=generator())
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(CmrAugment("reference")(image, generator(3)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_jitter__equals_torchvision_blends_in_the_same_order() -> None:
    """Without geometry, the blends are torchvision's brightness, contrast and saturation, in the drawn order."""
    image = smooth(6, 3, 48)
    config = CmrAugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5)
    augment = CmrAugment(config)
    out = augment(image, generator(5))
    draws = torch.rand(6, N_DRAWS, generator=generator(5))
    for row in range(6):
        factors = (0.5 + draws[row, STRENGTH]).tolist()
        expected = image[row]
        for operation in draws[row, ORDER].argsort().tolist():
            adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)[operation]
            expected = adjust(expected, factors[operation])
        assert (out[row] - expected).abs().max() < 0.01  # the contrast pivot comes from a small copy


def test_jitter__saturation_needs_three_channels() -> None:
    augment = CmrAugment(CmrAugmentConfig(saturation=0.9))
    image = smooth(2, 5, 16)
    torch.testing.assert_close(augment(image, generator()), image, rtol=0, atol=1e-6)
    assert not torch.allclose(augment(image[:, :3], generator()), image[:, :3], atol=1e-2)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("shape", [(6, 3, 32, 32), (6, 2, 4, 32, 32)])
def test_augment__range_shape_and_repeatability(preset: str, shape: tuple[int, ...]) -> None:
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator())
    kept = image.clone()
    out = CmrAugment(preset)(image, generator(1))
    assert out.shape == image.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(out, CmrAugment(preset)(image, generator(1)))
    assert torch.equal(image, kept)


@pytest.mark.parametrize("world", [2, 4])
def test_augment__shards_are_rows_of_the_global_batch(world: int) -> None:
    image = torch.randint(0, 256, (8, 3, 24, 24), dtype=torch.uint8, generator=generator())
    augment = CmrAugment("reference")
    whole = augment(image, generator(2))
    rows = 8 // world
    parts = [augment(image[r * rows : (r + 1) * rows], generator(2), (r, world)) for r in range(world)]
    assert torch.equal(torch.cat(parts), whole)


def test_augment__generator_advances_the_same_for_every_preset() -> None:
    """Two views from one generator differ, and a preset does not shift the numbers of what follows."""
    image = torch.rand(4, 3, 16, 16, generator=generator())
    states = []
    for preset in PRESETS:
        g = generator(9)
        CmrAugment(preset)(image, g)
        states.append(g.get_state())
    assert all(torch.equal(states[0], state) for state in states)
    g = generator(9)
    assert not torch.equal(CmrAugment("soft")(image, g), CmrAugment("soft")(image, g))


def test_augment__all_frames_of_a_sample_move_together() -> None:
    frame = smooth(3, 1, 32)
    out = CmrAugment("demo")(frame.expand(3, 6, 32, 32).reshape(3, 2, 3, 32, 32), generator())
    assert (out - out[:, :1, :1]).abs().max() < 1e-6


def test_augment__size_and_wrong_shapes() -> None:
    config = CmrAugmentConfig.from_dict({**PRESETS["soft"].to_dict(), "size": 40})
    assert CmrAugment(config)(torch.rand(2, 3, 20, 20), generator()).shape == (2, 3, 40, 40)
    with pytest.raises(ValueError, match="without aliasing"):
        CmrAugment(config)(torch.rand(2, 3, 64, 64), generator())
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        CmrAugment("soft")(torch.rand(3, 64, 64), generator())
    with pytest.raises(ValueError, match="unknown CMR augmentation 'hard'"):
        augment_preset("hard")


@pytest.mark.parametrize(
    "values",
    [{"flip": 1.5}, {"gate": -0.1}, {"rotation_deg": -1.0}, {"scale": [0.9, 0.5]}, {"ratio": [0.0, 1.0]}, {"zoom": 2}],
)
def test_config__wrong_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        CmrAugmentConfig.from_dict(values)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_config__round_trip(preset: str) -> None:
    config = PRESETS[preset]
    assert CmrAugmentConfig.from_dict(config.to_dict()) == config


def test_draws__flips_and_angles_have_their_distribution() -> None:
    """A corner marker tells flips; 2,000 samples, five standard errors."""
    image = torch.zeros(2000, 1, 8, 8)
    image[:, :, :, :4] = 1.0
    out = CmrAugment(CmrAugmentConfig(flip=0.3))(image, generator(4))
    flipped = (out[:, 0, 4, 0] < 0.5).float().mean().item()
    assert abs(flipped - 0.3) < 5 * math.sqrt(0.21 / 2000)
    assert CmrAugmentConfig(flip=0.0) == PRESETS["none"]
    assert PRESETS["demo"].flip == 0.0


def test_crop_matrix__boxes_have_torchvisions_distribution() -> None:
    """Area, ratio and place of 4,000 crops against torchvision's own parameter draw (means and deciles)."""
    count, side, config = 4000, 78, PRESETS["reference"]
    matrix = crop_matrix(torch.rand(count, N_DRAWS, generator=generator(6)), config, (side, side), side)
    wide, tall = matrix[:, 0, 0] * side, matrix[:, 1, 1] * side
    left, top = matrix[:, 0, 2] + 0.5 - 0.5 * matrix[:, 0, 0], matrix[:, 1, 2] + 0.5 - 0.5 * matrix[:, 1, 1]
    torch.manual_seed(0)
    blank = torch.zeros(1, side, side)
    boxes = [transforms.RandomResizedCrop.get_params(blank, [0.6, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    theirs = np.array(boxes, dtype=float)
    ours = torch.stack((top, left, tall, wide), dim=1).numpy()
    assert (ours[:, :2] > -1e-3).all()
    assert (ours[:, :2] + ours[:, 2:] < side + 1e-3).all()
    deciles = np.arange(10, 100, 10)
    difference = np.percentile(ours, deciles, axis=0) - np.percentile(theirs, deciles, axis=0)
    assert np.abs(difference).max() <= 1.5  # pixels; boxes are whole pixels


@pytest.mark.slow
def test_reference__same_distribution_as_torchvision() -> None:
    """Mean and spread of every pixel over 3,000 views of one picture agree within sampling error and interpolation."""
    count, image = 3000, smooth(1, 3, 40)
    config = PRESETS["reference"]
    ours = CmrAugment(config)(image.expand(count, -1, -1, -1), generator(8))
    chain = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(config.flip),
            transforms.RandomRotation(config.rotation_deg, interpolation=tv.InterpolationMode.BILINEAR),
            transforms.ColorJitter(config.brightness, config.contrast, config.saturation),
            transforms.RandomResizedCrop(40, config.scale, config.ratio, antialias=True),
        ]
    )
    torch.manual_seed(1)
    theirs = torch.stack([chain(image[0]) for _ in range(count)])
    error = (theirs.std(0) / math.sqrt(count)) * math.sqrt(2)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error + 0.01).all()
    assert (ours.std(0) - theirs.std(0)).abs().max() < 0.03
