"""Masked autoencoders of the ECG as the reference saves them (oetu/mae; signal_encoder_mdm): encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, UKB, USE, unknown_if_auto
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import AUTO, parse_options
from ecgcmr.hub.convert.state import State, open_state
from ecgcmr.hub.convert.values import whole_option, word_option
from ecgcmr.hub.convert.vit import (
    MAE_SIZES,
    VitSize,
    block_shapes,
    build_vit,
    check_table,
    choose_heads,
    choose_input,
    vit_size,
)
from ecgcmr.models.ecg_mae import EcgDecoder

EMBEDDINGS = ("norm_mean", "cls", "mean", "pre_norm")
ABOUT_EMBEDDING = {
    "norm_mean": "Embedding: norm on all tokens, then the mean of the patch tokens, as the reference's online probe.",
    "cls": "Embedding: norm, then the cls token.",
    "mean": "Embedding: mean of the patch tokens, then LayerNorm (eps 1e-6) with weight 1 and bias 0.",
    "pre_norm": "Embedding: mean of the patch tokens, no norm.",
}

# Width and depth of the decoder to its heads: pluto, tiny and most others, base, and the suffix 2.
_DECODER_HEADS = {(160, 1): 8, (256, 2): 8, (512, 8): 16, (128, 2): 4}
_SIAMESE = "head of the siamese term of later versions; no part of the encoder"
_NO_PART = {"projector.": _SIAMESE, "predictor.": _SIAMESE}
_DECODER_KEYS = ("decoder", "mask_token")


def convert_mdm(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert `signal_encoder_mdm.pth` of oetu/MMCL-ECG-CMR (masked data modelling, arXiv 2308.05764)."""
    chosen = parse_options("signal_encoder_mdm", options)
    card = Card(
        name="signal_encoder_mdm (Turgut et al.)",
        stage="masked_ecg",
        license="MIT",
        provenance=UKB,
        trained_on="28,030 12-lead ECGs at rest (500 Hz) of the training subjects, masked autoencoding, 400 epochs",
        intended_use=USE,
        limits=LIMITS,
    )
    return _convert(path, chosen, card)


def convert_mae(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert a raw checkpoint of oetu/mae in any of its sizes."""
    chosen = parse_options("mae", options)
    card = Card(
        name=f"masked autoencoder of the ECG, from {path.stem}",
        stage="masked_ecg",
        license="CC-BY-NC-4.0" if chosen["license"] == AUTO else chosen["license"],
        provenance=unknown_if_auto(chosen["provenance"]),
        trained_on="not stated in the file",
        intended_use=USE,
        limits=LIMITS,
    )
    return _convert(path, chosen, card)


def _convert(path: Path, options: Mapping[str, str], card: Card) -> Converted:
    state = open_state(path).stripped("encoder_ecg.").without(_NO_PART)
    size = vit_size(state)
    pool = word_option(options, "embedding", EMBEDDINGS)
    heads, about_heads = choose_heads(size, MAE_SIZES, options, path)
    pipeline, n_samples, notes = choose_input(size, options, path)
    notes = [ABOUT_EMBEDDING[pool], about_heads, *notes]

    own = {key: value for key, value in state.tensors.items() if key.startswith(_DECODER_KEYS)}
    encoder_state = State(path, {k: v for k, v in state.tensors.items() if k not in own}, state.dropped, state.top)
    tensors = encoder_state.exactly(size.shapes())
    notes += check_table("pos_embed", encoder_state.tensors["pos_embed"], options, path)
    modules: dict[str, nn.Module] = {"ecg": build_vit(size, tensors, heads, pool, n_samples)}
    dropped = dict(state.dropped)
    if own:
        why = _why_no_decoder(options, size, n_samples)
        decoder_state = State(path, own)
        filled = _decoder_tensors(decoder_state, size)  # checked even if it is not kept
        notes += check_table("decoder_pos_embed", own["decoder_pos_embed"], options, path)
        if why:
            dropped |= dict.fromkeys(own, why)
        else:
            modules["ecg_decoder"], about = _decoder(filled, size, options, path)
            notes.append(about)
    return Converted(modules, card, pipeline, dropped=dropped, notes=tuple(notes))


def _why_no_decoder(options: Mapping[str, str], size: VitSize, n_samples: int) -> str:
    if word_option(options, "decoder", (AUTO, "drop")) == "drop":
        return "part of the decoder, left out as the option says"
    if n_samples != size.n_samples:
        return f"part of the decoder, whose positions are for {size.n_samples} samples and not for {n_samples}"
    return ""


def _decoder_tensors(state: State, size: VitSize) -> dict[str, Tensor]:
    width, depth = state.shape("mask_token", 3)[-1], state.count("decoder_blocks.{}.")
    hidden = state.shape("decoder_blocks.0.mlp.fc1.weight", 2)[0]
    shapes: dict[str, tuple[int, ...]] = {
        "decoder_embed.weight": (width, size.width), "decoder_embed.bias": (width,), "mask_token": (1, 1, width),
        "decoder_pos_embed": (1, 1 + size.tokens, width),
        "decoder_norm.weight": (width,), "decoder_norm.bias": (width,),
        "decoder_pred.weight": (size.patch, width), "decoder_pred.bias": (size.patch,),
    }  # fmt: skip
    for i in range(depth):
        shapes |= block_shapes(f"decoder_blocks.{i}.", width, hidden)
    return state.exactly(shapes)


def _decoder(
    tensors: Mapping[str, Tensor], size: VitSize, options: Mapping[str, str], path: Path
) -> tuple[EcgDecoder, str]:
    width, depth = tensors["mask_token"].shape[-1], len({k.split(".")[1] for k in tensors if "blocks" in k})
    known = _DECODER_HEADS.get((width, depth))
    if options["decoder_heads"] != AUTO or known:
        heads = whole_option(options, "decoder_heads", known or 1)
    else:
        raise ValueError(
            f"{path}: a decoder of width {width} and depth {depth} is no published size, and the file does not hold "
            "its attention heads; give --option decoder_heads=N, or decoder=drop"
        )
    config = {
        "preset": "tiny", "width": width, "depth": depth, "heads": heads, "encoder_width": size.width, "leads": 12,
        "windows": size.tokens // 12, "patch": size.patch,
        "mlp_ratio": tensors["decoder_blocks.0.mlp.fc1.weight"].shape[0] / width,
    }  # fmt: skip
    decoder = EcgDecoder(config)
    decoder.load_state_dict({key.removeprefix("decoder_"): value for key, value in tensors.items()})
    return decoder.eval(), f"The decoder is kept (module ecg_decoder), with {heads} heads."
