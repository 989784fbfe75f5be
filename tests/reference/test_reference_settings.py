"""What the published recipes (arXiv 2308.05764) set, computed from them: sizes, counts, rates, parameter groups."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from ecgcmr.cmr.augmentation import PRESETS as CMR_PRESETS
from ecgcmr.cmr.augmentation import CmrAugmentConfig
from ecgcmr.ecg.augmentation import AUGMENT_PRESETS, AugmentConfig, EcgAugment
from ecgcmr.objectives import DataFacts, LabelFact, Objective, build_objective
from ecgcmr.objectives.masked import MaskedEcg
from ecgcmr.objectives.supervised import Supervised
from ecgcmr.training.config import OptimConfig, RunConfig, load_config
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.optim import absolute_lr, build_optimizer, make_schedule

CONFIGS = Path(__file__).parents[2] / "configs"
TRAIN_SUBJECTS = 28_030
TWO_LOGITS = 770  # parameters of the reference's head: 384 x 2 + 2


def recipe(name: str) -> RunConfig:
    return load_config(next(CONFIGS.glob(f"*/reference/{name}.yaml")))


def build(config: RunConfig, kind: str = "regression") -> Objective:
    labels = tuple(LabelFact(name, kind, prevalence=0.5) for name in config.data.labels)  # type: ignore[arg-type]
    samples = config.data.ecg.crop_samples or 0
    torch.manual_seed(0)
    return build_objective(config.objective, config.model, DataFacts(samples, 500.0, (3, 210, 210), labels))


@pytest.fixture(scope="module")
def mae() -> MaskedEcg:
    objective = build(recipe("ecg_mae"))
    assert isinstance(objective, MaskedEcg)
    return objective


def test_masked_recipe__hides_all_but_59_of_300_patches(mae: MaskedEcg) -> None:
    assert (mae.tokens, mae.keep) == (300, 59)
    assert mae.loss_weights == {"mse": 0.9, "ncc": 0.1}


def test_masked_recipe__has_the_parameters_of_the_reference(mae: MaskedEcg) -> None:
    width, depth, patch, tokens = 384, 3, 100, 300
    block = 2 * 2 * width + width * 3 * width + 3 * width + width * width + width + 8 * width * width + 5 * width
    encoder = width + (tokens + 1) * width + patch * width + width + depth * block + 2 * width
    assert encoder == 5_478_912
    found = {name: p.numel() for name, p in mae.mae.encoder.named_parameters() if not name.startswith("fc_norm")}
    assert sum(found.values()) == encoder
    decoder = sum(p.numel() for name, p in mae.mae.decoder.named_parameters() if name != "pos_embed")
    assert decoder == pytest.approx(1.70e6, abs=5e3)
    assert not mae.mae.encoder.pos_embed.requires_grad


def test_fine_tuning_recipe__trains_the_48_tensors_of_the_reference() -> None:
    """Third-party load log: 48 trainable tensors, 6.07 million parameters with two logits; the head here has one."""
    objective = build(recipe("classification"), "binary")
    trained = {name: p.numel() for name, p in objective.named_parameters() if p.requires_grad}
    assert len(trained) == 48
    head = sum(count for name, count in trained.items() if name.startswith("head."))
    assert head == 384 + 1
    assert sum(trained.values()) - head + TWO_LOGITS == 38_784 + 384 + 115_584 + 3 * 1_774_464 + 768 + 770 + 591_360


def test_linear_probe_recipe__trains_the_head_only() -> None:
    objective = build(recipe("linear_probe"), "binary")
    assert {name for name, p in objective.named_parameters() if p.requires_grad} == {
        "head.layers.0.weight",
        "head.layers.0.bias",
    }


def test_fine_tuning_recipe__head_starts_truncated_normal_with_sd_one_hundredth() -> None:
    objective = build(recipe("regression_err"))
    assert isinstance(objective, Supervised)
    weight = objective.head.layers[0].weight.detach()  # 17 x 384: the standard error of the SD is 9e-5
    assert float(weight.std()) == pytest.approx(0.01, abs=5e-4)
    assert float(objective.head.layers[0].bias.detach().abs().max()) == 0


@pytest.mark.parametrize(
    ("name", "batch", "lr"),
    [
        ("ecg_mae", 128, 3.2e-4),
        ("align", 256, 3e-3),
        ("cmr_simclr", 256, 3e-3),
        ("regression_lv", 8, 6e-6),
        ("linear_probe", 32, 2.4e-5),
    ],
)
def test_recipes__learning_rates_are_those_of_the_reference(name: str, batch: int, lr: float) -> None:
    config = recipe(name)
    assert config.train.batch_size == batch
    assert absolute_lr(config.optim, batch) == pytest.approx(lr)


def test_masked_recipe__cosine_at_each_iteration() -> None:
    """Written as the masked autoencoder's code counts: the epoch is a fraction that grows with each iteration."""
    config = recipe("ecg_mae")
    steps = TRAIN_SUBJECTS // 128
    schedule = make_schedule(config.optim, 3.2e-4, steps, 400 * steps)
    for step in (0, 1, steps, 20 * steps + 7, 40 * steps, 40 * steps + 1, 220 * steps, 399 * steps + steps - 1):
        epoch = step // steps + (step % steps) / steps
        cosine = 3.2e-4 * 0.5 * (1 + math.cos(math.pi * (epoch - 40) / (400 - 40)))
        assert schedule.at(step) == pytest.approx(3.2e-4 * epoch / 40 if epoch < 40 else cosine, rel=1e-9, abs=1e-18)
    assert schedule.at(220 * steps) == pytest.approx(1.6e-4)


def chained_rates(lr: float, warmup: int, epochs: int) -> list[float]:
    """LinearWarmupCosineAnnealing as a recursion from epoch to epoch, from 0 to 0."""
    rates = [0.0]
    for epoch in range(1, epochs):
        last = rates[-1]
        if epoch < warmup:
            rates.append(last + lr / (warmup - 1))
        elif epoch == warmup:
            rates.append(lr)
        else:
            now, before = (1 + math.cos(math.pi * (e - warmup) / (epochs - warmup)) for e in (epoch, epoch - 1))
            rates.append(now / before * last)
    return rates


def test_alignment_recipe__rate_is_renewed_at_each_epoch_from_zero() -> None:
    config = recipe("align")
    steps = TRAIN_SUBJECTS // 256
    schedule = make_schedule(config.optim, 3e-3, steps, 300 * steps)
    for epoch, rate in enumerate(chained_rates(3e-3, 30, 300)):
        first, last = schedule.at(epoch * steps), schedule.at(epoch * steps + steps - 1)
        assert first == last == pytest.approx(rate, rel=1e-9, abs=1e-15)
    assert schedule.at(0) == schedule.at(steps - 1) == 0.0
    assert schedule.at(29 * steps) == schedule.at(30 * steps) == 3e-3


def test_schedule__of_epochs_without_warmup_or_with_one_epoch_of_it() -> None:
    config = OptimConfig(schedule="epoch", lr=1.0)
    assert make_schedule(config, 1.0, 5, 50).at(0) == 1.0
    once = make_schedule(OptimConfig(schedule="epoch", lr=1.0, warmup_epochs=1), 1.0, 5, 50)
    assert [once.at(0), once.at(5)] == [0.0, 1.0]
    assert make_schedule(config, 1.0, 5, 50).at(500) == 0.0  # never above the end of the cosine


def decayed(module: nn.Module, optim: OptimConfig) -> dict[str, float]:
    names = {id(p): name for name, p in module.named_parameters()}
    groups = build_optimizer(module, optim).param_groups
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


def test_masked_recipe__adamw_decays_what_has_two_dimensions(mae: MaskedEcg) -> None:
    config = recipe("ecg_mae")
    optimizer = build_optimizer(mae, config.optim)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}
    found = decayed(mae, config.optim)
    shapes = dict(mae.named_parameters())
    assert found == {name: 0.15 if shapes[name].ndim > 1 else 0.0 for name in found}
    assert found["mae.encoder.cls_token"] == found["mae.decoder.mask_token"] == 0.15
    kept = decayed(mae, OptimConfig(weight_decay=0.15))
    assert kept["mae.encoder.cls_token"] == kept["mae.decoder.mask_token"] == 0.0


def test_alignment_recipe__adam_adds_l2_to_the_gradient_of_every_parameter() -> None:
    """Two steps by hand on a norm's weight, a bias, a token and a matrix: m, v of g + wd * p, with bias correction."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 3)
            self.pos_embed = nn.Parameter(torch.randn(1, 5, 4))

    torch.manual_seed(0)
    module, optim = Parts().double(), recipe("align").optim
    optimizer = build_optimizer(module, optim)
    assert set(decayed(module, optim).values()) == {1e-4}
    grads = [{name: torch.randn_like(p) for name, p in module.named_parameters()} for _ in range(2)]
    expected = {name: p.detach().clone() for name, p in module.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in expected.items()}
    for step, grad in enumerate(grads, 1):
        for name, p in module.named_parameters():
            p.grad = grad[name]
            g = grad[name] + 1e-4 * expected[name]
            m, v = 0.9 * moments[name][0] + 0.1 * g, 0.999 * moments[name][1] + 0.001 * g * g
            moments[name] = (m, v)
            expected[name] = expected[name] - 3e-3 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        optimizer.step()
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "tolerated"), [("classification", 0.9 - 0.0024), ("regression_lv", 0.9)])
def test_fine_tuning_recipes__stop_at_the_26th_bad_epoch(name: str, tolerated: float) -> None:
    train = recipe(name).train
    stopping = EarlyStopping(train.mode, train.patience, train.max_delta)
    stopping.update(0.9)
    for _ in range(100):
        stopping.update(tolerated)  # worse, but not by more than the tolerance
    assert not stopping.should_stop
    bad = 0
    while not stopping.should_stop:
        stopping.update(0.9 - 0.0026)
        bad += 1
    assert bad == 26


@pytest.mark.parametrize(("name", "preset"), [("ecg_mae", "mae"), ("align", "mmcl"), ("regression_rv", "finetune")])
def test_recipes__spell_out_the_presets_of_the_ecg_augmentation(name: str, preset: str) -> None:
    settings = recipe(name).objective.ecg_augment  # type: ignore[union-attr]
    assert AugmentConfig.from_dict(settings) == AugmentConfig.from_dict(  # type: ignore[arg-type]
        {**AUGMENT_PRESETS[preset].to_dict(), "legacy_crop": True}
    )


@pytest.mark.parametrize(("name", "gate"), [("cmr_simclr", 1.0), ("align", 0.95)])
def test_recipes__spell_out_the_preset_of_the_image_augmentation(name: str, gate: float) -> None:
    settings = recipe(name).objective.cmr_augment  # type: ignore[union-attr]
    ours, preset = CmrAugmentConfig.from_dict(settings), CMR_PRESETS["reference"]  # type: ignore[arg-type]
    assert ours.gate == gate
    assert ours.ratio == pytest.approx(preset.ratio, abs=1e-6)
    assert {**ours.to_dict(), "gate": 1.0, "ratio": list(preset.ratio)} == preset.to_dict()


@pytest.mark.parametrize(
    ("name", "what", "p"),
    [("ecg_mae", "surrogate", 0.5), ("align", "all", 0.95), ("regression_lv", "surrogate", 0.5)],
)
def test_recipes__gates_open_as_often_as_they_say(name: str, what: str, p: float) -> None:
    """4,000 samples, five standard errors; the surrogate shows alone when jitter and scale are switched off."""
    settings: dict[str, Any] = dict(recipe(name).objective.ecg_augment)  # type: ignore[union-attr,arg-type]
    if what == "surrogate":
        settings |= {"jitter_sigma": 0.0, "rescale_sigma": 0.0}
    ecg = torch.randn(4000, 2, 30, generator=torch.Generator().manual_seed(1))
    out = EcgAugment(AugmentConfig.from_dict(settings))(ecg, torch.Generator().manual_seed(2))
    changed = float(((out - ecg).abs().flatten(1).amax(1) > 1e-4).float().mean())
    assert abs(changed - p) < 5 * math.sqrt(p * (1 - p) / 4000)


def test_rescaling__turns_the_sign_of_one_sample_in_44() -> None:
    """P(N(1, .5^2) < 0) = Phi(-2) = 2.3 %."""
    ecg = torch.ones(20_000, 1, 2)
    out = EcgAugment(AugmentConfig(rescale_sigma=0.5))(ecg, torch.Generator().manual_seed(0))
    p = 0.5 * math.erfc(2 / math.sqrt(2))
    assert float((out[:, 0, 0] < 0).float().mean()) == pytest.approx(p, abs=5 * math.sqrt(p / 20_000))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("regression_lv", range(24100, 24106)),
        ("regression_rv", range(24106, 24110)),
        ("regression_wt", range(24124, 24141)),
        ("regression_ecc", range(24141, 24158)),
        ("regression_err", range(24158, 24175)),
    ],
)
def test_regression_recipes__name_their_phenotypes_by_field(name: str, fields: range) -> None:
    known = yaml.safe_load((CONFIGS / "labels/ukb_cmr_phenotypes.yaml").read_text())["fields"]
    names = {item["field"]: item["name"] for item in known}
    assert recipe(name).data.labels == tuple(names[number] for number in fields)


def test_regression_recipes__differ_in_name_and_labels_only() -> None:
    trees = []
    for path in sorted(CONFIGS.glob("finetune/reference/regression_*.yaml")):
        tree = load_config(path).model_dump(mode="json")
        assert tree.pop("name") == f"reference_{path.stem}"
        assert tree.pop("out") == f"runs/reference/{path.stem}"
        tree["data"].pop("labels")
        trees.append(tree)
    assert len(trees) == 5
    assert all(tree == trees[0] for tree in trees)
    assert sum(len(load_config(p).data.labels) for p in CONFIGS.glob("finetune/reference/regression_*.yaml")) == 61


def differences(one: Any, other: Any, prefix: str = "") -> set[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return {d for key in keys for d in differences(one.get(key), other.get(key), f"{prefix}{key}.")}
    return set() if one == other else {prefix.rstrip(".")}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("align", "align_from_scratch", {"name", "out", "init.ecg", "init.fresh_fc_norm"}),
        ("classification", "low_data", {"name", "out", "data.train_share"}),
    ],
)
def test_recipes__relatives_differ_where_they_must(one: str, other: str, expected: set[str]) -> None:
    first, second = (recipe(name).model_dump(mode="json") for name in (one, other))
    assert differences(first, second) == expected


def test_classification__one_logit_has_the_loss_of_two() -> None:
    """The reference's head has two logits and smoothed cross entropy: the same function of their difference."""
    objective = build(recipe("classification"), "binary")
    assert isinstance(objective, Supervised)
    two = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.arange(50) % 2
    theirs = nn.functional.cross_entropy(two, label, label_smoothing=0.1, reduction="none")
    ours = objective._label_losses(
        "binary", (two[:, 1] - two[:, 0])[:, None], label.double()[:, None], torch.tensor([0])
    )
    torch.testing.assert_close(ours[:, 0], theirs)
    p = torch.sigmoid(two[:, 1] - two[:, 0])
    target = label * 0.9 + 0.05
    torch.testing.assert_close(ours[:, 0], -(target * p.log() + (1 - target) * (1 - p).log()))
