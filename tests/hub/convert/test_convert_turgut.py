"""The published files of oetu/MMCL-ECG-CMR: signal encoders after alignment, and image encoders."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import vit_layout as layout
from torch import Tensor, nn

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.preprocessing import UKB_PIXEL_MM
from ecgcmr.hub.convert.registry import convert, detect
from ecgcmr.hub.convert.writing import convert_file
from ecgcmr.hub.weights import load_weights

SIGNAL = ("signal_encoder_mmcl", "signal_encoder_mmcl_wo_mdm")
IMAGE = ("image_encoder_mmcl", "image_encoder_mmcl_wo_mdm", "image_encoder_simclr")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return layout.encoder_state(384, 3, learned=True)


def signal_file(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"model": OrderedDict(state)}, folder / "signal_encoder.pth")
    return folder / "signal_encoder.pth"


def test_signal__the_file_has_the_42_tensors_of_the_published_one(state: dict[str, Tensor]) -> None:
    assert len(state) == 42
    assert sum(value.numel() for value in state.values()) == 5_478_912


@torch.no_grad()
@pytest.mark.parametrize("name", SIGNAL)
@pytest.mark.parametrize("how", ["mean", "pre_norm", "cls"])
def test_signal__gives_the_embedding_of_the_original(
    name: str, how: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    converted = convert_file(signal_file(tmp_path, state), name, tmp_path / "w", {"embedding": how})
    weights, ecg = load_weights(tmp_path / "w"), layout.prepared()
    assert (weights.modules["ecg"](ecg) - layout.embed(state, ecg, 6, how)).abs().max() <= 1e-5
    assert torch.equal(weights.modules["ecg"].state_dict()["pos_embed"], state["pos_embed"])
    assert converted.dropped == {}
    text = " ".join(converted.notes)
    assert "6, by the published size 'tiny'" in text
    assert "no retrieval" in text
    assert "norm.* is in the file" in text


def test_signal__default_is_the_mean_with_a_norm_without_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = convert(signal_file(tmp_path, state), "signal_encoder_mmcl").modules["ecg"]
    own = encoder.state_dict()
    assert encoder.config["pool"] == "mean"
    assert encoder.config["learn_positions"]
    assert torch.equal(own["fc_norm.weight"], torch.ones(384))
    assert torch.equal(own["fc_norm.bias"], torch.zeros(384))


def test_signal__takes_the_prefix_of_the_alignment_program(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = signal_file(tmp_path, {f"encoder_ecg.{key}": value for key, value in state.items()})
    own = convert(path, "signal_encoder_mmcl").modules["ecg"].state_dict()
    assert torch.equal(own["blocks.2.mlp.fc2.weight"], state["blocks.2.mlp.fc2.weight"])


def test_signal__says_that_untrained_positions_look_like_another_file(tmp_path: Path) -> None:
    path = signal_file(tmp_path, layout.encoder_state(384, 3))
    notes = " ".join(convert(path, "signal_encoder_mmcl").notes)
    assert "may be signal_encoder_mdm under another name" in notes


def test_signal__medium_has_other_heads_here_than_in_the_masked_autoencoder(tmp_path: Path) -> None:
    path = signal_file(tmp_path, layout.encoder_state(640, 6, n_samples=100, learned=True))
    assert convert(path, "signal_encoder_mmcl").modules["ecg"].config["heads"] == 8


def test_signal__points_to_the_format_that_the_keys_agree_with(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = signal_file(tmp_path, state | layout.decoder_state(384, 256, 2))
    with pytest.raises(ValueError, match=r"unexpected: decoder_embed.*agree with the format signal_encoder_mdm or mae"):
        convert(path, "signal_encoder_mmcl")


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """torchvision's ResNet-50 with random weights and statistics, as an original would have them."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            module.weight.data.copy_(0.5 + 0.5 * torch.rand(shape, generator=generator))
            module.bias.data.copy_(0.1 * torch.randn(shape, generator=generator))
            module.num_batches_tracked.fill_(7)
    return model.eval()


def image_file(folder: Path, resnet: nn.Module, **changes: Tensor | None) -> Path:
    """All children but the last in a sequence, under the prefix of the alignment program."""
    sequence = nn.Sequential(*list(resnet.children())[:-1]).state_dict()
    state = {f"encoder_imaging.{key}": value for key, value in sequence.items()}
    state |= changes  # type: ignore[arg-type]
    torch.save({"state_dict": {k: v for k, v in state.items() if v is not None}}, folder / "image.pth")
    return folder / "image.pth"


@torch.no_grad()
def test_image__features_are_those_of_torchvision(resnet: nn.Module, tmp_path: Path) -> None:
    path = image_file(tmp_path, resnet)
    assert detect(path) == list(IMAGE)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert saved["encoder_imaging.4.0.conv1.weight"].shape == (64, 64, 1, 1)
    assert saved["encoder_imaging.7.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    convert_file(path, "image_encoder_mmcl", tmp_path / "w")
    encoder = load_weights(tmp_path / "w").modules["cmr"]
    assert sum(p.numel() for p in encoder.parameters()) == 23_508_032
    image = torch.rand(1, 3, 210, 210, generator=torch.Generator().manual_seed(1))
    features = nn.Sequential(*list(resnet.children())[:-1])(image).flatten(1)
    assert features.std() > 0.05
    assert (encoder(image) - features).abs().max() <= 1e-5


@pytest.mark.parametrize(("name", "crop"), [("image_encoder_mmcl_wo_mdm", True), ("image_encoder_simclr", False)])
def test_image__sees_the_frames_that_the_original_saw(name: str, crop: bool, resnet: nn.Module, tmp_path: Path) -> None:
    pipeline = convert(image_file(tmp_path, resnet), name).cmr_pipeline
    assert pipeline is not None
    frames = np.random.default_rng(0).uniform(50, 200, (1, 3, 210, 210)).astype(np.float32)
    cine = Cine(frames, (UKB_PIXEL_MM, UKB_PIXEL_MM), 8.0, np.eye(4), np.zeros(3), "sax")
    window = torch.from_numpy(frames[:, :, 44:122, 68:146] if crop else frames)
    wanted = nn.functional.interpolate(window, (210, 210), mode="bilinear", align_corners=False)[0].numpy()
    got = pipeline(cine).astype(np.float64)
    assert got.shape == (3, 210, 210)
    # Between the two percentiles that become black and white the map is linear. Three pixels at the rim are left out:
    # crop then resize repeats the outermost pixel there, the pipeline sees its true neighbour.
    middle = np.zeros(got.shape, bool)
    middle[:, 3:-3, 3:-3] = ((got > 0) & (got < 255))[:, 3:-3, 3:-3]
    slope, offset = np.polyfit(wanted[middle], got[middle], 1)
    assert slope > 0
    assert np.abs(slope * wanted[middle] + offset - got[middle]).max() < 1.0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("4.0.conv1.weight", None, r"missing: 4\.0\.conv1\.weight"),
        (
            "4.0.conv1.weight",
            torch.ones(64, 64, 3, 3),
            r"4\.0\.conv1\.weight \(64, 64, 3, 3\) instead of \(64, 64, 1, 1\)",
        ),
        ("9.weight", torch.ones(3), r"unexpected: 9\.weight"),
        ("fc.weight", torch.ones(3), r"fc\.weight: expected keys like encoder_imaging\.4\.0"),
        ("1.running_var", torch.full((64,), -1.0), r"1\.running_var below 0"),
        ("1.bias", torch.full((64,), torch.inf), r"not finite: 1\.bias"),
    ],
)
def test_image__refuses_by_key(key: str, value: Tensor | None, said: str, resnet: nn.Module, tmp_path: Path) -> None:
    path = image_file(tmp_path, resnet, **{f"encoder_imaging.{key}": value})
    with pytest.raises(ValueError, match=said):
        convert(path, "image_encoder_simclr")


def test_image__has_no_options(resnet: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has none"):
        convert(image_file(tmp_path, resnet), "image_encoder_simclr", {"crop": "no"})
