"""Masked ECG modelling: the two terms, what each variant counts, and the reference's legacy switches."""

import pytest
import torch
from objective_cases import FACTS, generator, make_batch, model_config, total_loss

from ecgcmr.models.ecg_mae import draw_masking
from ecgcmr.objectives.masked import MaskedEcg, MaskedEcgConfig, cross_correlation, normalize_patches

DECODER = {"preset": "nano", "width": 16, "heads": 2}


def build(**fields: object) -> MaskedEcg:
    torch.manual_seed(0)
    config = MaskedEcgConfig.model_validate({"decoder": DECODER, "ecg_augment": "none", **fields})
    return MaskedEcg(config, model_config(), FACTS).double()


def test_cross_correlation__is_pearsons_r() -> None:
    x, y = torch.randn(2, 3, 50, dtype=torch.float64), torch.randn(2, 3, 50, dtype=torch.float64)
    r = cross_correlation(x, y)
    for b in range(2):
        for lead in range(3):
            assert r[b, lead].item() == pytest.approx(
                torch.corrcoef(torch.stack([x[b, lead], y[b, lead]]))[0, 1].item()
            )
    torch.testing.assert_close(cross_correlation(x, 3 * x + 7), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(cross_correlation(x, -x), -torch.ones(2, 3, dtype=torch.float64))


def test_cross_correlation__of_a_flat_lead_is_zero_with_a_finite_gradient() -> None:
    flat, y = torch.zeros(1, 1, 50), torch.zeros(1, 1, 50, requires_grad=True)
    r = cross_correlation(flat, y)
    r.sum().backward()
    assert r.item() == 0
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_cross_correlation__counts_weighted_samples_only() -> None:
    x, y = torch.randn(1, 2, 60, dtype=torch.float64), torch.randn(1, 2, 60, dtype=torch.float64)
    weight = torch.zeros_like(x)
    weight[:, 0, 10:30] = 1
    r = cross_correlation(x, y, weight)
    torch.testing.assert_close(r[0, 0], cross_correlation(x[..., 10:30], y[..., 10:30])[0, 0])
    assert r[0, 1] == 0


def test_cross_correlation__legacy_subtracts_the_variance_which_a_centered_target_cancels() -> None:
    x = torch.randn(1, 1, 40, dtype=torch.float64)
    y = (2 + torch.randn(1, 1, 40, dtype=torch.float64)).requires_grad_()
    var = y.var()
    expected = ((x - x.mean()) / x.std() * (y - var) / y.std()).sum() / 39
    legacy, correct = cross_correlation(x, y, legacy=True)[0, 0], cross_correlation(x, y)[0, 0]
    torch.testing.assert_close(legacy, expected)
    # Whatever constant is subtracted, its product with the centered target sums to 0: the reference's bug is harmless.
    torch.testing.assert_close(legacy, correct)
    torch.testing.assert_close(torch.autograd.grad(legacy, y)[0], torch.autograd.grad(correct, y)[0])


def test_normalize_patches__has_mean_zero_and_unit_unbiased_variance() -> None:
    patches = normalize_patches(5 + 3 * torch.randn(4, 7, 25, dtype=torch.float64))
    assert patches.mean(-1).abs().max() < 1e-12
    torch.testing.assert_close(patches.var(-1), torch.ones(4, 7, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("masked_only", [False, True])
def test_masked_ecg__losses_equal_a_plain_computation(masked_only: bool) -> None:
    objective = build(masked_only=masked_only, ncc_weight=0.1)
    batch = make_batch(3, torch.float64)
    batch["ecg"] = batch["ecg"][..., :100]
    out = objective(batch, generator(5))
    random = generator(5)
    masking = draw_masking((3, 48), 10, random)
    patches = objective.mae(batch["ecg"], masking).patches
    for i in range(3):
        errors, leads = [], []
        for lead in range(12):
            x, y = [], []
            for t in range(4):
                token = lead * 4 + t
                if masked_only and masking.mask[i, token] == 0:
                    continue
                target = batch["ecg"][i, lead, 25 * t : 25 * (t + 1)]
                errors.append((patches[i, token] - target).square().mean())
                x.append(target)
                y.append(patches[i, token])
            if x:
                leads.append(torch.corrcoef(torch.stack([torch.cat(x), torch.cat(y)]))[0, 1])
        torch.testing.assert_close(out.losses["mse"][i], torch.stack(errors).mean())
        torch.testing.assert_close(out.losses["ncc"][i], 1 - torch.stack(leads).mean())
    assert objective.loss_weights == pytest.approx({"mse": 0.9, "ncc": 0.1})


def test_masked_ecg__all_patch_error_is_the_mix_of_hidden_and_visible() -> None:
    every, hidden = build(), build(masked_only=True)
    batch = make_batch(4, torch.float64)
    batch["ecg"] = batch["ecg"][..., :100]
    masking = draw_masking((4, 48), 10, generator(1))
    patches = every.mae(batch["ecg"], masking).patches
    visible = ((patches - every.mae.patchify(batch["ecg"])).square().mean(-1) * (1 - masking.mask)).sum(1) / 10
    all_mse = every(batch, generator(1)).losses["mse"]
    masked_mse = hidden(batch, generator(1)).losses["mse"]
    torch.testing.assert_close(all_mse, (38 * masked_mse + 10 * visible) / 48)


def test_masked_ecg__norm_pix_compares_with_standardized_patches() -> None:
    objective = build(norm_pix=True)
    batch = make_batch(2, torch.float64)
    batch["ecg"] = batch["ecg"][..., :100]
    scaled = {**batch, "ecg": batch["ecg"]}
    patches = objective.mae(scaled["ecg"], draw_masking((2, 48), 10, generator(1))).patches
    target = normalize_patches(objective.mae.patchify(batch["ecg"]))
    expected = (patches - target).square().mean((1, 2))
    torch.testing.assert_close(objective(batch, generator(1)).losses["mse"], expected)


def test_masked_ecg__keeps_59_of_300_only_when_asked() -> None:
    assert build().keep == 10  # 48 patches at .8
    assert build(legacy_len_keep=True).keep == 9


def test_masked_ecg__a_missing_ecg_counts_nothing() -> None:
    objective = build()
    batch = make_batch(4, torch.float64)
    batch["has_ecg"][2] = False
    batch["ecg"][2] = 0
    out = objective(batch, generator(0))
    assert out.losses["mse"][2] == out.losses["ncc"][2] == 0
    total_loss(objective, out).backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)


def test_masked_ecg__evaluation_repeats_itself_and_training_needs_a_generator() -> None:
    objective = build()
    batch = make_batch(2, torch.float64)
    with pytest.raises(ValueError, match=r"needs a torch\.Generator"):
        objective(batch)
    objective.eval()
    assert torch.equal(objective(batch).losses["mse"], objective(batch).losses["mse"])


def test_masked_ecg__crops_at_random_in_training_and_at_zero_in_evaluation() -> None:
    objective = build(mask_ratio=0.0)
    batch = make_batch(2, torch.float64)
    start = {**batch, "ecg": batch["ecg"][..., :100]}
    seen = objective.train()(batch, generator(3)).losses["mse"]
    assert not torch.allclose(seen, objective(start, generator(3)).losses["mse"])
    objective.eval()
    torch.testing.assert_close(
        objective(batch, generator(3)).losses["mse"], objective(start, generator(3)).losses["mse"]
    )


def test_cross_correlation__without_a_weight_is_bit_for_bit_that_of_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(3, 4, 250, generator=generator)
    for legacy in (False, True):
        found = []
        for weight in (None, torch.ones_like(target)):
            prediction = torch.randn(3, 4, 250, generator=torch.Generator().manual_seed(1)).requires_grad_()
            value = cross_correlation(target, prediction, weight, legacy)
            (gradient,) = torch.autograd.grad(value.sum(), prediction)
            found.append((value, gradient))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
