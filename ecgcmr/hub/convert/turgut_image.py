"""CMR encoders of oetu/MMCL-ECG-CMR (arXiv 2308.05764): torchvision's ResNet-50 without classifier, in a sequence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ecgcmr.cmr.preprocessing import named_pipeline
from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import IMAGE_LIMITS, UKB, USE
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import parse_options
from ecgcmr.hub.convert.state import open_state
from ecgcmr.models.cmr import create_cmr_encoder

PREFIX = "encoder_imaging."

# Place in the sequence to the name in the network; 2 (ReLU), 3 (max pool) and 8 (average pool) hold nothing.
_PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_RANGE = (
    "The intensity range that the original saw is not published; images come in as they are in [0, 1], 0 and 1 being "
    "the 1st and 99th percentile of the crop."
)
_FRAMES = "Input: end-diastole, mid-systole and end-systole of the middle short-axis slice; "
_CROPPED = _FRAMES + (
    "the window of 78 x 78 px at (44, 68) of a 210 x 210 frame, resized to 210, laid down in mm for UK Biobank's pixel "
    "of 1.83 mm (pipeline reference_crop). On other scanners it is the same window in mm."
)
_WHOLE = _FRAMES + (
    "the whole frame of 210 x 210 px, laid down in mm for UK Biobank's pixel of 1.83 mm (pipeline reference_frame): "
    "SimCLR saw uncropped frames, unlike the aligned encoders."
)


def convert_mmcl(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert `image_encoder_mmcl.pth`."""
    return _convert(path, options, "image_encoder_mmcl", "align", cropped=True)


def convert_mmcl_wo_mdm(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert `image_encoder_mmcl_wo_mdm.pth`."""
    return _convert(path, options, "image_encoder_mmcl_wo_mdm", "align", cropped=True)


def convert_simclr(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert `image_encoder_simclr.pth`."""
    return _convert(path, options, "image_encoder_simclr", "image_contrastive", cropped=False)


def _convert(path: Path, options: Mapping[str, str], name: str, stage: str, cropped: bool) -> Converted:
    parse_options(name, options)
    encoder = create_cmr_encoder("resnet50", 3, centered=False)
    own = encoder.state_dict()
    state = open_state(path, ("state_dict", "model")).stripped(PREFIX)
    if not all(re.match(r"\d+\.", key) for key in state.tensors):
        strange = next(key for key in state.tensors if not re.match(r"\d+\.", key))
        raise ValueError(f"{path}: {strange}: expected keys like {PREFIX}4.0.conv1.weight, places in a sequence")
    wanted = {_place(key): key for key in own}
    tensors: dict[str, Tensor] = state.exactly({place: tuple(own[key].shape) for place, key in wanted.items()})
    negative = [place for place in wanted if place.endswith("running_var") and bool((tensors[place] < 0).any())]
    if negative:
        raise ValueError(f"{path}: {', '.join(negative)} below 0, which no variance is: tensors were exchanged")
    with torch.no_grad():
        encoder.load_state_dict({key: tensors[place] for place, key in wanted.items()})
    card = Card(
        name=f"{name} (Turgut et al.)",
        stage=stage,
        license="MIT",
        provenance=UKB,
        trained_on="28,030 short-axis cines of the training subjects, three frames each",
        intended_use=USE,
        limits=IMAGE_LIMITS,
    )
    pipeline = named_pipeline("reference_crop" if cropped else "reference_frame")
    notes = (_CROPPED if cropped else _WHOLE, _RANGE, "The published file holds no projection head.")
    return Converted({"cmr": encoder.eval()}, card, cmr_pipeline=pipeline, dropped=dict(state.dropped), notes=notes)


def _place(key: str) -> str:
    """Name a tensor of the encoder by its place in the original's sequence."""
    name = key.removeprefix("backbone.")
    first, rest = name.split(".", 1)
    return f"{_PLACES[first]}.{rest}"
