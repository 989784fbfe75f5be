"""BatchNorm over processes in one process, prediction head, projection head, CMR encoders."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from ecgcmr.models import create_cmr_encoder
from ecgcmr.models.cine import position_codes
from ecgcmr.models.heads import PredictionHead
from ecgcmr.models.norm import GatheredBatchNorm1d, GatheredBatchNorm2d, _global_moments, convert_batch_norm
from ecgcmr.models.projection import ProjectionHead

LABELS = [
    {"name": "LVEDV", "kind": "regression", "unit": "mL"},
    {"name": "MI", "kind": "binary"},
    {"name": "LVM", "kind": "regression", "unit": "g"},
]


def test_convert_batch_norm__keeps_names_weights_and_results() -> None:
    torch.manual_seed(0)
    plain = create_cmr_encoder("resnet10t", 3)
    gathered = convert_batch_norm(copy.deepcopy(plain))
    assert any(isinstance(m, GatheredBatchNorm2d) for m in gathered.modules())
    assert not any(type(m) is nn.BatchNorm2d for m in gathered.modules())
    assert list(gathered.state_dict()) == list(plain.state_dict())
    x = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(gathered(x), plain(x), rtol=0, atol=0)
    torch.testing.assert_close(dict(gathered.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=0)


def test_convert_batch_norm__keeps_the_tail_of_a_fused_layer() -> None:
    plain = nn.Sequential(BatchNormAct2d(4), BatchNormAct2d(4, apply_act=False))
    gathered = convert_batch_norm(copy.deepcopy(plain))
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(gathered(x), plain(x), rtol=0, atol=0)


def test_convert_batch_norm__handles_a_bare_layer() -> None:
    assert isinstance(convert_batch_norm(nn.BatchNorm1d(3)), GatheredBatchNorm1d)


def test_global_moments__survive_a_large_mean_in_float32() -> None:
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 3000.0
    mean, var, count = _global_moments(x, [0, 2, 3])
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    assert count == 64 * 64


def test_prediction_head__predicts_in_units_and_probabilities() -> None:
    head = PredictionHead({"in_features": 4, "labels": LABELS})
    head.set_statistics([150.0, 0.1, 110.0], [30.0, 0.3, 25.0])
    nn.init.zeros_(head.layers[-1].weight)
    torch.testing.assert_close(head.predict(torch.randn(2, 4)), torch.tensor([[150.0, 0.5, 110.0]]).expand(2, -1))
    with torch.no_grad():
        head.layers[-1].bias.copy_(torch.tensor([1.0, 2.0, -1.0]))
    predicted = head.predict(torch.zeros(1, 4))
    torch.testing.assert_close(predicted, torch.tensor([[180.0, 1 / (1 + torch.e**-2), 85.0]]))


def test_prediction_head__standardize_undoes_predict() -> None:
    head = PredictionHead({"in_features": 4, "labels": LABELS})
    head.set_statistics([150.0, 0.1, 110.0], [30.0, 0.3, 25.0])
    raw = head(x := torch.randn(5, 4))
    back = head.standardize(head.predict(x))
    torch.testing.assert_close(back[:, [0, 2]], raw[:, [0, 2]])


def test_prediction_head__statistics_travel_with_the_weights() -> None:
    head = PredictionHead({"in_features": 4, "labels": LABELS})
    head.set_statistics([150.0, 0.1, 110.0], [30.0, 0.3, 25.0])
    other = PredictionHead(head.config)
    other.load_state_dict(head.state_dict())
    x = torch.randn(3, 4)
    torch.testing.assert_close(other.predict(x), head.predict(x))


def test_prediction_head__needs_labels_and_as_many_statistics() -> None:
    with pytest.raises(ValueError, match="at least one label"):
        PredictionHead({"in_features": 4})
    with pytest.raises(ValueError, match="2 means"):
        PredictionHead({"in_features": 4, "labels": LABELS}).set_statistics([1.0, 2.0], [1.0, 1.0])


def test_projection_head__has_the_reference_layout() -> None:
    names = {name: tuple(value.shape) for name, value in ProjectionHead(384).state_dict().items()}
    assert names == {
        "layers.0.weight": (2048, 384),
        "layers.0.bias": (2048,),
        "layers.2.weight": (128, 2048),
        "layers.2.bias": (128,),
    }


def test_create_cmr_encoder__names_near_models() -> None:
    with pytest.raises(ValueError, match=r"resnet10t|resnet18"):
        create_cmr_encoder("resnet11", 3)
    with pytest.raises(ValueError, match="in_channels"):
        create_cmr_encoder("resnet18")
    with pytest.raises(ValueError, match="in_chans"):
        create_cmr_encoder("resnet18", 3, timm_args={"in_chans": 1})


def test_timm_encoder__memory_layout_does_not_change_the_result() -> None:
    torch.manual_seed(0)
    fast = create_cmr_encoder("resnet10t", 3).eval()
    plain = create_cmr_encoder("resnet10t", 3, channels_last=False).eval()
    plain.load_state_dict(fast.state_dict())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)


def test_position_codes__close_on_themselves_over_the_cycle() -> None:
    codes = position_codes(1, 20, 32)[:, :16]
    step = (codes.roll(-1, 0) - codes).norm(dim=1)
    torch.testing.assert_close(step, step[:1].expand(20), rtol=1e-9, atol=0)


def test_position_codes__tell_every_slice_and_frame_apart() -> None:
    codes = position_codes(8, 20, 32)
    assert torch.cdist(codes, codes).fill_diagonal_(9).min() > 0.05


def test_cine_transformer__sees_the_order_of_frames_and_takes_any_protocol() -> None:
    torch.manual_seed(0)
    encoder = create_cmr_encoder("cine_transformer", cine={"width": 32, "depth": 1, "heads": 2, "stem": 8}).eval()
    cine = torch.rand(1, 2, 6, 32, 32)
    shuffled = cine[:, :, [0, 3, 1, 5, 2, 4]]
    assert (encoder(cine) - encoder(shuffled)).abs().max() > 1e-4
    assert encoder(torch.rand(1, 9, 25, 48, 32)).shape == (1, 32)
    one_slice = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(encoder(one_slice), encoder(one_slice[:, None]))
