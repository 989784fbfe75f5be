"""The formats of `ecgcmr weights convert --from`, as data: what each is, its options, and who converts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AUTO = "auto"


@dataclass(frozen=True)
class Option:
    """An option of a format.

    Attributes:
        default: As it would be typed; "auto" where the file or a table decides.
        about: What it decides, with the values it takes.
    """

    default: str
    about: str


@dataclass(frozen=True)
class Format:
    """One layout of third-party weights.

    Attributes:
        converter: "module:function" in this package; the function is a `Converter`.
        about: One line for people.
        options: By name.
        has: Regular expressions, each of which some key of the state dict matches from its begin (for `detect`).
        lacks: Regular expressions that no key matches.
    """

    converter: str
    about: str
    options: Mapping[str, Option] = field(default_factory=dict)
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


_ECG = {
    "heads": Option(AUTO, "attention heads, which no file holds; auto: from the table of published sizes, else D/64"),
    "n_samples": Option(AUTO, "input length [samples]; auto: as in the file; else pos_embed is interpolated (bicubic)"),
    "pipeline": Option("reference", "named ECG pipeline that prepares the input; see `ecgcmr.ecg.preprocessing`"),
    "rate_hz": Option(AUTO, "sampling rate of the input [Hz]; auto: that of the pipeline"),
}
_POSITIONS = {
    "positions": Option("check", "check: refuse a pos_embed that is not the sin-cos table; keep: take any, with a note")
}
_ABOUT_THEM = {
    "license": Option(AUTO, "license of these weights; auto: that of the code they were trained with"),
    "provenance": Option(AUTO, "what data they were trained on, for the card; auto: unknown"),
}
_DECODER = {
    "decoder": Option(AUTO, "auto: keep it where the file has one; drop"),
    "decoder_heads": Option(AUTO, "attention heads of the decoder; auto: from the table of published sizes"),
}
_AFTER_ALIGNMENT = {
    **_ECG,
    "embedding": Option("mean", "mean (of patches, then LayerNorm without weights), pre_norm (mean alone), cls"),
}
_MASKED = {
    **_ECG,
    **_POSITIONS,
    "embedding": Option("norm_mean", "norm_mean (norm on all tokens, then mean of patches), cls, mean, pre_norm"),
}
_HEAD = {
    "task": Option(AUTO, "classification (softmax over the outputs) or regression; auto: classification if 2 outputs"),
    "labels": Option(AUTO, "names of the outputs in order, NAME or NAME:UNIT, by commas"),
    "mean": Option(AUTO, "regression: means of the training targets, by commas; auto: 0, predictions stay z-scores"),
    "std": Option(AUTO, "regression: standard deviations of the training targets, by commas; auto: 1"),
}
_VIT = (r"cls_token$", r"pos_embed$", r"patch_embed\.proj\.weight$", r"blocks\.0\.attn\.qkv\.weight$")
_TUNED = (r"fc_norm\.", r"attention_pool\.", r"head\.")
_PRETRAINING = (r"mask_token$", r"decoder_", r"projector\.", r"predictor\.")
_IMAGE = (r"(encoder_imaging\.)?0\.weight$", r"(encoder_imaging\.)?7\.2\.conv3\.weight$")

FORMATS: dict[str, Format] = {
    "signal_encoder_mdm": Format(
        "mae:convert_mdm",
        "oetu/MMCL-ECG-CMR: ECG encoder after masked data modelling",
        {**_MASKED, **_DECODER},
        _VIT,
        _TUNED,
    ),
    "signal_encoder_mmcl": Format(
        "turgut_signal:convert_mmcl",
        "oetu/MMCL-ECG-CMR: ECG encoder after masked data modelling and alignment with CMR",
        _AFTER_ALIGNMENT,
        _VIT,
        _TUNED + _PRETRAINING,
    ),
    "signal_encoder_mmcl_wo_mdm": Format(
        "turgut_signal:convert_mmcl_wo_mdm",
        "oetu/MMCL-ECG-CMR: ECG encoder after alignment with CMR alone",
        _AFTER_ALIGNMENT,
        _VIT,
        _TUNED + _PRETRAINING,
    ),
    "image_encoder_mmcl": Format(
        "turgut_image:convert_mmcl", "oetu/MMCL-ECG-CMR: CMR encoder (ResNet-50) after alignment", {}, _IMAGE
    ),
    "image_encoder_mmcl_wo_mdm": Format(
        "turgut_image:convert_mmcl_wo_mdm",
        "oetu/MMCL-ECG-CMR: CMR encoder (ResNet-50) after alignment, ECGs without masked data modelling",
        {},
        _IMAGE,
    ),
    "image_encoder_simclr": Format(
        "turgut_image:convert_simclr", "oetu/MMCL-ECG-CMR: CMR encoder (ResNet-50) after SimCLR alone", {}, _IMAGE
    ),
    "mae": Format(
        "mae:convert_mae",
        "oetu/mae: raw checkpoint of a masked autoencoder of the ECG, any size, with or without decoder",
        {**_MASKED, **_DECODER, **_ABOUT_THEM},
        _VIT,
        _TUNED,
    ),
    "mae_finetuned": Format(
        "finetuned:convert_finetuned",
        "oetu/mae: fine-tuned encoder with its head (attention, mean or cls pooling; fc_norm before the head again)",
        {**_ECG, **_HEAD, **_ABOUT_THEM},
        (*_VIT, r"head\.weight$"),
        _PRETRAINING,
    ),
    "eccl": Format(
        "ding:convert_eccl",
        "Yukui-1999/ECCL and Yukui-1999/ECG-CMR (CardiacNets): the ECG tower of an alignment checkpoint",
        {
            **_ECG,
            **_ABOUT_THEM,
            "pipeline": Option("eccl", "named ECG pipeline that prepares the input; eccl: as near as is known"),
            "embedding": Option("cls", "cls (norm, token 0), norm_mean, mean, pre_norm"),
        },
        tuple(r"ECG_encoder\." + key for key in _VIT),
    ),
    "myoecg": Format(
        "myoecg:convert_myoecg",
        "Yukui1999/MyoECG: ECG encoder in the layout of ST-MEM, with its head where it was fine-tuned",
        {
            "heads": Option(AUTO, "attention heads, which no file holds; auto: D/64"),
            "crop": Option("center", "which of the three crops of 9 s the pipeline prepares: start, center or end"),
            "separator_leads": Option("true", "whether separators carry the embedding of their lead: true or false"),
            "label": Option("cardiomyopathy", "name of the head's output"),
            **_ABOUT_THEM,
        },
        (r"pos_embedding$", r"sep_embedding$", r"lead_embeddings\.0$", r"block0\.attn\.fn\.to_qkv\.weight$"),
    ),
    "vitmae": Format(
        "vitmae:convert_vitmae",
        "Hugging Face ViTMAE of the ECG (PTACL, alsalivan/vitmae-ecg): encoder, and decoder where the file has it",
        {
            "heads": Option(AUTO, "attention heads; auto: from config.json beside the file, else D/64"),
            "decoder_heads": Option(AUTO, "of the decoder; auto: from config.json beside the file, else D/32"),
            "norm_eps": Option(AUTO, "eps of every LayerNorm; auto: from config.json beside the file, else 1e-12"),
            "decoder": Option(AUTO, "auto: keep it where the file has one; drop"),
            "n_samples": Option(AUTO, "input length [samples]; auto: as in the file; else positions are interpolated"),
            "pipeline": Option("reference", "named ECG pipeline that prepares the input; the original's is unknown"),
            "embedding": _MASKED["embedding"],
            **_ABOUT_THEM,
        },
        (
            r"(vit\.)?embeddings\.patch_embeddings\.projection\.weight$",
            r"(vit\.)?encoder\.layer\.0\.layernorm_before\.weight$",
        ),
    ),
    "cardiac_fm": Format(
        "cardiac_fm:convert_cardiac_fm",
        "lst627/CARDIAC-FM: ECG tower (ECG-FM) and both projection heads of the alignment checkpoint",
        {
            "heads": Option(AUTO, "attention heads, which no file holds; auto: D/64"),
            "n_samples": Option("5000", "input length [samples at 500 Hz]"),
            "unit_mv": Option("0.005", "what one unit of the original's input is [mV]"),
            "baseline": Option("highpass", "highpass (0.5 Hz, in place of the original's LOWESS) or none"),
            **_ABOUT_THEM,
        },
        (r"ecg_encoder\.feature_extractor\.", r"ecg_projection\.2\.weight$", r"mri_projection\.2\.weight$"),
    ),
}
