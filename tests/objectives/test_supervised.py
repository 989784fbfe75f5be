"""Supervised learning: what missing labels count, losses against formulas, frozen encoders, parameter groups."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_cases import FACTS, build, generator, make_batch, model_config, total_loss

from ecgcmr.models import create_cmr_encoder
from ecgcmr.objectives import DataFacts, LabelFact, parameter_groups
from ecgcmr.objectives.supervised import Supervised, masked_label_loss

PLAIN = {"name": "supervised", "ecg_augment": "none"}


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_masked_label_loss__legacy_differs_by_the_share_observed(mask: list[list[bool]]) -> None:
    observed = torch.tensor(mask)
    losses = torch.rand(observed.shape, dtype=torch.float64)
    valid = torch.ones(len(mask), dtype=torch.bool)
    means = []
    for legacy in (False, True):
        sample, counted = masked_label_loss(losses, observed, valid, legacy)
        means.append((sample * counted).sum() / counted.sum().clamp(min=1))
    share = observed.double().mean()
    torch.testing.assert_close(means[1], means[0] * share)
    if observed.any():
        torch.testing.assert_close(means[0], losses[observed].mean())


def test_masked_label_loss__a_sample_without_input_counts_nothing() -> None:
    losses = torch.tensor([[1.0, 2.0], [30.0, 40.0]])
    valid = torch.tensor([True, False])
    sample, counted = masked_label_loss(losses, torch.ones(2, 2, dtype=torch.bool), valid)
    assert sample.tolist() == [1.5, 0.0]
    assert counted.tolist() == [True, False]


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_supervised__losses_equal_a_plain_computation(loss: str) -> None:
    objective = build({**PLAIN, "regression_loss": loss, "balance_positives": True, "label_smoothing": 0.1}).double()
    batch = make_batch(8, torch.float64)
    out = objective(batch, generator(0))
    raw = objective.head(objective.embed(batch, generator(0)))
    z, bce = [], []
    for i in range(8):
        if not batch["has_ecg"][i]:
            continue
        for column, mean, std in ((0, 150.0, 30.0), (2, 110.0, 25.0)):
            if batch["label_mask"][i, column]:
                d = (raw[i, column] - (batch["labels"][i, column] - mean) / std).abs()
                z.append(d**2 if loss == "mse" else (d**2 / 2 if d < 1 else d - 0.5))
        if batch["label_mask"][i, 1]:
            p, y = raw[i, 1].sigmoid(), 0.9 * batch["labels"][i, 1] + 0.05
            bce.append(-(4 * y * p.log() + (1 - y) * (1 - p).log()))  # prevalence .2: odds against 4
    for name, values in (("regression", z), ("binary", bce)):
        total = out.losses[name].sum() / out.valid[name].sum()
        torch.testing.assert_close(total, torch.stack(values).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_supervised__a_category_is_a_weighted_cross_entropy(smoothing: float) -> None:
    fields = {**PLAIN, "class_weight": 1.0, "balance_positives": True, "label_smoothing": smoothing}
    objective = build(fields).double().eval()
    batch = make_batch(8, torch.float64)
    kind = torch.tensor([0, 1, 1, 0, 1, 1, 0, 1])
    batch["labels"][:, :2] = torch.nn.functional.one_hot(kind, 2).double()
    out = objective(batch, generator(0))
    assert set(out.losses) == {"classes", "regression"}
    seen = batch["label_mask"][:, :2].all(1) & batch["has_ecg"]
    raw = objective.head(objective.embed(batch, generator(0)))[:, :2]
    heavy = torch.tensor([1 / (2 * 0.2), 1 / (2 * 0.8)], dtype=torch.float64)  # shares .2 and .8: a mean weight of 1
    assert float(heavy @ torch.tensor([0.2, 0.8], dtype=torch.float64)) == pytest.approx(1)
    losses = torch.nn.functional.cross_entropy(raw, kind, reduction="none", label_smoothing=smoothing) * heavy[kind]
    torch.testing.assert_close(out.losses["classes"].sum() / out.valid["classes"].sum(), losses[seen].mean())
    values = objective.label_values({"raw": objective.represent(batch)["raw"]})
    torch.testing.assert_close(values[:, :2].sum(1), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(values[:, :2], raw.softmax(1))


def test_supervised__an_unobserved_nan_label_leaves_no_trace() -> None:
    objective = build(PLAIN)
    batch = make_batch(8)
    expected = total_loss(objective, objective(batch, generator(0)))
    batch["labels"] = torch.where(batch["label_mask"], batch["labels"], torch.nan)
    loss = total_loss(objective, objective(batch, generator(0)))
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)


def test_supervised__only_kinds_with_labels_have_a_loss() -> None:
    facts = DataFacts(100, 100.0, (3, 32, 32), (LabelFact("MI", "binary"),))
    objective = build(PLAIN, facts=facts)
    assert dict(objective.loss_weights) == {"binary": 1.0}
    with pytest.raises(ValueError, match="the head predicts"):
        objective(make_batch(4), generator(0))


def test_supervised__predicts_in_units_and_only_in_evaluation() -> None:
    objective = build(PLAIN)
    assert isinstance(objective, Supervised)
    with pytest.raises(ValueError, match="evaluation mode"):
        objective.predict(make_batch(4))
    predicted = objective.eval().predict(make_batch(4))
    assert ((predicted[:, 0] - 150).abs() < 30).all()  # an untrained head is near the training mean
    assert ((predicted[:, 1] > 0) & (predicted[:, 1] < 1)).all()


@pytest.mark.parametrize("double", [False, True])
def test_supervised__fc_norm_once_or_twice(double: bool) -> None:
    objective = build({**PLAIN, "double_fc_norm": double}, model_config("attention")).eval()
    torch.nn.init.uniform_(objective.encoder.fc_norm.weight, 0.5, 2.0)
    batch = make_batch(3)
    once = objective.encoder(batch["ecg"][..., :100])
    expected = objective.encoder.fc_norm(once) if double else once
    torch.testing.assert_close(objective.embed(batch, generator(0)), expected)
    assert (objective.encoder.fc_norm(once) - once).abs().max() > 0.01


def test_supervised__double_fc_norm_needs_one() -> None:
    with pytest.raises(ValueError, match="fc_norm"):
        build({**PLAIN, "double_fc_norm": True}, model_config("cls"))


@pytest.mark.parametrize(
    ("pool", "trained"),
    [
        ("mean", {"head"}),
        ("attention", {"head", "encoder.attention_pool", "encoder.fc_norm"}),
        ("query", {"head", "encoder.query_pool", "encoder.fc_norm"}),
    ],
)
def test_supervised__a_frozen_encoder_trains_the_head_and_an_attention_pool(pool: str, trained: set[str]) -> None:
    objective = build({**PLAIN, "freeze_encoder": True}, model_config(pool, drop_path=0.5)).train()
    total_loss(objective, objective(make_batch(8), generator(0))).backward()
    names = {name for name, p in objective.named_parameters() if p.grad is not None}
    assert {
        name.split(".")[0] if name.startswith("head") else ".".join(name.split(".")[:2]) for name in names
    } == trained
    batch = make_batch(8)
    batch["ecg"] = batch["ecg"][..., :100]  # nothing to crop
    first, second = (objective(batch, generator(seed)).losses["regression"] for seed in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_build_objective__says_what_the_data_lacks() -> None:
    no_cmr = DataFacts(100, 100.0, None, ())
    with pytest.raises(ValueError, match="the data has none"):
        build({"name": "clip_align"}, facts=no_cmr)
    with pytest.raises(ValueError, match="needs labels"):
        build({"name": "supervised"}, facts=no_cmr)
    model = model_config()
    other = model.model_copy(update={"ecg": model.ecg.model_copy(update={"n_samples": 200})})
    with pytest.raises(ValueError, match="n_samples is 200"):
        build(PLAIN, other)
    with pytest.raises(ValueError, match="unknown ECG augmentation"):
        build({**PLAIN, "ecg_augment": "wild"})
    objective, batch = build(PLAIN), make_batch(2)
    batch["ecg"] = batch["ecg"][..., :99]
    with pytest.raises(ValueError, match="T of at least 100"):
        objective(batch, generator(0))


def test_label_fact__refuses_a_constant_label() -> None:
    with pytest.raises(ValueError, match="constant"):
        LabelFact("LVEDV", "regression", "mL", 150.0, 0.0)


def test_parameter_groups__layer_decay_and_no_decay_of_vectors() -> None:
    objective = build({**PLAIN})
    groups = parameter_groups(objective, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    where = {name: group for group in groups for name in group["names"]}
    assert set(where) == {name for name, p in objective.named_parameters() if p.requires_grad}
    assert where["head.layers.0.weight"]["lr"] == where["encoder.fc_norm.weight"]["lr"] == 1.0
    assert where["encoder.blocks.1.mlp.fc1.weight"]["lr"] == 0.5
    assert where["encoder.blocks.0.mlp.fc1.weight"]["lr"] == 0.25
    assert where["encoder.patch_embed.proj.weight"]["lr"] == where["encoder.cls_token"]["lr"] == 0.125
    assert where["encoder.blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.1
    for name in ("encoder.blocks.0.mlp.fc1.bias", "encoder.cls_token", "encoder.fc_norm.weight", "head.layers.0.bias"):
        assert where[name]["weight_decay"] == 0


def test_parameter_groups__of_image_models_rise_from_the_stem() -> None:
    for encoder, first, last in (
        (create_cmr_encoder("resnet10t", 3), "backbone.conv1.0.weight", "backbone.layer4.0.conv2.weight"),
        (create_cmr_encoder("cine_transformer"), "frame_encoder.layers.0.weight", "fc_norm.weight"),
    ):
        rates = {n: g["lr"] for g in parameter_groups(encoder, 1.0, 0.0, 0.7) for n in g["names"]}
        assert rates[first] == min(rates.values()) < rates[last] == max(rates.values()) == 1.0


def test_parameter_groups__without_layer_decay_are_two() -> None:
    groups = parameter_groups(build({"name": "clip_align"}), 0.1, 0.05)
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.05]
    assert {group["lr"] for group in groups} == {0.1}
    with pytest.raises(ValueError, match="layer_decay"):
        parameter_groups(build({"name": "clip_align"}), 0.1, 0.05, 1.5)


def test_facts__have_plain_values() -> None:
    assert FACTS.to_dict()["labels"][0]["unit"] == "mL"
