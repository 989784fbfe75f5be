"""ECG towers of ECCL (MICCAI 2024) and CardiacNets (arXiv 2411.13602): ViT-B or ViT-L over 12 x 5000 samples.

The prefixes of the towers and the keys of the ECG tower are known; the CMR towers (Swin over 50 frames) are known by
their sizes but not by their keys, so they are named and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, USE, unknown_if_auto
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.mae import ABOUT_EMBEDDING, EMBEDDINGS
from ecgcmr.hub.convert.registry import AUTO, parse_options
from ecgcmr.hub.convert.state import State, open_state
from ecgcmr.hub.convert.values import word_option
from ecgcmr.hub.convert.vit import DING_SIZES, build_vit, choose_heads, choose_input, vit_size

TOWER = "ECG_encoder."
_SWIN = "CMR tower (Swin over 50 frames as channels): its keys are not published, so its equality cannot be shown"
_OTHER_TOWERS = {
    "CMR_encoder": _SWIN,
    "mask_model": "CMR pretraining (Swin masked image modelling): keys not published",
}
_ELSE = "outside the ECG tower: projection or loss, of which no layout is published"
_HEAD = "head of the ECG tower: what it maps to is not published; the embedding is the vector before it"
_DECODER = "decoder of the masked autoencoder that the tower started from"


def convert_eccl(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert the ECG tower of an alignment checkpoint of ECCL or CardiacNets."""
    chosen = parse_options("eccl", options)
    pool = word_option(chosen, "embedding", EMBEDDINGS)
    whole = open_state(path).without(_OTHER_TOWERS).under(TOWER, _ELSE)
    state = State(path, whole.tensors).without({"head.": _HEAD, "decoder": _DECODER, "mask_token": _DECODER})
    size = vit_size(state)
    _refuse_covariates(state, path)
    heads, about_heads = choose_heads(size, DING_SIZES, chosen, path)
    pipeline, n_samples, about_input = choose_input(size, chosen, path)
    has_fc_norm = any(key.startswith("fc_norm.") for key in state.tensors)
    fc_norm = {"fc_norm.weight": (size.width,), "fc_norm.bias": (size.width,)} if has_fc_norm else {}
    has_norm = any(key.startswith("norm.") for key in state.tensors) or pool in ("cls", "norm_mean")
    tensors = state.exactly(size.shapes(norm=has_norm) | fc_norm)
    dropped = {**whole.dropped, **{TOWER + key: why for key, why in state.dropped.items()}}
    if has_fc_norm and pool != "mean":
        dropped |= {TOWER + key: f"not used by the embedding {pool!r}" for key in fc_norm}
        tensors = {key: value for key, value in tensors.items() if key not in fc_norm}
    about_pool = ABOUT_EMBEDDING[pool]
    if has_fc_norm and pool == "mean":
        about_pool = "Embedding: mean of the patch tokens, then the fc_norm of the file."
    notes = [about_pool, about_heads, *about_input]
    if chosen["pipeline"] == "eccl":
        notes.append(_ABOUT_PIPELINE)
    card = Card(
        name=f"ECG tower of ECCL / CardiacNets, from {path.stem}",
        stage="align",
        license=chosen["license"] if chosen["license"] != AUTO else "unknown: the repository states no license",
        provenance=unknown_if_auto(chosen["provenance"]),
        trained_on="not stated in the file",
        intended_use=USE,
        limits=LIMITS,
    )
    modules = {"ecg": build_vit(size, tensors, heads, pool, n_samples, learn_positions=True)}
    return Converted(modules, card, pipeline, dropped=dropped, notes=tuple(notes))


_ABOUT_PIPELINE = (
    "The original subtracts the trend of an additive seasonal decomposition whose period is one beat, and scales each "
    "lead to [-1, 1]; the pipeline 'eccl' subtracts a centred moving average over one beat, estimated from the "
    "recording, with the window cut at the ends, where the original has no trend and what it puts there is not "
    "published. A prepared array gives exactly the original's embedding; a raw recording may differ, most within half "
    "a beat of its ends."
)


def _refuse_covariates(state: State, path: Path) -> None:
    """Refuse a tower whose blocks are modulated by covariates: without them its embedding does not exist."""
    known = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.", "fc_norm.")
    strange = [TOWER + key for key in state.tensors if not key.startswith(known)]
    if strange:
        raise ValueError(
            f"{path}: the ECG tower has keys that are no part of a plain transformer: {', '.join(strange[:12])}. A "
            "tower with covariates (24 tabular values that modulate each block) gives no embedding from the ECG alone; "
            "its layout is not published and it is not converted"
        )
