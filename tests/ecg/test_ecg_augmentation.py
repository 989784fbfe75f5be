"""Augmentations against a float64 full-FFT computation, their invariances, and exactness over ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.ecg.augmentation import (
    AUGMENT_PRESETS,
    AugmentConfig,
    EcgAugment,
    augment_preset,
    crop_random,
    crop_start,
    fourier_surrogate,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(batch: int = 6, n: int = 500, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, 12, n, generator=_generator(seed))


def _full_fft(x_LT: np.ndarray, turns_F: np.ndarray, eps: float) -> np.ndarray:
    """The definition: full float64 FFT, antisymmetric phases, zero at zero frequency and at the Nyquist frequency."""
    n = x_LT.shape[-1]
    u = np.zeros(n)
    half = (n - 1) // 2
    u[1 : half + 1] = turns_F[1 : half + 1]
    u[n - half :] = -u[1 : half + 1][::-1]
    return np.fft.ifft(np.fft.fft(x_LT.astype(np.float64)) * np.exp(eps * 2j * math.pi * u)).real


@pytest.mark.parametrize("n", [500, 499, 2500])
@pytest.mark.parametrize("eps", [0.075, 1.0])
def test_fourier_surrogate__equals_the_full_transform(n: int, eps: float) -> None:
    x, turns = _batch(3, n), torch.rand(3, n // 2 + 1, generator=_generator(2))
    got = fourier_surrogate(x, turns * eps * 2 * math.pi)
    for row in range(3):
        expected = _full_fft(x[row].numpy(), turns[row].double().numpy(), eps)
        np.testing.assert_allclose(got[row].numpy(), expected, atol=5e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 300), st.integers(0, 99))
def test_fourier_surrogate__keeps_amplitudes_and_the_relation_of_leads(n: int, seed: int) -> None:
    x = torch.randn(2, 3, n, generator=_generator(seed), dtype=torch.float64)
    phase = torch.rand(2, n // 2 + 1, generator=_generator(seed + 1), dtype=torch.float64) * 2 * math.pi
    before, after = torch.fft.rfft(x), torch.fft.rfft(fourier_surrogate(x, phase))
    torch.testing.assert_close(after.abs(), before.abs(), atol=1e-9, rtol=0)
    cross = lambda s: s[:, :1] * s[:, 1:].conj()  # noqa: E731
    torch.testing.assert_close(cross(after), cross(before), atol=1e-8, rtol=0)


def test_fourier_surrogate__einthoven_survives() -> None:
    x = _batch(4)
    x[:, 2] = x[:, 1] - x[:, 0]
    got = EcgAugment(AugmentConfig(surrogate_eps=0.5))(x, _generator())
    torch.testing.assert_close(got[:, 2], got[:, 1] - got[:, 0], atol=1e-5, rtol=0)
    assert (got - x).abs().max() > 0.1


def test_jitter__is_multiplicative_with_the_stated_size() -> None:
    x = torch.full((40, 12, 500), 3.0)
    x[:, :, 100:200] = 0.0
    got = EcgAugment(AugmentConfig(jitter_sigma=0.25))(x, _generator())
    assert (got[:, :, 100:200] == 0).all()
    noise = got[:, :, 200:] / 3.0 - 1.0
    assert float(noise.std()) == pytest.approx(0.6 * 0.25, rel=0.01)
    assert float(noise.mean()) == pytest.approx(0.0, abs=2e-3)
    kurtosis = float((noise**4).mean() / (noise**2).mean() ** 2)
    assert kurtosis == pytest.approx(3.0, abs=0.1)
    flat = noise.reshape(-1)
    assert abs(float(torch.corrcoef(torch.stack([flat[:-1], flat[1:]]))[0, 1])) < 0.01


def test_jitter__additive_does_not_look_at_the_sample_but_for_its_scale() -> None:
    """x + a N(0, sigma^2): noise on a silent sample too; then the scale of the sample multiplies both."""
    config = AugmentConfig(jitter_sigma=0.25, jitter_additive=True)
    x = _batch(20)
    noise = EcgAugment(config)(torch.zeros_like(x), _generator(3))
    torch.testing.assert_close(EcgAugment(config)(x, _generator(3)), x + noise, atol=1e-6, rtol=0)
    assert float(noise.std()) == pytest.approx(0.6 * 0.25, rel=0.01)
    assert float(EcgAugment(AugmentConfig(jitter_sigma=0.25))(torch.zeros_like(x), _generator(3)).abs().max()) == 0
    both = EcgAugment(replace(config, rescale_sigma=0.5))
    scale = both(torch.ones_like(x), _generator(3)) - both(torch.zeros_like(x), _generator(3))
    torch.testing.assert_close(scale, scale[:, :1, :1].expand_as(scale), atol=1e-5, rtol=0)
    dropping = EcgAugment(replace(config, lead_dropout=1.0))
    assert float(dropping(x, _generator(3)).abs().max()) == 0


def test_jitter__differs_between_samples_of_a_batch() -> None:
    noise = EcgAugment(AugmentConfig(jitter_sigma=0.25))(torch.ones(9, 12, 500), _generator())[:, 0] - 1.0
    correlation = torch.corrcoef(noise) - torch.eye(9)
    assert float(correlation.abs().max()) < 0.25


def test_rescaling__is_one_scalar_for_each_sample() -> None:
    x = _batch(3000, 4)
    ratio = EcgAugment(AugmentConfig(rescale_sigma=0.5))(x, _generator()) / x
    scale = ratio[:, :1, :1]
    torch.testing.assert_close(ratio, scale.expand_as(ratio), atol=1e-4, rtol=1e-4)
    assert float(scale.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(scale.std()) == pytest.approx(0.5, abs=0.03)
    assert float((scale < 0).float().mean()) == pytest.approx(0.0228, abs=0.012)  # the sign flips of sigma 0.5


@pytest.mark.parametrize("p", [0.2, 0.95])
def test_gate__passes_the_stated_share_and_leaves_the_rest_alone(p: float) -> None:
    x = _batch(2000, 16)
    config = AugmentConfig(gate=p, surrogate_eps=0.3, jitter_sigma=0.25, rescale_sigma=0.5, lead_dropout=0.1)
    got = EcgAugment(config)(x, _generator())
    untouched = (got == x).flatten(1).all(dim=1)
    assert float(untouched.float().mean()) == pytest.approx(1 - p, abs=0.04)


def test_surrogate_p__turns_the_stated_share() -> None:
    x = _batch(2000, 16)
    got = EcgAugment(AugmentConfig(surrogate_eps=0.3, surrogate_p=0.5))(x, _generator())
    assert float((got == x).flatten(1).all(dim=1).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_lead_dropout__sets_whole_leads_to_zero() -> None:
    x = _batch(400, 20)
    got = EcgAugment(AugmentConfig(lead_dropout=0.25))(x, _generator())
    gone = (got == 0).all(dim=2)
    assert ((got == x).all(dim=2) | gone).all()
    assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("preset", [*AUGMENT_PRESETS])
def test_augment__same_generator_same_result_and_input_unchanged(preset: str) -> None:
    x = _batch()
    copy = x.clone()
    augment = EcgAugment(preset)
    first, second = augment(x, _generator(5)), augment(x, _generator(5))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    torch.testing.assert_close(x, copy, atol=0, rtol=0)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    if preset == "none":
        assert first is x
    else:
        assert (augment(x, _generator(6)) - first).abs().max() > 0


@pytest.mark.parametrize("preset", ["mae", "mmcl", "light"])
@pytest.mark.parametrize(("batch", "n"), [(12, 500), (14, 2500), (3, 2500), (40, 3000)])
def test_augment__shards_together_equal_one_process(preset: str, batch: int, n: int) -> None:
    config = replace(augment_preset(preset), lead_dropout=0.1)
    x = _batch(batch * 2, n)
    whole = _generator(3)
    expected = EcgAugment(config)(x, whole)
    parts, states = [], []
    for rank in range(2):
        generator = _generator(3)
        parts.append(EcgAugment(config)(x[rank * batch : (rank + 1) * batch], generator, shard=(rank, 2)))
        states.append(generator.get_state())
    # transforms of other batch sizes may differ in the last bit; the random numbers may not
    torch.testing.assert_close(torch.cat(parts), expected, atol=2e-6, rtol=0)
    assert all(torch.equal(state, whole.get_state()) for state in states)


@pytest.mark.parametrize("preset", ["mae", "mmcl", "light"])
def test_augment__in_place_gives_the_same(preset: str) -> None:
    x = _batch(9, 2500)
    expected = EcgAugment(preset)(x, _generator())
    got = EcgAugment(preset)(x, _generator(), inplace=True)
    assert got is x
    torch.testing.assert_close(got, expected, atol=0, rtol=0)


def test_augment__float64_and_half_batches_see_the_same_random_numbers() -> None:
    x = _batch()
    single = EcgAugment("mae")(x, _generator())
    torch.testing.assert_close(EcgAugment("mae")(x.double(), _generator()), single.double(), atol=1e-5, rtol=0)


def test_presets__are_the_reference_settings() -> None:
    mae, finetune = AUGMENT_PRESETS["mae"], AUGMENT_PRESETS["finetune"]
    assert (mae.surrogate_eps, mae.surrogate_p, mae.jitter_sigma, mae.jitter_amplitude, mae.rescale_sigma) == (
        0.1, 0.5, 0.25, 0.6, 0.5,
    )  # fmt: skip
    assert (finetune.surrogate_eps, finetune.surrogate_p, finetune.jitter_sigma) == (0.075, 0.5, 0.2)
    assert all(AUGMENT_PRESETS[name].gate == 0.95 for name in AUGMENT_PRESETS if name.startswith("mmcl"))
    assert all(config.lead_dropout == 0 for config in AUGMENT_PRESETS.values())
    assert AUGMENT_PRESETS["light"].rescale_sigma == 0


@pytest.mark.parametrize("preset", [*AUGMENT_PRESETS])
def test_config__round_trip(preset: str) -> None:
    config = augment_preset(preset)
    assert AugmentConfig.from_dict(config.to_dict()) == config


def test_config__refuses_unknown_names_and_impossible_values() -> None:
    with pytest.raises(ValueError, match="unknown augmentation settings jiter_sigma"):
        AugmentConfig.from_dict({"jiter_sigma": 0.1})
    with pytest.raises(ValueError, match="gate is a probability"):
        AugmentConfig(gate=1.5)
    with pytest.raises(ValueError, match="legacy_crop must be true or false"):
        AugmentConfig.from_dict({"legacy_crop": 1})
    with pytest.raises(ValueError, match="jitter_sigma must be"):
        AugmentConfig(jitter_sigma=-1.0)
    with pytest.raises(ValueError, match="unknown ECG augmentation 'mea'"):
        EcgAugment("mea")
    with pytest.raises(ValueError, match="shard"):
        EcgAugment("mae")(_batch(), _generator(), shard=(2, 2))


@pytest.mark.parametrize(("legacy", "starts"), [(False, [0, 1, 2, 3, 4, 5]), (True, [0, 1, 2, 3, 4])])
def test_crop_random__starts_are_uniform_and_only_the_reference_never_takes_the_last(
    legacy: bool, starts: list[int]
) -> None:
    t = torch.arange(30.0).expand(4000, 2, 30).clone()
    got = crop_random(t, 25, _generator(), legacy=legacy)
    start = got[:, 0, 0]
    torch.testing.assert_close(got, start[:, None, None] + torch.arange(25.0).expand(4000, 2, 25))
    assert sorted(start.unique().tolist()) == starts
    share, p = torch.bincount(start.long()).float() / 4000, 1 / len(starts)
    assert float((share - p).abs().max()) < 5 * math.sqrt(p * (1 - p) / 4000)


@pytest.mark.parametrize("legacy", [False, True])
def test_crop_random__whole_length_starts_at_zero(legacy: bool) -> None:
    x = _batch()
    torch.testing.assert_close(crop_random(x, 500, _generator(), legacy=legacy), x)


def test_crop_random__shards_together_equal_one_process() -> None:
    x = _batch(10)
    parts = [crop_random(x[r * 5 : r * 5 + 5], 100, _generator(), shard=(r, 2)) for r in range(2)]
    torch.testing.assert_close(torch.cat(parts), crop_random(x, 100, _generator()), atol=0, rtol=0)


def test_crop__start_and_limits() -> None:
    x = _batch()
    torch.testing.assert_close(crop_start(x, 40), x[:, :, :40])
    for crop in (lambda: crop_start(x, 501), lambda: crop_random(x, 0, _generator())):
        with pytest.raises(ValueError, match="cannot crop"):
            crop()
