"""One battery over every registered model: what each module of the house must do, whatever it computes."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ecgcmr.models import build_module, create_cmr_encoder, create_ecg_encoder
from ecgcmr.models.ecg_mae import EcgMae, draw_masking
from ecgcmr.models.ecg_st_vit import EcgStViT
from ecgcmr.models.ecg_wav2vec import EcgWav2Vec
from ecgcmr.models.heads import ClassHead, PredictionHead
from ecgcmr.models.phases import PhaseEncoder, PhaseProjection
from ecgcmr.models.projection import NormProjection, ProjectionHead
from ecgcmr.models.tabular import TabularEncoder


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    out: tuple[int, ...]
    wrong: tuple[int, ...]
    unused: frozenset[str] = frozenset()


def small_vit(pool: str, **overrides: object) -> nn.Module:
    sizes = {"width": 32, "depth": 2, "heads": 4, "patch": 25, **overrides}
    return create_ecg_encoder("nano", n_samples=100, pool=pool, **sizes)


class MaeOfAnEcg(nn.Module):
    """The masked autoencoder behind the battery's one-argument call."""

    def __init__(self) -> None:
        super().__init__()
        self.mae = EcgMae(small_vit("mean"), {"preset": "nano"})

    def forward(self, ecg: Tensor) -> Tensor:
        masking = draw_masking((len(ecg), 48), 12, torch.Generator().manual_seed(0))
        return self.mae(ecg, masking).patches


SMALL_ST = {"n_samples": 100, "patch": 25, "width": 32, "depth": 2, "heads": 4}
SMALL_WAV2VEC = {
    "n_samples": 400, "conv_layers": [[16, 2, 2]] * 4, "width": 32, "depth": 2, "heads": 4, "hidden": 64,
    "pos_kernel": 8, "pos_groups": 4,
}  # fmt: skip
TWO_PHASES = {"encoder": {"name": "test_resnet.r160_in1k"}, "slices": 2}
PROJECTIONS = {"phases": 2, "head": {"in_features": 6, "hidden": 8, "out": 5}}
LABELS = [{"name": "LVEDV", "kind": "regression", "unit": "mL"}, {"name": "MI", "kind": "binary"}]
COLUMNS = [{"name": "age_years", "kind": "number"}, {"name": "sex", "kind": "category", "levels": ["f", "m"]}]
CLASSES = [{"name": "healthy", "kind": "binary"}, {"name": "MI", "kind": "binary"}]
FC_NORM = frozenset({"fc_norm.weight", "fc_norm.bias"})
NORM = frozenset({"norm.weight", "norm.bias"})
MAE_UNUSED = frozenset({"mae.encoder.fc_norm.weight", "mae.encoder.fc_norm.bias"})
CASES = {
    "ecg mean": Case(lambda: small_vit("mean"), (3, 12, 100), (3, 32), (3, 12, 101), NORM),
    "ecg attention": Case(lambda: small_vit("attention"), (3, 12, 100), (3, 32), (3, 11, 100), NORM),
    "ecg cls": Case(lambda: small_vit("cls"), (3, 12, 100), (3, 32), (12, 100)),
    "ecg pre_norm": Case(lambda: small_vit("pre_norm"), (3, 12, 100), (3, 32), (3, 12, 50), NORM),
    "ecg norm_mean": Case(lambda: small_vit("norm_mean"), (3, 12, 100), (3, 32), (3, 12, 50)),
    "ecg learned": Case(lambda: small_vit("mean", learn_positions=True), (3, 12, 100), (3, 32), (3, 1, 12, 100), NORM),
    "ecg drop path": Case(lambda: small_vit("mean", drop_path=0.2), (3, 12, 100), (3, 32), (3, 12, 99), NORM),
    "ecg layer scale": Case(lambda: small_vit("mean", layer_scale=True), (3, 12, 100), (3, 32), (3, 12, 99), NORM),
    "ecg query": Case(lambda: small_vit("query"), (3, 12, 100), (3, 32), (3, 11, 100), NORM),
    "ecg no cls": Case(lambda: small_vit("attention", cls_token=False), (3, 12, 100), (3, 32), (3, 12, 99), NORM),
    "ecg st": Case(lambda: EcgStViT(SMALL_ST), (3, 12, 100), (3, 32), (3, 12, 99)),
    "ecg st plain separators": Case(
        lambda: EcgStViT({**SMALL_ST, "separator_leads": False, "drop_path": 0.2}), (3, 12, 100), (3, 32), (3, 1, 100)
    ),
    "ecg wav2vec": Case(lambda: EcgWav2Vec(SMALL_WAV2VEC), (3, 12, 400), (3, 32), (3, 12, 399)),
    "ecg wav2vec without projection": Case(
        lambda: EcgWav2Vec({**SMALL_WAV2VEC, "width": 16, "pos_kernel": 7}), (3, 12, 400), (3, 16), (12, 400)
    ),
    "ecg mae": Case(MaeOfAnEcg, (3, 12, 100), (3, 48, 25), (3, 12, 50), MAE_UNUSED),
    "resnet10t": Case(lambda: create_cmr_encoder("resnet10t", 3), (3, 3, 64, 64), (3, 512), (3, 1, 64, 64)),
    "resnet10t 5-d": Case(lambda: create_cmr_encoder("resnet10t", 4), (3, 2, 2, 64, 64), (3, 512), (3, 1, 3, 64, 64)),
    "phases": Case(lambda: PhaseEncoder(TWO_PHASES), (3, 6, 32, 32), (3, 192), (3, 3, 32, 32)),
    "phases shared": Case(lambda: PhaseEncoder({**TWO_PHASES, "shared": True}), (3, 6, 32, 32), (3, 192), (3, 6, 32)),
    "phase projection": Case(lambda: PhaseProjection(PROJECTIONS), (3, 12), (3, 5), (3, 6)),
    "half resnet": Case(
        lambda: create_cmr_encoder("resnet10t", 3, timm_args={"channels": [32, 64, 128, 256]}, channels_last=False),
        (3, 3, 64, 64),
        (3, 256),
        (3, 64, 64),
    ),
    "resnet10t as it is": Case(
        lambda: create_cmr_encoder("resnet10t", 3, centered=False), (3, 3, 64, 64), (3, 512), (3, 2, 64, 64)
    ),
    "resnet18": Case(lambda: create_cmr_encoder("resnet18", 3), (2, 3, 64, 64), (2, 512), (2, 2, 64, 64)),
    "cine": Case(
        lambda: create_cmr_encoder("cine_transformer", cine={"width": 32, "depth": 1, "heads": 2, "stem": 8}),
        (2, 3, 5, 32, 32),
        (2, 32),
        (2, 3, 5, 8, 8),
    ),
    "projection": Case(lambda: ProjectionHead(16, 32, 8), (4, 16), (4, 8), (4, 15)),
    "projection bn": Case(lambda: ProjectionHead(16, 32, 8, batch_norm=True), (4, 16), (4, 8), (4, 16, 1)),
    "projection norm": Case(
        lambda: NormProjection({"in_features": 16, "out": 8, "dropout": 0.0}), (4, 16), (4, 8), (4, 17)
    ),
    "head": Case(lambda: PredictionHead({"in_features": 16, "labels": LABELS}), (4, 16), (4, 2), (4, 17)),
    "tabular": Case(lambda: TabularEncoder({"columns": COLUMNS, "hidden": 8, "width": 5}), (4, 6), (4, 5), (4, 3)),
    "class head": Case(lambda: ClassHead({"in_features": 16, "labels": CLASSES}), (4, 16), (4, 2), (4, 17)),
    "head mlp": Case(
        lambda: PredictionHead({"in_features": 16, "hidden": 8, "labels": LABELS}), (4, 16), (4, 2), (16,)
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]


def inputs(case: Case) -> Tensor:
    return torch.rand(case.shape, generator=torch.Generator().manual_seed(1))


def test_model__gives_its_shape(case: Case) -> None:
    out = case.make()(inputs(case))
    assert out.shape == case.out
    assert out.isfinite().all()


def test_model__backward_reaches_every_trainable_parameter(case: Case) -> None:
    model = case.make().train()
    model(inputs(case)).square().sum().backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and not name.endswith("pos_embed")}
    assert frozen == case.unused
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_model__is_rebuilt_from_config_and_safetensors(case: Case) -> None:
    model = case.make().eval()
    if isinstance(model, MaeOfAnEcg):
        rebuilt = MaeOfAnEcg()
        rebuilt.mae.encoder = build_module(model.mae.encoder.config).train_path("tokens")
        rebuilt.mae.decoder = build_module(model.mae.decoder.config)
    else:
        rebuilt = build_module(model.config)
    rebuilt.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    x = inputs(case)
    torch.testing.assert_close(rebuilt.eval()(x), model(x), rtol=0, atol=0)


def test_model__config_is_plain_data(case: Case) -> None:
    model = case.make()
    if isinstance(model, MaeOfAnEcg):
        model = model.mae.decoder
    buffer = io.StringIO()
    import json

    json.dump(model.config, buffer)
    assert build_module(json.loads(buffer.getvalue())).config == model.config


def test_model__eval_is_deterministic_and_per_sample(case: Case) -> None:
    model, x = case.make().eval(), inputs(case)
    first = model(x)
    torch.testing.assert_close(model(x), first, rtol=0, atol=0)
    if not isinstance(model, MaeOfAnEcg):  # whose mask depends on the place in the batch
        torch.testing.assert_close(model(x[1:2]), first[1:2], rtol=1e-4, atol=1e-5)


def test_model__is_finite_in_bf16_autocast(case: Case) -> None:
    model = case.make()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(inputs(case))
    out.float().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_model__refuses_another_shape(case: Case) -> None:
    with pytest.raises(ValueError, match="has shape") as caught:
        case.make()(torch.rand(case.wrong))
    assert str(case.wrong) in str(caught.value)
    assert "expected (B" in str(caught.value)


def test_build_module__refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="ecg_vit"):
        build_module({"kind": "ecg_cnn"})


def test_build_module__refuses_an_unknown_field() -> None:
    with pytest.raises(ValueError, match="colour"):
        build_module({"kind": "projection_head", "in_features": 4, "colour": 1})
