"""ECG encoders of oetu/MMCL-ECG-CMR after alignment with CMR (arXiv 2308.05764)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, UKB, USE
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.mae import ABOUT_EMBEDDING
from ecgcmr.hub.convert.registry import parse_options
from ecgcmr.hub.convert.state import open_state
from ecgcmr.hub.convert.values import word_option
from ecgcmr.hub.convert.vit import (
    MMCL_SIZES,
    TABLE_TOLERANCE,
    build_vit,
    choose_heads,
    choose_input,
    vit_size,
)
from ecgcmr.models.positions import sincos_table

_NO_HEADS = (
    "The published file holds no projection heads and not the fc_norm that fed them: the 128-d space shared with CMR "
    "is lost, so there is no retrieval across modalities with these weights."
)


def convert_mmcl(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert `signal_encoder_mmcl.pth`: masked data modelling, then alignment."""
    return _convert(path, options, "signal_encoder_mmcl", "masked_ecg, then align")


def convert_mmcl_wo_mdm(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert `signal_encoder_mmcl_wo_mdm.pth`: alignment from random weights."""
    return _convert(path, options, "signal_encoder_mmcl_wo_mdm", "align")


def _convert(path: Path, options: Mapping[str, str], name: str, stage: str) -> Converted:
    chosen = parse_options(name, options)
    pool = word_option(chosen, "embedding", ("mean", "pre_norm", "cls"))
    state = open_state(path).stripped("encoder_ecg.")
    size = vit_size(state)
    heads, about_heads = choose_heads(size, MMCL_SIZES, chosen, path)
    pipeline, n_samples, about_input = choose_input(size, chosen, path)
    tensors = state.exactly(size.shapes())
    notes = [ABOUT_EMBEDDING[pool], about_heads, *about_input, _NO_HEADS]
    notes.append(
        "norm.* is in the file but was never in the graph of the alignment; "
        + ("the cls embedding applies it all the same." if pool == "cls" else "it is kept and not used.")
    )
    table = sincos_table(len(LEADS), size.tokens // len(LEADS), size.width)
    if torch.allclose(tensors["pos_embed"], table, rtol=0, atol=TABLE_TOLERANCE):
        notes.append(
            "pos_embed is exactly the sin-cos table, but alignment trains it: this may be signal_encoder_mdm under "
            "another name; then convert it as that."
        )
    card = Card(
        name=f"{name} (Turgut et al.)",
        stage=stage,
        license="MIT",
        provenance=UKB,
        trained_on="28,030 pairs of a 12-lead ECG at rest and a cine of the training subjects, contrastive alignment",
        intended_use=USE,
        limits=LIMITS,
    )
    modules = {"ecg": build_vit(size, tensors, heads, pool, n_samples, learn_positions=True)}
    return Converted(modules, card, pipeline, dropped=dict(state.dropped), notes=tuple(notes))
