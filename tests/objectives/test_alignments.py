"""SigLIP, Barlow Twins, VICReg and positives by labels, each against its formula or a plain loop."""

import math

import pytest
import torch
from objective_cases import FACTS, build, generator, make_batch, total_loss
from torch import Tensor

from ecgcmr.objectives import DataFacts
from ecgcmr.objectives.align_barlow import barlow_loss
from ecgcmr.objectives.align_labels import soft_contrast
from ecgcmr.objectives.align_siglip import siglip_loss
from ecgcmr.objectives.align_vicreg import vicreg_terms
from ecgcmr.objectives.label_space import gaussian_similarity

ALL = ("siglip_align", "barlow_align", "vicreg_align", "label_align")


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def test_siglip_loss__equals_a_hand_example() -> None:
    """Logits [[1, -2], [0, 3]], the diagonal matches; the second row leaves out its other column."""
    logits = torch.tensor([[1.0, -2.0], [0.0, 3.0]], dtype=torch.float64)
    excluded = torch.tensor([[False, False], [True, False]])
    found = siglip_loss(logits, excluded, torch.arange(2))
    assert found.tolist() == pytest.approx(
        [math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2)), math.log(1 + math.exp(-3))]
    )


def test_siglip_align__total_is_the_papers_mean_over_pairs_in_either_direction() -> None:
    objective = build({"name": "siglip_align"}).double().eval()
    batch = make_batch(6, torch.float64)
    batch["subject"] = torch.arange(6)
    batch["has_ecg"][:] = batch["has_cmr"][:] = True
    found = objective.represent(batch)
    logits = 10 * found["image"] @ found["ecg"].T - 10
    sign = 2 * torch.eye(6, dtype=torch.float64) - 1
    for matrix in (logits, logits.T):
        expected = -torch.nn.functional.logsigmoid(sign * matrix).sum() / 6
        torch.testing.assert_close(total_loss(objective, objective(batch)), expected, rtol=1e-6, atol=0)
    with torch.no_grad():
        objective.log_scale.fill_(9.0)
    objective.after_step()
    assert objective.log_scale.exp().item() == pytest.approx(100.0)


def test_barlow_loss__equals_the_correlation_matrix_of_numpy() -> None:
    import numpy as np

    image, ecg = rows(12, 4, 0), rows(12, 4, 1)
    valid = torch.arange(12) % 5 != 0
    both = np.corrcoef(image[valid].T.numpy(), ecg[valid].T.numpy())[:4, 4:]
    expected = ((1 - np.diag(both)) ** 2).sum() + 0.1 * ((both - np.diag(np.diag(both))) ** 2).sum()
    assert barlow_loss(image, ecg, valid, 0.1).item() == pytest.approx(expected, rel=1e-9)


def test_barlow_loss__is_zero_for_equal_decorrelated_views_and_finite_for_nothing() -> None:
    q, _ = torch.linalg.qr(rows(20, 5, 2) - rows(20, 5, 2).mean(0))
    white = q - q.mean(0)
    white = torch.linalg.qr(white)[0]
    everyone = torch.ones(20, dtype=torch.bool)
    assert barlow_loss(white, 3 * white + 1, everyone, 1.0).item() == pytest.approx(0, abs=1e-9)
    flat = torch.ones(20, 5, dtype=torch.float64, requires_grad=True)
    loss = barlow_loss(flat, flat, ~everyone, 1.0)
    assert loss.item() == 5.0
    loss.backward()
    assert flat.grad.isfinite().all()


def test_vicreg_terms__equal_the_covariance_matrix_of_numpy() -> None:
    import numpy as np

    x = 0.7 * rows(10, 3, 3)
    valid = torch.arange(10) != 4
    covariance = np.cov(x[valid].T.numpy())
    variance, off = vicreg_terms(x, valid)
    hinge = np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
    assert variance.item() == pytest.approx(hinge, rel=1e-9)
    assert off.item() == pytest.approx((covariance**2).sum() / 3 - (np.diag(covariance) ** 2).sum() / 3, rel=1e-9)
    collapsed = torch.ones(10, 3, dtype=torch.float64)
    assert vicreg_terms(collapsed, valid)[0].item() == pytest.approx(1 - 0.01)


def test_vicreg_align__weighs_its_terms_and_counts_pairs_only() -> None:
    objective = build({"name": "vicreg_align", "invariance": 2.0, "covariance": 0.5}).double().eval()
    assert dict(objective.loss_weights) == {"invariance": 2.0, "variance": 25.0, "covariance": 0.5}
    batch = make_batch(8, torch.float64)
    found = objective.represent(batch)
    pairs = batch["has_ecg"] & batch["has_cmr"]
    expected = 2 * (found["image"] - found["ecg"])[pairs].square().mean()
    for name in ("image", "ecg"):
        variance, covariance = vicreg_terms(found[name][pairs], torch.ones(int(pairs.sum()), dtype=torch.bool))
        expected = expected + 25 * variance + 0.5 * covariance
    torch.testing.assert_close(total_loss(objective, objective(batch)), expected)


def test_gaussian_similarity__uses_labels_that_both_have() -> None:
    labels = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    seen = torch.tensor([[True, True], [True, False], [False, False]])
    found = gaussian_similarity((labels, seen), (labels, seen), 2.0)
    expected = [[1, math.exp(-4 / 8), 0], [math.exp(-4 / 8), 1, 0], [0, 0, 0]]
    assert found.tolist() == [pytest.approx(row) for row in expected]


def test_soft_contrast__of_one_positive_is_cross_entropy_and_of_classes_is_supcon() -> None:
    logits = rows(4, 6, 5)
    one = torch.nn.functional.one_hot(torch.tensor([3, 0, 5, 1]), 6).double()
    expected = torch.nn.functional.cross_entropy(logits, one.argmax(1), reduction="none")
    torch.testing.assert_close(soft_contrast(logits, one), expected)
    several = torch.tensor([[1.0, 0, 1, 0, 1, 0]], dtype=torch.float64)
    plain = -sum(float(logits[0, j] - logits[0].logsumexp(0)) for j in (0, 2, 4)) / 3
    assert soft_contrast(logits[:1], several).item() == pytest.approx(plain)
    # Minus infinity where a column takes no part must not spread.
    hidden = logits.masked_fill(torch.tensor([False, True, False, False, False, False]), -torch.inf).requires_grad_()
    soft_contrast(hidden, several.expand(4, 6)).sum().backward()
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["soft", "nearest", "remove"])
def test_label_align__equals_a_plain_loop(kind: str) -> None:
    fields = {"name": "label_align", "positives": kind, "k": 2, "width": 1.0, "floor": 0.3, "image_weight": 0.7}
    objective = build(fields).double().eval()
    batch = make_batch(8, torch.float64)
    out = objective(batch)
    found = objective.represent(batch)
    unit = {name: torch.nn.functional.normalize(found[name], dim=1) for name in ("image", "ecg")}
    pair = (batch["has_ecg"] & batch["has_cmr"]).tolist()
    scaled = (batch["labels"] - torch.tensor([150.0, 0.0, 110.0])) / torch.tensor([30.0, 1.0, 25.0])
    seen, subject, losses, extra = batch["label_mask"], batch["subject"], [], 0
    for i in (i for i in range(8) if pair[i]):
        columns = [j for j in range(8) if j == i or (pair[j] and subject[j] != subject[i])]
        alike = {}
        for j in columns:
            both = seen[i] & seen[j]
            if j != i and both.any():
                value = math.exp(-float((scaled[i] - scaled[j])[both].square().mean()) / 2)
                if value >= 0.3:
                    alike[j] = value
        extra += len(alike)
        weights = {i: 1.0}
        if kind == "soft":
            weights |= alike
        if kind == "nearest":
            weights |= dict.fromkeys(sorted(alike, key=lambda j: -alike[j])[:2], 1.0)
        if kind == "remove":
            columns = [j for j in columns if j not in alike]
        both_ways = []
        for anchor, other in (("image", "ecg"), ("ecg", "image")):
            logits = {j: float(unit[anchor][i].detach() @ unit[other][j].detach()) / 0.1 for j in columns}
            total = math.log(sum(math.exp(value) for value in logits.values()))
            both_ways.append(-sum(w * (logits[j] - total) for j, w in weights.items()) / sum(weights.values()))
        losses.append(0.7 * both_ways[0] + 0.3 * both_ways[1])
    assert extra > 0
    assert out.losses["contrast"][torch.tensor(pair)].tolist() == pytest.approx(losses)


def test_label_align__without_similar_subjects_is_clip() -> None:
    batch = make_batch(8)
    alone = build({"name": "label_align", "floor": 1.0, "width": 1e-3}).eval()(batch)
    clip = build({"name": "clip_align"}).eval()(batch)
    torch.testing.assert_close(alone.losses["contrast"], clip.losses["clip"])
    with pytest.raises(ValueError, match="needs labels"):
        build({"name": "label_align"}, facts=DataFacts(100, 100.0, FACTS.cmr_shape))


@pytest.mark.parametrize("name", ALL)
def test_alignments__a_missing_modality_neither_counts_nor_disturbs(name: str) -> None:
    objective = build({"name": name}).double().eval()
    batch = make_batch(8, torch.float64)
    before = objective(batch)
    batch["ecg"][1] = 3.0
    batch["cmr"][2] = 0.9
    after = objective(batch)
    for loss in before.losses:
        torch.testing.assert_close(after.losses[loss], before.losses[loss])
        assert after.losses[loss][[1, 2]].abs().max() == 0
        assert after.valid[loss].tolist() == [True, False, False, True, True, True, True, True]
