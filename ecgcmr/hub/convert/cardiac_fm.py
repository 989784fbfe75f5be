"""CARDIAC-FM (huggingface.co/lst627/CARDIAC-FM): the ECG tower and both projection heads of the two-tower file.

The layout of the ECG tower is that of ECG-FM (arXiv 2408.05178) as fairseq-signals builds it; both are public and
under the MIT license, and nothing of their code is used here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.ecg.preprocessing import EcgPipeline, Step
from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, USE
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import AUTO
from ecgcmr.hub.convert.state import WRAPPERS, State, open_state
from ecgcmr.hub.convert.values import heads_option, number_option, whole_option, word_option
from ecgcmr.models.ecg_wav2vec import EcgWav2Vec
from ecgcmr.models.projection import NormProjection

_DATA = (
    "participant-derived + public: UK Biobank for the alignment, MIMIC-IV-ECG and PhysioNet 2021 for ECG-FM before it; "
    "weights as published in lst627/CARDIAC-FM"
)
MAX_LOGIT_SCALE = 100.0
_NO_TOWER = (
    "the CMR tower reads three views of a study (2- and 4-chamber, three short-axis slices, 8 frames each), cut out by "
    "segmentations that nobody ships; no pipeline of this toolkit prepares them"
)
_PRETRAINING = dict.fromkeys(
    ("mask_emb", "quantizer.", "project_q.", "final_proj.", "input_quantizer.", "project_inp.", "target_glu."),
    "belongs to the pretraining of ECG-FM; the embedding does not read it",
)
_LAYER = {
    "norm1": "self_attn_layer_norm", "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "fc1", "mlp.fc2": "fc2", "norm2": "final_layer_norm",
}  # fmt: skip
_POSITIONS = "conv_pos.pos_conv.0."
_NEW_NORM = {f"{_POSITIONS}parametrizations.weight.original{i}": f"{_POSITIONS}weight_{s}" for i, s in enumerate("gv")}

NOTES = (
    "The ECG embedding is the mean of the tokens of the last layer, as the alignment used it; cosine of the projected "
    "embeddings over the temperature of the card gives the logits.",
    "Strides of the convolutions are not in the file: they are taken equal to the kernels, as in ECG-FM.",
    "mri_encoder.* is left out, with the reason in `dropped`. cmr_projection is kept: it maps embeddings that the "
    "original CMR tower gave (the means of the tokens of each view, one after the other) into the shared space.",
    "The original's input is in units of its source, about +-300; one unit is taken as 0.005 mV, the step of UK "
    "Biobank's ECG files (--option unit_mv=...). Its baseline was removed by LOWESS with unpublished settings; a "
    "high-pass of 0.5 Hz stands for it (--option baseline=none where the recordings come without wander). The "
    "embedding of a prepared array is that of the original; how near the preparation comes was not measured.",
)


def convert_cardiac_fm(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert the alignment checkpoint of CARDIAC-FM (`stage1_cinema_m75.pth`).

    Args:
        path: The file; `{"model": ..., "temperature": ...}` beside the state of the training, or all at one level.
        options: `heads`, `n_samples`, `unit_mv`, `baseline`, `license`, `provenance`; see the registry.

    Raises:
        FileNotFoundError, ValueError: As `open_state`; or keys or shapes do not fit; or an option has no meaning.
    """
    pipeline = _pipeline(options)
    state, temperature = _without_temperature(open_state(path))
    mine = state.without({"mri_encoder.": _NO_TOWER})
    encoder, dropped = _encoder(mine, options, pipeline)
    heads = State(mine.file, {key: value for key, value in mine.tensors.items() if not key.startswith("ecg_encoder.")})
    ecg_projection, cmr_projection = _projections(heads, encoder.embed_dim)
    modules: dict[str, nn.Module] = {
        "ecg": encoder, "ecg_projection": ecg_projection, "cmr_projection": cmr_projection,
    }  # fmt: skip
    card = Card(
        name="CARDIAC-FM, ECG tower",
        stage="align",
        license=options["license"] if options["license"] != AUTO else "MIT",
        provenance=options["provenance"] if options["provenance"] != AUTO else _DATA,
        trained_on="57,609 ECG-CMR pairs (doi 10.64898/2026.03.16.26348526)",
        intended_use=USE,
        limits=LIMITS,
        run={"temperature": temperature},
    )
    return Converted(modules, card, pipeline, None, {}, {**mine.dropped, **dropped}, NOTES)


def _without_temperature(state: State) -> tuple[State, float]:
    """Take the temperature out: the file holds the logarithm of the factor of the cosines, at most ln 100."""
    found = state.tensors.get("temperature", state.top.get("temperature"))
    if not isinstance(found, Tensor) or found.numel() != 1 or not math.isfinite(float(found)):
        raise ValueError(f"{state.file}: temperature is missing or no number: expected a scalar, the log of the scale")
    rest = {key: value for key, value in state.tensors.items() if key != "temperature"}
    dropped = {key: reason for key, reason in state.dropped.items() if key != "temperature"}
    state = State(state.file, rest, dropped, state.top).stripped(*WRAPPERS)
    return state, math.exp(-min(float(found), math.log(MAX_LOGIT_SCALE)))


def _pipeline(options: Mapping[str, str]) -> EcgPipeline:
    n_samples = whole_option(options, "n_samples", 5000)
    seconds = n_samples / 500.0
    baseline = word_option(options, "baseline", ("highpass", "none"))
    filters = (Step("highpass", {"low_hz": 0.5, "order": 2, "pad_s": 1.5}),) if baseline == "highpass" else ()
    steps = (
        Step("nan_to_zero", {"partial": "interpolate", "whole_lead": "refuse"}),
        Step("cut_duration", {"seconds": seconds, "where": "center"}),
        Step("to_rate", {"hz": 500.0}),
        *filters,
        Step("scale_mv", {"unit_mv": number_option(options, "unit_mv", 0.005)}),
        Step("fit_duration", {"seconds": seconds, "min_seconds": seconds / 2}),
    )
    return EcgPipeline("cardiac_fm", steps)


def _encoder(state: State, options: Mapping[str, str], pipeline: EcgPipeline) -> tuple[EcgWav2Vec, Mapping[str, str]]:
    """Fill the ECG tower; also give the keys of it that stay outside, under their full names."""
    tower = state.under("ecg_encoder.", "another tower")
    tower = State(tower.file, {_NEW_NORM.get(key, key): value for key, value in tower.tensors.items()})
    tower = tower.without(_PRETRAINING)
    sizes = _sizes(tower, options, pipeline.n_samples)
    with torch.device("meta"):  # nothing is allocated before the file is known to hold what it claims
        skeleton = EcgWav2Vec(sizes)
    try:
        tensors = tower.exactly(_shapes(skeleton))
    except ValueError as error:
        raise ValueError(str(error).replace(f"{state.file}: ", f"{state.file}: ecg_encoder.*: ", 1)) from None
    encoder = EcgWav2Vec(sizes).eval()
    encoder.load_state_dict(_renamed(tensors, encoder))
    return encoder, {f"ecg_encoder.{key}": reason for key, reason in tower.dropped.items()}


def _sizes(state: State, options: Mapping[str, str], n_samples: int) -> dict[str, Any]:
    convs = [
        state.shape(f"feature_extractor.conv_layers.{i}.0.weight", 3)
        for i in range(state.count("feature_extractor.conv_layers.{}."))
    ]
    if convs[0][1] != 12:
        raise ValueError(
            f"{state.file}: ecg_encoder.feature_extractor.conv_layers.0.0.weight reads {convs[0][1]} leads, expected 12"
        )
    hidden, width = state.shape("encoder.layers.0.fc1.weight", 2)
    _, per_group, kernel = state.shape(f"{_POSITIONS}weight_v", 3)
    return {
        "n_samples": n_samples,
        "conv_layers": [(channels, size, size) for channels, _, size in convs],
        "width": width,
        "depth": state.count("encoder.layers.{}."),
        "heads": heads_option(options, "heads", width, 64),
        "hidden": hidden,
        "pos_kernel": kernel,
        "pos_groups": max(1, width // per_group),
    }


def _keys(encoder: EcgWav2Vec) -> dict[str, str]:
    """Give the key of the file for each key of the encoder that is stored as it is."""
    pairs = {f"convs.{i}.weight": f"feature_extractor.conv_layers.{i}.0.weight" for i in range(len(encoder.convs))}
    both = {"conv_norm": "feature_extractor.conv_layers.0.2", "feature_norm": "layer_norm"}
    both["token_norm"] = "encoder.layer_norm"
    if isinstance(encoder.project, nn.Linear):
        both["project"] = "post_extract_proj"
    for i in range(len(encoder.blocks)):
        both |= {f"blocks.{i}.{ours}": f"encoder.layers.{i}.{theirs}" for ours, theirs in _LAYER.items()}
    pairs |= {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in both.items() for part in ("weight", "bias")}
    return {**pairs, "pos_conv.bias": f"{_POSITIONS}bias"}


def _shapes(encoder: EcgWav2Vec) -> dict[str, tuple[int, ...]]:
    own, width = encoder.state_dict(), encoder.embed_dim
    shapes = {theirs: tuple(own[ours].shape) for ours, theirs in _keys(encoder).items()}
    for i in range(len(encoder.blocks)):
        for name in "qkv":
            shapes[f"encoder.layers.{i}.self_attn.{name}_proj.weight"] = (width, width)
            shapes[f"encoder.layers.{i}.self_attn.{name}_proj.bias"] = (width,)
    positions = tuple(own["pos_conv.weight"].shape)
    return {**shapes, f"{_POSITIONS}weight_v": positions, f"{_POSITIONS}weight_g": (1, 1, positions[2])}


def _renamed(tensors: Mapping[str, Tensor], encoder: EcgWav2Vec) -> dict[str, Tensor]:
    renamed = {ours: tensors[theirs] for ours, theirs in _keys(encoder).items()}
    for i in range(len(encoder.blocks)):
        for part in ("weight", "bias"):
            qkv = [tensors[f"encoder.layers.{i}.self_attn.{name}_proj.{part}"] for name in "qkv"]
            renamed[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(qkv)
    # Weight normalization over the kernel: direction v and length g of each of its taps (arXiv 1602.07868).
    direction, length = tensors[f"{_POSITIONS}weight_v"].double(), tensors[f"{_POSITIONS}weight_g"].double()
    norm = direction.square().sum(dim=(0, 1), keepdim=True).sqrt()
    return {**renamed, "pos_conv.weight": (length * direction / norm).float()}


def _projections(state: State, width: int) -> tuple[NormProjection, NormProjection]:
    """Build both heads; they end in the same space, and the ECG head begins at the ECG embedding."""
    out, from_ecg = state.shape("ecg_projection.2.weight", 2)
    _, from_cmr = state.shape("mri_projection.2.weight", 2)
    if from_ecg != width:
        raise ValueError(
            f"{state.file}: ecg_projection.2.weight reads {from_ecg} features, the ECG tower gives {width}"
        )
    sizes = {"ecg_projection": from_ecg, "mri_projection": from_cmr}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, size in sizes.items():
        shapes |= {f"{name}.0.weight": (size,), f"{name}.0.bias": (size,)}
        shapes |= {f"{name}.2.weight": (out, size), f"{name}.2.bias": (out,)}
    tensors = state.exactly(shapes)
    heads = []
    for name, size in sizes.items():
        head = NormProjection({"kind": "norm_projection", "in_features": size, "out": out})
        parts = {"norm": 0, "linear": 2}
        head.load_state_dict(
            {
                f"{ours}.{part}": tensors[f"{name}.{n}.{part}"]
                for ours, n in parts.items()
                for part in ("weight", "bias")
            }
        )
        heads.append(head.eval())
    return heads[0], heads[1]
