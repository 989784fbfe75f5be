"""Facts of the reference's ECG transformer: token order, position table, state-dict names, pooling, arithmetic."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.models import create_ecg_encoder, load_pretrained
from ecgcmr.models.blocks import attention, stochastic_depth
from ecgcmr.models.config import EcgEncoderConfig
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.pooling import QueryPool
from ecgcmr.models.positions import interpolate_table, sincos_table

TINY_TENSORS = 42


@pytest.fixture(scope="module")
def tiny() -> EcgViT:
    torch.manual_seed(0)
    return create_ecg_encoder("tiny", n_samples=2500).eval()


def test_sincos_table__time_in_the_first_half_lead_in_the_second() -> None:
    table = sincos_table(12, 25, 384)[0]
    assert table.shape == (301, 384)
    assert table[0].abs().max() == 0
    origin, later, below = table[1], table[2], table[1 + 25]
    assert (origin != later).nonzero().max() < 192
    assert (origin != below).nonzero().min() >= 192


def test_sincos_table__is_sines_then_cosines_of_the_stated_frequencies() -> None:
    lead, t = 7, 11
    row = sincos_table(12, 25, 384)[0, 1 + lead * 25 + t]
    for half, position in ((0, t), (192, lead)):
        for i in (0, 1, 50, 95):
            omega = 10000 ** (-i / 96)
            assert row[half + i].item() == pytest.approx(math.sin(position * omega), abs=1e-6)
            assert row[half + 96 + i].item() == pytest.approx(math.cos(position * omega), abs=1e-6)


def test_interpolate_table__is_cubic_along_time_within_a_lead_and_keeps_cls() -> None:
    def kernel(x: float, a: float = -0.75) -> float:
        x = abs(x)
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    table = torch.randn(1, 241, 4, generator=torch.Generator().manual_seed(0))
    wide = interpolate_table(table, 12, 40)
    assert wide.shape == (1, 481, 4)
    assert torch.equal(wide[:, 0], table[:, 0])
    grid, other = table[0, 1:].view(12, 20, 4), wide[0, 1:].view(12, 40, 4)
    for lead, t in ((0, 7), (5, 20), (11, 33)):
        place = (t + 0.5) / 2 - 0.5  # align_corners False
        expected = sum(kernel(place - k) * grid[lead, k] for k in range(int(place) - 1, int(place) + 3))
        torch.testing.assert_close(other[lead, t], expected, rtol=1e-4, atol=1e-5)
    assert interpolate_table(table, 12, 20) is table


def test_interpolate_table__refuses_a_table_of_other_leads() -> None:
    with pytest.raises(ValueError, match="12 leads"):
        interpolate_table(torch.zeros(1, 1 + 25, 8), 12, 10)


def test_patch_embed__a_pulse_changes_its_own_token_only(tiny: EcgViT) -> None:
    ecg = torch.zeros(1, 12, 2500)
    pulse = ecg.clone()
    pulse[0, 3, 200:300] = 1
    changed = (tiny.patch_embed(ecg) != tiny.patch_embed(pulse)).any(-1)[0]
    assert (1 + changed.nonzero()).flatten().tolist() == [1 + 3 * 25 + 2]


def test_patch_embed__equals_the_strided_convolution(tiny: EcgViT) -> None:
    ecg = torch.randn(2, 12, 2500)
    convolved = tiny.patch_embed.proj(ecg[:, None]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tiny.patch_embed(ecg), convolved, rtol=1e-4, atol=1e-5)


def test_state_dict__has_the_names_and_shapes_of_the_released_files(tiny: EcgViT) -> None:
    shapes = {name: tuple(value.shape) for name, value in tiny.state_dict().items()}
    expected = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 301, 384),
        "patch_embed.proj.weight": (384, 1, 1, 100),
        "patch_embed.proj.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
    }
    for i in range(3):
        for layer, shape in {
            "norm1": (384,),
            "attn.qkv": (1152, 384),
            "attn.proj": (384, 384),
            "norm2": (384,),
            "mlp.fc1": (1536, 384),
            "mlp.fc2": (384, 1536),
        }.items():
            expected[f"blocks.{i}.{layer}.weight"] = shape
            expected[f"blocks.{i}.{layer}.bias"] = shape[:1]
    assert len(expected) == TINY_TENSORS
    assert {name: shape for name, shape in shapes.items() if not name.startswith("fc_norm")} == expected


def test_parameters__count_as_the_reference_does() -> None:
    encoder = create_ecg_encoder("tiny", n_samples=2500, pool="attention")
    assert sum(p.numel() for n, p in encoder.named_parameters() if not n.startswith(("fc_norm", "att"))) == 5_478_912
    used = sum(p.numel() for n, p in encoder.named_parameters() if not n.startswith("norm."))
    assert used + 2 * 384 + 2 == pytest.approx(6.07e6, abs=5e3)  # with a two-class head


def plain_transformer(state: dict[str, Tensor], ecg: Tensor, heads: int) -> Tensor:
    """The reference's forward pass written out token by token, in float64."""
    state = {name: value.double() for name, value in state.items()}
    width = state["cls_token"].shape[-1]
    patch = state["patch_embed.proj.weight"].shape[-1]
    rows = [ecg[:, lead, t * patch : (t + 1) * patch] for lead in range(12) for t in range(ecg.shape[-1] // patch)]
    weight, bias = state["patch_embed.proj.weight"].view(width, patch), state["patch_embed.proj.bias"]
    x = torch.stack([row.double() @ weight.T + bias for row in rows], dim=1)
    x = torch.cat([state["cls_token"].expand(len(ecg), -1, -1), x], dim=1) + state["pos_embed"]

    def norm(y: Tensor, name: str) -> Tensor:
        centered = y - y.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centered / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(y: Tensor, name: str) -> Tensor:
        return y @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for i in range(3):
        qkv = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
        size, out = width // heads, []
        for h in range(heads):
            q, k, v = (qkv[..., part * width + h * size : part * width + (h + 1) * size] for part in range(3))
            out.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size), dim=-1) @ v)
        x = x + linear(torch.cat(out, dim=-1), f"blocks.{i}.attn.proj")
        hidden = linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        x = x + linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), f"blocks.{i}.mlp.fc2")
    return x


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_forward_tokens__equals_a_plain_transformer(tiny: EcgViT, grad: bool) -> None:
    ecg = torch.randn(2, 12, 2500, generator=torch.Generator().manual_seed(3))
    with torch.set_grad_enabled(grad):
        tokens = tiny.forward_tokens(ecg)
    plain = plain_transformer(tiny.state_dict(), ecg, heads=6)
    torch.testing.assert_close(tokens.double(), plain, rtol=1e-4, atol=2e-5)


def test_attention__both_products_agree_in_value_and_gradient() -> None:
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=random).bfloat16().requires_grad_() for _ in range(3))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    out, fused = attention(q, k, v), functional.scaled_dot_product_attention(*exact)
    torch.testing.assert_close(out.double(), fused, rtol=0, atol=0.02)
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(fused.sum(), exact), strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=0.05)


def test_pool__mean_then_fc_norm_without_norm(tiny: EcgViT) -> None:
    ecg = torch.randn(2, 12, 2500)
    mean = tiny.forward_tokens(ecg)[:, 1:].mean(1)
    torch.testing.assert_close(tiny(ecg), functional.layer_norm(mean, (384,), eps=1e-6))


def test_pool__a_learned_query_picks_what_it_points_to() -> None:
    """It does not care for the order of the patches nor for cls; a query along one token's key takes that token."""
    torch.manual_seed(0)
    pool = QueryPool(8, 1).double().eval()
    tokens = torch.randn(2, 7, 8, dtype=torch.float64)
    shuffled = torch.cat([torch.randn(2, 1, 8, dtype=torch.float64), tokens[:, 1:].flip(1)], 1)
    torch.testing.assert_close(pool(tokens), pool(shuffled))
    with torch.no_grad():
        for weight in (pool.attention.in_proj_weight.view(3, 8, 8), pool.attention.out_proj.weight[None]):
            weight.copy_(torch.eye(8).expand_as(weight))
        pool.attention.in_proj_bias.zero_()
        pool.query.zero_()
        normed = pool.norm(tokens[:, 1:])
        torch.testing.assert_close(pool(tokens), normed.mean(1))
        pool.query.copy_(200 * normed[:1, 3:4])
        torch.testing.assert_close(pool(tokens)[0], normed[0, 3])


def test_pool__attention_is_multihead_attention_with_a_mean_query() -> None:
    torch.manual_seed(0)
    encoder = create_ecg_encoder("nano", 100, patch=25, pool="attention").eval()
    plain = nn.MultiheadAttention(96, 4, batch_first=True)
    plain.load_state_dict(encoder.attention_pool.state_dict())
    nn.init.normal_(encoder.fc_norm.weight)
    ecg = torch.randn(3, 12, 100)
    patches = encoder.forward_tokens(ecg)[:, 1:]
    pooled, _ = plain(patches.mean(1, keepdim=True), patches, patches)
    torch.testing.assert_close(encoder(ecg), encoder.fc_norm(pooled.squeeze(1)))


def test_pool__cls_is_normed_token_zero() -> None:
    encoder = create_ecg_encoder("nano", 100, patch=25, pool="cls").eval()
    ecg = torch.randn(3, 12, 100)
    torch.testing.assert_close(encoder(ecg), encoder.norm(encoder.forward_tokens(ecg))[:, 0])


def test_resized__keeps_the_embedding_of_a_constant_signal_close() -> None:
    encoder = create_ecg_encoder("nano", 500).eval()
    long = encoder.resized(1000)
    assert long.forward_tokens(torch.zeros(1, 12, 1000)).shape == (1, 241, 96)
    short, double = encoder(torch.ones(1, 12, 500)), long(torch.ones(1, 12, 1000))
    assert functional.cosine_similarity(short, double).item() > 0.95


def test_load_pretrained__takes_the_encoder_into_another_pooling_and_length() -> None:
    source = create_ecg_encoder("nano", 500)
    target = create_ecg_encoder("nano", 1000, pool="attention")
    fresh = load_pretrained(target, {k: v for k, v in source.state_dict().items() if not k.startswith("fc_norm")})
    assert {name.split(".")[0] for name in fresh} == {"attention_pool", "fc_norm"}
    torch.testing.assert_close(target.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)


def test_load_pretrained__names_what_does_not_fit() -> None:
    state = create_ecg_encoder("nano", 500).state_dict()
    state["blocks.0.attn.qkv.weight"] = torch.zeros(3, 3)
    state["extra"] = state.pop("cls_token")
    with pytest.raises(ValueError, match="missing: cls_token; unexpected: extra") as caught:
        load_pretrained(create_ecg_encoder("nano", 500), state)
    assert "blocks.0.attn.qkv.weight (3, 3) instead of (288, 96)" in str(caught.value)


def test_stochastic_depth__is_unbiased_grows_with_depth_and_splits_over_processes() -> None:
    like = torch.zeros(20_000, 1, requires_grad=True)
    factors = stochastic_depth(0.4, 3, like, torch.Generator().manual_seed(0))
    assert factors is not None
    for factor, rate in zip(factors, (0.0, 0.2, 0.4), strict=True):
        assert factor.mean().item() == pytest.approx(1.0, abs=0.02)
        assert (factor == 0).float().mean().item() == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"preset": "huge"}, "nano, tiny"),
        ({"width": 100, "heads": 6}, "not divisible by heads"),
        ({"n_samples": 2501}, "not a multiple of patch"),
        ({"colour": 1}, "colour"),
    ],
)
def test_config__refuses_what_does_not_fit(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EcgEncoderConfig.model_validate(fields)


def test_config__given_sizes_win_over_the_preset() -> None:
    config = EcgEncoderConfig(preset="small", depth=2)
    assert (config.width, config.depth, config.heads) == (512, 2, 8)
    assert EcgEncoderConfig.model_validate(config.model_dump()) == config


def test_forward__encodes_only_kept_patches_as_a_set(tiny: EcgViT) -> None:
    ecg = torch.randn(2, 12, 2500, generator=torch.Generator().manual_seed(0))
    everything = torch.arange(300).expand(2, -1)
    shuffled = everything[:, torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(tiny(ecg, keep=shuffled), tiny(ecg), rtol=1e-4, atol=1e-5)
    other = ecg.clone()
    other[:, 4] = 9.0  # the patches of lead 4 are numbers 100 to 124
    some = everything[:, [0, 7, 99, 125, 299]]
    torch.testing.assert_close(tiny(other, keep=some), tiny(ecg, keep=some), rtol=0, atol=0)
