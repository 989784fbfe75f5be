"""NT-Xent, cosine positives, phenotype weights, relations, phases, temporal, cross-view: formulas and plain loops."""

import math

import numpy as np
import pytest
import torch
from objective_cases import FACTS, FACTS_OF, build, generator, make_batch, total_loss
from torch import Tensor

from ecgcmr.objectives import DataFacts
from ecgcmr.objectives.align_phenotype import weighted_contrast
from ecgcmr.objectives.align_relational import relational_loss, smooth_l1
from ecgcmr.objectives.align_temporal import local_loss
from ecgcmr.objectives.beat_phase import beats_of, bin_of_sample, phase_weights
from ecgcmr.objectives.label_space import cosine_similarity

ALL = ("ntxent_align", "phenotype_align", "relational_align", "phase_align", "temporal_align", "view_align")


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def plain_clip(first: Tensor, second: Tensor, columns: list[list[int]], tau: float) -> list[float]:
    """Symmetric cross entropy of each row, whose columns are listed with the own one first."""
    losses = []
    for i, allowed in enumerate(columns):
        if not allowed:
            losses.append(0.0)
            continue
        both = 0.0
        for a, b in ((first.detach(), second.detach()), (second.detach(), first.detach())):
            logits = [float(a[i] @ b[j]) / tau for j in allowed]
            both += 0.5 * (math.log(sum(map(math.exp, logits))) - logits[0])
        losses.append(both)
    return losses


def allowed_columns(batch: dict[str, Tensor], valid: Tensor) -> list[list[int]]:
    subject, n = batch["subject"].tolist(), len(valid)
    return [
        [i, *(j for j in range(n) if j != i and valid[j] and subject[j] != subject[i])] if valid[i] else []
        for i in range(n)
    ]


def test_ntxent_align__equals_a_plain_loop_with_negatives_of_both_modalities() -> None:
    objective = build({"name": "ntxent_align", "temperature": 0.2}).double().eval()
    batch = make_batch(8, torch.float64)
    found = objective.represent(batch)
    views = unit(found["image"]).detach(), unit(found["ecg"]).detach()
    pair = batch["has_ecg"] & batch["has_cmr"]
    for i, columns in enumerate(allowed_columns(batch, pair)):
        if not columns:
            continue
        both = []
        for own, other in (views, views[::-1]):
            across = [float(own[i] @ other[j]) / 0.2 for j in columns]
            within = [float(own[i] @ own[j]) / 0.2 for j in columns[1:]]
            both.append(math.log(sum(map(math.exp, across + within))) - across[0])
        assert objective(batch).losses["nt_xent"][i].item() == pytest.approx(sum(both) / 2)


def test_cosine_similarity__is_that_of_the_labels_both_have() -> None:
    labels = torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 5.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    seen = torch.tensor([[True, True, False], [True, True, True], [True, False, True], [True, True, True]])
    found = cosine_similarity((labels, seen), (labels, seen))
    assert found[0].tolist() == pytest.approx(
        [1.0, 1.0, -1.0, 0.0]
    )  # scale does not matter; one shared label: its sign
    plain = np.dot([2, 5], [-1, 3]) / np.linalg.norm([2, 5]) / np.linalg.norm([-1, 3])
    assert found[1, 2].item() == pytest.approx(plain)
    assert found[3].tolist() == [0.0] * 4  # a vector of zeros has no direction
    torch.testing.assert_close(found, found.T)


def test_label_align__of_the_reference_leaves_out_exactly_the_columns_above_its_threshold() -> None:
    fields = {"name": "label_align", "positives": "remove", "similarity": "cosine", "floor": 0.9}
    objective = build(fields, facts=FACTS_OF["relational_align"]).double().eval()
    batch = make_batch(8, torch.float64)
    batch["label_mask"][:] = True
    batch["labels"] = torch.tensor([150.0, 140.0, 110.0], dtype=torch.float64) + 30 * rows(8, 3, 4)
    batch["labels"][3] = batch["labels"][0] * 1.0
    found = objective.represent(batch)
    scaled = (batch["labels"] - torch.tensor([150.0, 140.0, 110.0])) / torch.tensor([30.0, 20.0, 25.0])
    similarity = unit(scaled) @ unit(scaled).T
    columns = allowed_columns(batch, batch["has_ecg"] & batch["has_cmr"])
    kept = [[j for j in row if j == row[0] or similarity[row[0], j] < 0.9] for row in columns]
    assert sum(map(len, kept)) < sum(map(len, columns))
    expected = plain_clip(unit(found["image"]), unit(found["ecg"]), kept, 0.1)
    assert objective(batch).losses["contrast"].tolist() == pytest.approx(expected)


def test_weighted_contrast__equals_the_formula_and_ignores_what_weighs_nothing() -> None:
    logits = rows(3, 5, 5).requires_grad_()
    weights = torch.rand(3, 5, generator=generator(6), dtype=torch.float64)
    weights[:, 4] = 0.0
    own = torch.tensor([1, 0, 2])
    found = weighted_contrast(logits, weights, own)
    for i, j in enumerate(own.tolist()):
        w = [1.0 if k == j else float(weights[i, k]) for k in range(5)]
        total = sum(a * math.exp(float(b)) for a, b in zip(w, logits[i], strict=True))
        assert found[i].item() == pytest.approx(math.log(total) - float(logits[i, j]))
    found.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 4] == 0).all()


def test_phenotype_align__is_clip_without_labels_and_for_a_small_sigma() -> None:
    batch = make_batch(8)
    clip = build({"name": "clip_align"}).eval()(batch).losses["clip"]
    small = build({"name": "phenotype_align", "sigma": 1e-4}).eval()
    torch.testing.assert_close(small(batch).losses["contrast"], clip)
    batch["label_mask"][:] = False
    wide = build({"name": "phenotype_align", "sigma": 100.0}).eval()
    torch.testing.assert_close(wide(batch).losses["contrast"], clip)
    with pytest.raises(ValueError, match="needs labels"):
        build({"name": "phenotype_align"}, facts=DataFacts(100, 100.0, FACTS.cmr_shape))


def test_phenotype_align__a_twin_by_labels_is_no_negative() -> None:
    """Moving the study of a subject with the same phenotypes changes nothing for its twin."""
    objective = build({"name": "phenotype_align", "sigma": 1.0}).double().eval()
    batch = make_batch(6, torch.float64)
    batch["label_mask"][:] = True
    batch["labels"][1] = batch["labels"][0]
    before = objective.represent(batch)
    moved = {**before, "image": before["image"].clone()}
    moved["image"][1] = -moved["image"][1]
    a, b = (objective.compare(found, batch).losses["contrast"] for found in (before, moved))
    assert a[0].item() == pytest.approx(b[0].item())
    assert abs(float(a[2] - b[2])) > 1e-6


def test_relational_loss__is_the_divergence_and_zero_where_relations_agree() -> None:
    similarity, distance = rows(3, 6, 7), rows(3, 6, 8).square()
    others = torch.rand(3, 6, generator=generator(9)) < 0.7
    others[2] = False
    found = relational_loss(similarity, distance, others)
    for i in range(2):
        q = torch.softmax(similarity[i][others[i]], 0)
        p = torch.softmax(-distance[i][others[i]], 0)
        assert found[i].item() == pytest.approx(float((p * (p / q).log()).sum()))
    assert found[2] == 0
    torch.testing.assert_close(relational_loss(4 - distance, distance, others), torch.zeros(3, dtype=torch.float64))
    leaf = similarity.clone().requires_grad_()
    relational_loss(leaf, distance, others).sum().backward()
    assert leaf.grad.isfinite().all()


def test_relational_align__the_teacher_learns_from_phenotypes_only() -> None:
    objective = build({"name": "relational_align", "teacher": 0.0}).train()
    batch = make_batch(8)
    total_loss(objective, objective(batch, generator(0))).backward()
    assert all((p.grad == 0).all() for p in objective.cmr_encoder.parameters())
    assert any((p.grad != 0).any() for p in objective.ecg_encoder.parameters() if p.grad is not None)
    with pytest.raises(ValueError, match=r"reads measurements; MI in data\.labels is none"):
        build({"name": "relational_align"}, facts=FACTS)
    seen = torch.tensor([[True, False], [False, False]])
    found = smooth_l1(torch.tensor([[3.0, 9.0], [1.0, 1.0]]), torch.zeros(2, 2), seen)
    assert found.tolist() == [2.5, 0.0]


def test_phase_align__equals_three_plain_clips() -> None:
    objective = build({"name": "phase_align"}).double().eval()
    assert dict(objective.loss_weights) == dict.fromkeys(("ecg_ed", "ecg_es", "ed_es"), pytest.approx(1 / 3))
    batch = make_batch(8, torch.float64)
    found, out = objective.represent(batch), objective(batch)
    pair = batch["has_ecg"] & batch["has_cmr"]
    for name, towers, valid in (
        ("ecg_ed", ("ecg", "ed"), pair),
        ("ecg_es", ("ecg", "es"), pair),
        ("ed_es", ("ed", "es"), batch["has_cmr"]),
    ):
        expected = plain_clip(found[towers[0]], found[towers[1]], allowed_columns(batch, valid), 0.07)
        assert out.losses[name].tolist() == pytest.approx(expected)
        assert torch.equal(out.valid[name], valid)


def test_phase_align__reads_each_phase_apart_and_not_what_lies_between() -> None:
    objective = build({"name": "phase_align"}).double().eval()
    batch = make_batch(4, torch.float64)
    before = objective.represent(batch)
    batch["cmr"][:, 1] = 0.0  # the middle of systole
    same = objective.represent(batch)
    batch["cmr"][:, 2] = 0.5
    after = objective.represent(batch)
    assert all(torch.equal(before[name], same[name]) for name in before)
    assert torch.equal(before["ed"], after["ed"])
    assert not torch.equal(before["es"], after["es"])
    study = objective.cmr_projection(objective.cmr_encoder(batch["cmr"]))
    torch.testing.assert_close(unit(study), unit(after["ed"] + after["es"]))
    with pytest.raises(ValueError, match="three_frames"):
        build({"name": "phase_align"}, facts=DataFacts(100, 100.0, (2, 8, 32, 32)))


def test_bin_of_sample__cuts_each_beat_into_equal_parts() -> None:
    beats = np.array([3, 11, 15])
    mean = bin_of_sample(beats, 18, 4, "mean")
    assert mean.tolist() == [-1] * 3 + [0, 0, 1, 1, 2, 2, 3, 3] + [0, 1, 2, 3] + [-1] * 3
    assert bin_of_sample(beats, 18, 4, "first").tolist() == [*mean[:11].tolist(), *[-1] * 7]
    assert bin_of_sample(beats, 18, 3, "window").tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert (bin_of_sample(beats[:1], 18, 4, "mean") == -1).all()


def pulses(n: int, period: int, start: int) -> Tensor:
    """Twelve leads with a narrow complex every `period` samples."""
    t = np.arange(n)
    wave = sum(np.exp(-0.5 * ((t - r) / 1.5) ** 2) for r in range(start, n, period))
    return torch.from_numpy(np.stack([wave * (1 + 0.1 * k) for k in range(12)])).float()


@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_phase_weights__know_where_planted_beats_are(rate: float) -> None:
    scale = int(rate // 100)
    ecg = pulses(400, 80, 30)
    if scale > 1:
        ecg = torch.nn.functional.interpolate(ecg[None], scale_factor=scale, mode="linear")[0]
    found = beats_of(ecg.numpy(), rate)
    assert np.abs(found / scale - np.arange(30, 400, 80)).max() <= 3
    weights = phase_weights(ecg[None], rate, 20 * scale, 4, "mean")
    assert weights.shape == (1, 4, 20)
    cycles = (len(found) - 1) * 80 * scale
    assert weights.sum().item() == pytest.approx(cycles, abs=6 * scale)
    assert weights.sum(2)[0].tolist() == pytest.approx([cycles / 4] * 4, abs=2 * scale * 4)
    # A bin of 20 samples after each R peak at 30 + 80 k lies in the windows 1 and 2 modulo 4, half in each.
    share = weights[0, 0].reshape(5, 4).sum(0) / weights[0, 0].sum()
    assert share.tolist() == pytest.approx([0, 0.5, 0.5, 0], abs=0.16)
    assert phase_weights(torch.zeros(1, 12, 400), 100.0, 20, 4, "mean").sum() == 0


def test_local_loss__equals_a_plain_loop_and_is_least_for_matching_phases() -> None:
    image, ecg = unit(rows(6, 4, 10).reshape(2, 3, 4)), unit(rows(6, 4, 11).reshape(2, 3, 4))
    loss, _ = local_loss(image, ecg, 0.5)
    for b in range(2):
        expected = np.mean(plain_clip(ecg[b], image[b], [[k, *(j for j in range(3) if j != k)] for k in range(3)], 0.5))
        assert loss[b].item() == pytest.approx(expected)
    match, found = local_loss(image, image, 0.01)
    assert (match < loss).all()
    assert found.tolist() == [1.0, 1.0]


def test_temporal_align__counts_a_local_loss_only_where_there_is_a_whole_beat() -> None:
    objective = build({"name": "temporal_align"}).eval()
    batch = make_batch(8, name="temporal_align")
    batch["ecg"][:] = pulses(160, 40, 10)
    batch["ecg"][3] = 0.0
    out = objective(batch)
    assert out.valid["local"].tolist() == [True, False, False, False, True, True, True, True]
    assert out.valid["global"].tolist() == [True, False, False, True, True, True, True, True]
    whole = build({"name": "temporal_align", "beat": "window"}).eval()(batch)
    assert torch.equal(whole.valid["local"], whole.valid["global"])


def test_temporal_align__its_global_loss_is_clip_of_the_plain_embeddings() -> None:
    objective = build({"name": "temporal_align"}).double().eval()
    batch = make_batch(8, torch.float64, "temporal_align")
    parts = objective.encoders()
    image = unit(parts["cmr_projection"](parts["cmr"](batch["cmr"])))
    ecg = unit(parts["ecg_projection"](parts["ecg"](batch["ecg"][..., :100])))
    expected = plain_clip(image, ecg, allowed_columns(batch, batch["has_ecg"] & batch["has_cmr"]), 0.1)
    assert objective(batch).losses["global"].tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="cine_transformer"):
        build({"name": "temporal_align"}, facts=FACTS)
    with pytest.raises(ValueError, match=r"objective.bins is 9.*4 frames"):
        build({"name": "temporal_align", "bins": 9})


def test_view_align__equals_three_plain_clips_and_exports_the_first_view() -> None:
    objective = build({"name": "view_align"}).double().eval()
    batch = make_batch(8, torch.float64, "view_align")
    found, out = objective.represent(batch), objective(batch)
    pair = batch["has_ecg"] & batch["has_cmr"]
    for name, towers, valid in (
        ("ecg_first", ("ecg", "first"), pair),
        ("ecg_second", ("ecg", "second"), pair),
        ("first_second", ("first", "second"), batch["has_cmr"]),
    ):
        expected = plain_clip(found[towers[0]], found[towers[1]], allowed_columns(batch, valid), 0.1)
        assert out.losses[name].tolist() == pytest.approx(expected)
    parts = objective.encoders()
    torch.testing.assert_close(unit(parts["cmr_projection"](parts["cmr"](batch["cmr"][:, 0]))), found["first"])
    with pytest.raises(ValueError, match=r"data.cmr.views=\[sax,4ch\]"):
        build({"name": "view_align"}, facts=FACTS)


@pytest.mark.parametrize("name", ALL)
def test_alignments__a_missing_modality_neither_counts_nor_disturbs(name: str) -> None:
    objective = build({"name": name}).double().eval()
    batch = make_batch(8, torch.float64, name)
    before = objective(batch)
    batch["ecg"][1] = 3.0
    batch["cmr"][2] = 0.9
    after = objective(batch)
    for loss in before.losses:
        torch.testing.assert_close(after.losses[loss], before.losses[loss])
        if name != "relational_align" and loss not in ("ed_es", "first_second"):
            assert after.losses[loss][[1, 2]].abs().max() == 0
            assert not after.valid[loss][[1, 2]].any()
