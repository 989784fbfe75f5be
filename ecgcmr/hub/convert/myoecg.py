"""MyoECG (huggingface.co/Yukui1999/MyoECG): an ECG encoder in the layout of ST-MEM, taught by a CMR model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgcmr.ecg.preprocessing import MYOECG_CROPS, myoecg_pipeline
from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, USE
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import AUTO
from ecgcmr.hub.convert.state import State, open_state
from ecgcmr.hub.convert.values import heads_option, word_option
from ecgcmr.models.ecg_st_vit import EcgStViT
from ecgcmr.models.heads import PredictionHead

_DATA = "participant-derived: UK Biobank and a tertiary centre; weights as published in Yukui1999/MyoECG"
# Keys of the file by those of the module; both have .weight and .bias.
_BLOCK = {
    "norm1": "attn.norm", "attn.qkv": "attn.fn.to_qkv", "attn.proj": "attn.fn.to_out.0",
    "norm2": "ff.norm", "mlp.fc1": "ff.fn.net.0", "mlp.fc2": "ff.fn.net.3",
}  # fmt: skip
_STEM = {"patch_norm": "to_patch_embedding.1", "patch_embed": "to_patch_embedding.2"}
_STEM |= {"token_norm": "to_patch_embedding.3", "norm": "norm"}
_TEACHER = {
    "teacher.": "the frozen CMR teacher, which the ECG encoder does not need",
    "cmr_encoder.": "the CMR tower, which the ECG encoder does not need",
}

NOTES = (
    "Position 0 belongs to the left separator of every lead, 1 to W to its patches, W + 1 to its right separator; "
    "the sums of token, position and lead commute, so their order does not matter. That separators carry their lead's "
    "embedding is the published code's way as far as its description tells; --option separator_leads=false leaves it "
    "out.",
    "The original averages the logits of three equally spaced crops at test time. This folder prepares one of them "
    "(--option crop=start|center|end, default center). Convert three times and average the logits, or prepare with "
    "ecgcmr.ecg.preprocessing.myoecg_pipeline(crop): filters and z-score come after the crop, so that windows of one "
    "prepared recording are not the same.",
)


def convert_myoecg(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert a checkpoint of MyoECG, pretrained or fine-tuned.

    Args:
        path: The file; `{"model": ...}` beside epoch, optimizer, scaler, config and metrics, or a bare state dict.
        options: `heads`, `separator_leads`, `crop`, `label`, `license`, `provenance`; see the registry.

    Raises:
        FileNotFoundError, ValueError: As `open_state`; or keys or shapes do not fit; or an option has no meaning.
    """
    crop = word_option(options, "crop", MYOECG_CROPS)
    state = open_state(path).without(_TEACHER)
    sizes = _sizes(state, options)
    with_head = any(key.startswith("head.") for key in state.tensors)
    with torch.device("meta"):  # nothing is allocated before the file is known to hold what it claims
        skeleton = EcgStViT(sizes)
    tensors = state.exactly(_shapes(skeleton, with_head))
    encoder = EcgStViT(sizes)
    encoder.load_state_dict(_renamed(tensors, encoder))
    modules: dict[str, Any] = {"ecg": encoder.eval()}
    head_options: dict[str, Any] = {}
    if with_head:
        modules["head"] = _head(tensors, options["label"])
        head_options = _threshold(state)
    stage = "fine-tuned for cardiomyopathy" if with_head else "ECG-CMR pretraining"
    card = Card(
        name=f"MyoECG, {stage}",
        stage="supervised" if with_head else "align",
        license=options["license"] if options["license"] != AUTO else "MIT",
        provenance=options["provenance"] if options["provenance"] != AUTO else _DATA,
        trained_on="45,241 ECG-CMR pairs for the alignment (MyoECG, doi 10.57967/hf/10893)",
        intended_use=USE,
        limits=f"{LIMITS} The head tells about cardiomyopathy alone." if with_head else LIMITS,
        run=head_options,
    )
    return Converted(modules, card, myoecg_pipeline(crop), None, head_options, state.dropped, NOTES)


def _sizes(state: State, options: Mapping[str, str]) -> dict[str, Any]:
    """Read the architecture off the shapes; only the number of heads is not in them."""
    width, patch = state.shape("to_patch_embedding.2.weight", 2)
    windows = state.shape("pos_embedding", 3)[1] - 2
    if windows < 1:
        raise ValueError(
            f"{state.file}: pos_embedding has {windows + 2} rows, expected two separators and the patches of a lead"
        )
    depth, leads = state.count("block{}."), state.count("lead_embeddings.{}")
    if leads != 12:
        raise ValueError(f"{state.file}: lead_embeddings.* are {leads}, expected 12 (I to V6)")
    hidden = state.shape("block0.ff.fn.net.0.weight", 2)[0]
    if hidden % width:
        raise ValueError(f"{state.file}: block0.ff.fn.net.0.weight has {hidden} rows, no multiple of the width {width}")
    return {
        "n_samples": windows * patch,
        "patch": patch,
        "width": width,
        "depth": depth,
        "heads": heads_option(options, "heads", width, 64),
        "mlp_ratio": hidden // width,
        "separator_leads": word_option(options, "separator_leads", ("true", "false")) == "true",
    }


def _keys(encoder: EcgStViT) -> dict[str, str]:
    """Give the key of the file for each key of the encoder that is not one of the tables."""
    pairs = dict(_STEM)
    for i in range(len(encoder.blocks)):
        pairs |= {f"blocks.{i}.{ours}": f"block{i}.{theirs}" for ours, theirs in _BLOCK.items()}
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in pairs.items() for part in ("weight", "bias")}


def _shapes(encoder: EcgStViT, with_head: bool) -> dict[str, tuple[int, ...]]:
    own = encoder.state_dict()
    shapes = {theirs: tuple(own[ours].shape) for ours, theirs in _keys(encoder).items()}
    shapes |= {"pos_embedding": tuple(own["pos_embed"].shape), "sep_embedding": (encoder.embed_dim,)}
    shapes |= {f"lead_embeddings.{i}": (encoder.embed_dim,) for i in range(encoder.leads)}
    return {**shapes, "head.weight": (1, encoder.embed_dim), "head.bias": (1,)} if with_head else shapes


def _renamed(tensors: Mapping[str, Tensor], encoder: EcgStViT) -> dict[str, Tensor]:
    renamed = {ours: tensors[theirs] for ours, theirs in _keys(encoder).items()}
    leads = torch.stack([tensors[f"lead_embeddings.{i}"] for i in range(encoder.leads)])
    return {
        **renamed,
        "pos_embed": tensors["pos_embedding"],
        "sep_embed": tensors["sep_embedding"],
        "lead_embed": leads,
    }


def _head(tensors: Mapping[str, Tensor], label: str) -> PredictionHead:
    width = tensors["head.weight"].shape[1]
    head = PredictionHead({"in_features": width, "labels": [{"name": label, "kind": "binary"}]})
    state = head.state_dict()
    head.load_state_dict({**state, "layers.0.weight": tensors["head.weight"], "layers.0.bias": tensors["head.bias"]})
    return head.eval()


def _threshold(state: State) -> dict[str, float]:
    """Give the probability at which the original calls an ECG positive, where the file states it."""
    metrics = state.top.get("metrics")
    value = metrics.get("optimal_threshold") if isinstance(metrics, Mapping) else None
    if value is None:
        return {}
    try:
        threshold = float(value)
    except (TypeError, ValueError):
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise ValueError(f"{state.file}: metrics.optimal_threshold is {value!r}, expected a probability")
    return {"optimal_threshold": threshold}
