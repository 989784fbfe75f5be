"""ViTMAE of the ECG under Hugging Face's names: PTACL (arXiv 2506.20683) and the plain layout it descends from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.ecg.preprocessing import EcgPipeline, named_pipeline
from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, USE, unknown_if_auto
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import AUTO
from ecgcmr.hub.convert.state import State, open_state
from ecgcmr.hub.convert.values import heads_option, number_option, whole_option, word_option
from ecgcmr.models.ecg_mae import EcgDecoder
from ecgcmr.models.ecg_vit import EcgViT

HUGGING_FACE_EPS = 1e-12
_LAYER = {
    "norm1": "layernorm_before", "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
}  # fmt: skip
_SCALES = {"a": "attention.output.layerscale.layerscale_c", "l": "layerscale.layerscale_c"}
_SCALES["o"] = "output.layerscale.layerscale_c"
# Names of the plain layout by those of PTACL's fork.
_PLAIN = {"decoder.decoder_pos_embed": "decoder.decoder_position_embeddings"}
_PLAIN |= {f"decoder.decoder_norm.{part}": f"decoder.decoder_layernorm.{part}" for part in ("weight", "bias")}
_EMBEDDINGS = ("norm_mean", "cls", "mean", "pre_norm")


def convert_vitmae(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert a ViTMAE of the ECG: patches of one lead, one channel, twelve leads as rows.

    Args:
        path: The file; a state dict, bare or under "model" or "state_dict", or safetensors. A config.json beside it
            gives eps and heads where the options do not.
        options: `heads`, `decoder_heads`, `norm_eps`, `decoder`, `n_samples`, `pipeline`, `embedding`, `license`,
            `provenance`; see the registry.

    Raises:
        FileNotFoundError, ValueError: As `open_state`; or keys or shapes do not fit; or an option has no meaning.
    """
    stated = _stated(path)
    state = _named(open_state(path))
    embedding = word_option(options, "embedding", _EMBEDDINGS)
    keep_decoder = word_option(options, "decoder", (AUTO, "drop")) == AUTO
    if not keep_decoder:
        state = state.without({"decoder.": "left out as asked (decoder=drop)"})
    sizes = _sizes(state, options, stated, embedding)
    has_decoder = any(key.startswith("decoder.") for key in state.tensors)
    with torch.device("meta"):  # nothing is allocated before the file is known to hold what it claims
        skeleton = EcgViT(sizes)
        decoder_sizes = _decoder_sizes(state, options, stated, skeleton) if has_decoder else {}
        empty = EcgDecoder(decoder_sizes) if has_decoder else None
    wanted = _tables(skeleton, "encoder") | _layers(state, skeleton, "vit.encoder.layer", sizes["layer_scale"])
    if empty is not None:
        wanted |= _tables(empty, "decoder")
        wanted |= _layers(state, empty, "decoder.decoder_layers", decoder_sizes["layer_scale"])
    tensors = state.exactly({theirs: shape for _, theirs, shape in _flat(wanted)})
    encoder = EcgViT(sizes)
    _fill(encoder, "encoder", wanted, tensors)
    modules: dict[str, nn.Module] = {"ecg": encoder.eval()}
    dropped = dict(state.dropped)
    n_samples = whole_option(options, "n_samples", encoder.n_samples)
    if n_samples != encoder.n_samples:
        modules["ecg"] = encoder.resized(n_samples).eval()
    if has_decoder and n_samples == encoder.n_samples:
        decoder = EcgDecoder(decoder_sizes)
        _fill(decoder, "decoder", wanted, tensors)
        modules["ecg_decoder"] = decoder.eval()
    elif has_decoder:
        dropped |= {key: "its grid is that of the file's input length" for key in tensors if key.startswith("decoder.")}
    card = Card(
        name=f"ViTMAE of the ECG ({path.stem})",
        stage="masked_ecg",
        license=options["license"] if options["license"] != AUTO else "unknown",
        provenance=unknown_if_auto(options["provenance"]),
        trained_on="the file does not say it; PTACL itself: 27,951 subjects of UK Biobank (arXiv 2506.20683)",
        intended_use=USE,
        limits=LIMITS,
    )
    notes = _notes(sizes, embedding, stated)
    return Converted(modules, card, _pipeline(options["pipeline"], n_samples), None, {}, dropped, notes)


def _stated(path: Path) -> dict[str, Any]:
    """Read config.json beside the file, if it is one of a ViTMAE; the values of other models say nothing here."""
    beside = path.with_name("config.json")
    if not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{beside}: not JSON ({error}); repair or remove it") from None
    kind = str(config.get("model_type", "")).replace("_", "").replace("-", "") if isinstance(config, dict) else ""
    if not kind.startswith("vitmae"):
        return {}
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{beside}: hidden_act is {config['hidden_act']!r}; only the exact gelu is computed here")
    names = {"heads": "num_attention_heads", "decoder_heads": "decoder_num_attention_heads"}
    names["norm_eps"] = "layer_norm_eps"
    found = {ours: config[theirs] for ours, theirs in names.items() if theirs in config}
    wrong = [names[ours] for ours, value in found.items() if not isinstance(value, int | float) or not value > 0]
    if wrong:
        raise ValueError(f"{beside}: {', '.join(wrong)} must be positive numbers")
    return found


def _named(state: State) -> State:
    """Bring both layouts, and the bare encoder, to one set of names."""
    tensors = dict(state.tensors)
    if any(key.startswith("embeddings.") for key in tensors):
        tensors = {key if key.startswith("decoder.") else f"vit.{key}": value for key, value in tensors.items()}
    clash = [key for key in tensors if key in _PLAIN and _PLAIN[key] in tensors]
    if clash:
        raise ValueError(f"{state.file}: {clash[0]} and {_PLAIN[clash[0]]} are the same tensor under two names")
    return replace(state, tensors={_PLAIN.get(key, key): value for key, value in tensors.items()})


def _sizes(state: State, options: Mapping[str, str], stated: Mapping[str, Any], embedding: str) -> dict[str, Any]:
    projection = "vit.embeddings.patch_embeddings.projection.weight"
    width, channels, height, patch = state.shape(projection, 4)
    if channels != 1 or height != 1:
        raise ValueError(
            f"{state.file}: {projection} reads patches of {height} rows and {patch} columns of {channels} channels; an "
            "ECG encoder reads one channel and one lead at a time, (D, 1, 1, P). Weights of an image model do not "
            "become an ECG encoder by ignoring sizes that do not match"
        )
    cls_token = "vit.embeddings.cls_token" in state.tensors
    rows = state.shape("vit.embeddings.position_embeddings", 3)[1] - int(cls_token)
    if rows < 12 or rows % 12:
        raise ValueError(
            f"{state.file}: vit.embeddings.position_embeddings has {rows} rows for patches "
            f"({'after one for' if cls_token else 'there is no'} cls), expected a multiple of 12 leads"
        )
    if embedding == "cls" and not cls_token:
        raise ValueError(f"{state.file}: option embedding=cls, but there is no vit.embeddings.cls_token")
    return {
        "n_samples": rows // 12 * patch,
        "patch": patch,
        "pool": embedding,
        "cls_token": cls_token,
        **_block_sizes(state, "vit.encoder.layer", width, heads_option(options, "heads", width, 64, stated)),
        "norm_eps": number_option(options, "norm_eps", float(stated.get("norm_eps", HUGGING_FACE_EPS))),
    }


def _decoder_sizes(
    state: State, options: Mapping[str, str], stated: Mapping[str, Any], encoder: EcgViT
) -> dict[str, Any]:
    width = state.shape("decoder.decoder_embed.weight", 2)[0]
    heads = heads_option(options, "decoder_heads", width, 32, stated)
    grid = {"encoder_width": encoder.embed_dim, "leads": encoder.leads, "windows": encoder.windows}
    grid |= {"patch": encoder.patch, "cls_token": bool(encoder.prefix), "norm_eps": encoder.config["norm_eps"]}
    return {**grid, **_block_sizes(state, "decoder.decoder_layers", width, heads)}


def _block_sizes(state: State, layers: str, width: int, heads: int) -> dict[str, Any]:
    hidden = state.shape(f"{layers}.0.intermediate.dense.weight", 2)[0]
    ratio = hidden / width
    if int(width * ratio) != hidden:
        raise ValueError(f"{state.file}: {layers}.0.intermediate.dense.weight has {hidden} rows for a width of {width}")
    depth = state.count(layers + ".{}.")
    scaled = any(f"{layers}.0.{name}" in state.tensors for name in _SCALES.values())
    return {"width": width, "depth": depth, "heads": heads, "mlp_ratio": ratio, "layer_scale": scaled}


Wanted = dict[str, list[tuple[str, tuple[int, ...]]]]
"""For each key of a module, after "encoder." or "decoder.", the keys of the file that it is made of, with shapes."""


def _tables(module: EcgViT | EcgDecoder, part: str) -> Wanted:
    """Give what stands outside the blocks."""
    if part == "encoder":
        names = {"pos_embed": "vit.embeddings.position_embeddings", "cls_token": "vit.embeddings.cls_token"}
        names |= _both({"patch_embed.proj": "vit.embeddings.patch_embeddings.projection", "norm": "vit.layernorm"})
    else:
        names = {"pos_embed": "decoder.decoder_position_embeddings", "mask_token": "decoder.mask_token"}
        names |= _both({"embed": "decoder.decoder_embed", "norm": "decoder.decoder_layernorm"})
        names |= _both({"pred": "decoder.decoder_pred"})
    own = module.state_dict()
    return {f"{part}.{ours}": [(theirs, tuple(own[ours].shape))] for ours, theirs in names.items() if ours in own}


def _layers(state: State, module: EcgViT | EcgDecoder, layers: str, scaled: bool) -> Wanted:
    """Give the blocks; q and v may have biases of their own name and k none, or all three plain ones, or nobody any."""
    part, own = "encoder" if layers.startswith("vit.") else "decoder", module.state_dict()
    wanted: Wanted = {}
    scales = _which_scales(state, layers) if scaled else {}
    for i in range(len(module.blocks)):
        plain = _both({f"blocks.{i}.{ours}": f"{layers}.{i}.{theirs}" for ours, theirs in _LAYER.items()})
        plain |= {f"blocks.{i}.{ours}": f"{layers}.{i}.{theirs}" for ours, theirs in scales.items()}
        wanted |= {f"{part}.{ours}": [(theirs, tuple(own[ours].shape))] for ours, theirs in plain.items()}
        attention, width = f"{layers}.{i}.attention.attention.", own[f"blocks.{i}.norm1.weight"].shape[0]
        square, names = (width, width), ("query", "key", "value")
        if f"{attention}q_bias" in state.tensors:
            biases = [f"{attention}q_bias", "", f"{attention}v_bias"]
        elif any(f"{attention}{name}.bias" in state.tensors for name in names):
            biases = [f"{attention}{name}.bias" for name in names]
        else:
            biases = ["", "", ""]
        wanted[f"{part}.blocks.{i}.attn.qkv.weight"] = [(f"{attention}{name}.weight", square) for name in names]
        wanted[f"{part}.blocks.{i}.attn.qkv.bias"] = [(name, (width,)) for name in biases]
    return wanted


def _which_scales(state: State, layers: str) -> dict[str, str]:
    """Tell the factors after attention from those after the MLP; the one of the layer itself is the remaining one."""
    there = "".join(letter for letter, name in _SCALES.items() if f"{layers}.0.{name}" in state.tensors)
    pairs = {"lo": ("l", "o"), "ao": ("a", "o"), "al": ("a", "l")}
    if there not in pairs:
        found = ", ".join(_SCALES[letter] for letter in there)
        raise ValueError(f"{state.file}: {layers}.0 has {found}, expected two layerscale_c, after attention and MLP")
    after_attention, after_mlp = pairs[there]
    return {"ls1.gamma": _SCALES[after_attention], "ls2.gamma": _SCALES[after_mlp]}


def _both(names: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in names.items() for part in ("weight", "bias")}


def _flat(wanted: Wanted) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(ours, theirs, shape) for ours, sources in wanted.items() for theirs, shape in sources if theirs]


def _fill(module: nn.Module, part: str, wanted: Wanted, tensors: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    for name, sources in wanted.items():
        if name.startswith(f"{part}."):
            parts = [tensors[theirs] if theirs else torch.zeros(shape) for theirs, shape in sources]
            own[name.removeprefix(f"{part}.")] = torch.cat(parts) if len(parts) > 1 else parts[0]
    module.load_state_dict(own)


def _pipeline(name: str, n_samples: int) -> EcgPipeline:
    pipeline = named_pipeline(name)
    if n_samples > pipeline.n_samples:
        raise ValueError(
            f"the encoder reads {n_samples} samples, pipeline {name!r} gives {pipeline.n_samples}; choose another with "
            "--option pipeline=NAME, or another length with --option n_samples=N"
        )
    return pipeline


def _notes(sizes: Mapping[str, Any], embedding: str, stated: Mapping[str, Any]) -> tuple[str, ...]:
    eps = f"LayerNorm eps is {sizes['norm_eps']:g}"
    where = "as config.json says" if "norm_eps" in stated else "Hugging Face's default, unless you gave it"
    ways = {
        "norm_mean": "the closing norm on all tokens, then the mean of the patches (what Hugging Face's "
        "last_hidden_state gives); the paper does not say which one it used",
        "cls": "the closing norm, then token 0",
        "mean": "the mean of the patches, then a LayerNorm without weights",
        "pre_norm": "the mean of the patches before any norm",
    }
    return (
        f"{eps} ({where}); {sizes['heads']} attention heads: no file of weights holds either.",
        f"The embedding is {ways[embedding]}.",
        "How the original's ECGs were prepared is not published: the pipeline of this folder is an assumption.",
        *(["There is no cls token, and the position table has no row for it."] if not sizes["cls_token"] else []),
    )
