"""Configurations of the models: strict, frozen, and free of torch so that reading a run file stays cheap.

Sizes that a preset fixes may be left out; the resolved configuration always holds them, so that a weights folder
rebuilds the same module even if a preset changes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from ecgcmr.cohort.tabular import TabularColumn
from ecgcmr.models.presets import DECODER_PRESETS, ECG_PRESETS, preset_sizes

LabelKind = Literal["regression", "binary"]
Pool = Literal["mean", "attention", "query", "cls", "pre_norm", "norm_mean"]


class StrictConfig(BaseModel):
    """A frozen configuration that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _fill_from_preset(data: Any, table: dict[str, dict[str, int]], default: str, what: str) -> Any:
    """Add the sizes of the preset to those that were given; given values win, None counts as not given."""
    if not isinstance(data, Mapping):
        return data
    given = {key: value for key, value in data.items() if value is not None}
    sizes = preset_sizes(table, given.get("preset", default), what)
    return {**sizes, **given}


def check_heads(width: int, heads: int, multiple: int = 4) -> None:
    """Refuse a width that the heads, or the position codes, cannot share."""
    if width % heads:
        raise ValueError(
            f"width {width} is not divisible by heads {heads}; choose heads among the divisors of the width"
        )
    if width % multiple:
        raise ValueError(f"width {width} must be a multiple of {multiple}, which the sin-cos position table needs")


def check_patches(n_samples: int | None, patch: int) -> None:
    """Refuse an input that is no whole number of patches."""
    if n_samples is not None and n_samples % patch:
        raise ValueError(
            f"n_samples {n_samples} is not a multiple of patch {patch}; "
            f"crop to {n_samples // patch * patch} samples or choose another patch"
        )


class EcgEncoderConfig(StrictConfig):
    """The ECG transformer.

    Attributes:
        preset: Name in `ECG_PRESETS`; gives width, depth, heads and patch where these are not set.
        n_samples: Input length in samples; None in a run file (it follows from the data), set in a built module.
        patch: Length of a patch [samples] along time; a patch never spans two leads.
        pool: mean (patch tokens, then fc_norm), attention (one mean query, then fc_norm), query (one learned query,
            then fc_norm), cls (norm, token 0), pre_norm (mean of patch tokens and no norm) or norm_mean (norm on all
            tokens, then mean of patch tokens).
        drop_path: Stochastic depth of the last block, linear over depth from 0.
        learn_positions: Train the position table, which starts as sin-cos (the reference's alignment stage did).
        norm_eps: Of every LayerNorm.
        layer_scale: Scale both branches of every block by learned factors (arXiv 2103.17239).
        cls_token: Whether a cls token goes before the patches; without it, the position table has no row for it.
    """

    kind: Literal["ecg_vit"] = "ecg_vit"
    preset: str = "tiny"
    n_samples: int | None = Field(default=None, gt=0)
    leads: int = Field(default=12, gt=0)
    patch: int = Field(default=100, gt=0)
    width: int = Field(default=384, gt=0)
    depth: int = Field(default=3, gt=0)
    heads: int = Field(default=6, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    pool: Pool = "mean"
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    learn_positions: bool = False
    norm_eps: float = Field(default=1e-6, gt=0)
    layer_scale: bool = False
    cls_token: bool = True

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        return _fill_from_preset(data, ECG_PRESETS, "tiny", "ECG encoder")

    @model_validator(mode="after")
    def _consistent(self) -> EcgEncoderConfig:
        check_heads(self.width, self.heads)
        if self.pool == "cls" and not self.cls_token:
            raise ValueError("pool 'cls' needs cls_token True; choose pool 'mean' or 'attention'")
        check_patches(self.n_samples, self.patch)
        return self


class EcgDecoderConfig(StrictConfig):
    """The decoder of the masked autoencoder; leads, patch, input length and cls_token come from the encoder."""

    kind: Literal["ecg_decoder"] = "ecg_decoder"
    preset: str = "tiny"
    width: int = Field(default=256, gt=0)
    depth: int = Field(default=2, gt=0)
    heads: int = Field(default=8, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    encoder_width: int | None = Field(default=None, gt=0)
    leads: int | None = Field(default=None, gt=0)
    windows: int | None = Field(default=None, gt=0)
    patch: int | None = Field(default=None, gt=0)
    norm_eps: float = Field(default=1e-6, gt=0)
    layer_scale: bool = False
    cls_token: bool = True

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        return _fill_from_preset(data, DECODER_PRESETS, "tiny", "ECG decoder")

    @model_validator(mode="after")
    def _consistent(self) -> EcgDecoderConfig:
        check_heads(self.width, self.heads)
        return self


class CineConfig(StrictConfig):
    """Sizes of the cine transformer (used when the CMR encoder's name is `cine_transformer`)."""

    width: int = Field(default=192, gt=0)
    depth: int = Field(default=3, gt=0)
    heads: int = Field(default=6, gt=0)
    stem: int = Field(default=32, gt=0, multiple_of=8)

    @model_validator(mode="after")
    def _consistent(self) -> CineConfig:
        check_heads(self.width, self.heads, multiple=8)
        return self


class CmrEncoderConfig(StrictConfig):
    """The CMR encoder.

    Attributes:
        name: A timm model name (resnet10t, resnet18, resnet50, ...) or `cine_transformer`.
        in_channels: Channels of a timm model (slices times frames); None in a run file, set in a built module.
        timm_args: Further arguments of `timm.create_model`, for instance {"channels": [32, 64, 128, 256]}, which makes
            a ResNet of half the width.
        centered: Whether a timm model sees the input moved from [0, 1] to [-1, 1]; the reference's sees it as it is.
        channels_last: Memory layout of a timm model's weights and input; faster for convolutions.
        pretrained: Start a timm model from its published weights (needs the network; never in tests).
    """

    kind: Literal["cmr_encoder"] = "cmr_encoder"
    name: str = "resnet50"
    in_channels: int | None = Field(default=None, gt=0)
    timm_args: dict[str, Any] = Field(default_factory=dict)
    centered: bool = True
    channels_last: bool = True
    pretrained: bool = False
    cine: CineConfig = CineConfig()


class ProjectionConfig(StrictConfig):
    """The projection head of either modality: Linear, ReLU, Linear (reference: 2048 hidden, 128 out, no BatchNorm)."""

    kind: Literal["projection_head"] = "projection_head"
    in_features: int | None = Field(default=None, gt=0)
    hidden: int = Field(default=2048, gt=0)
    out: int = Field(default=128, gt=0)
    batch_norm: bool = False


class NormProjectionConfig(StrictConfig):
    """A projection head of LayerNorm, Dropout and one linear layer (CARDIAC-FM: 512 out)."""

    kind: Literal["norm_projection"] = "norm_projection"
    in_features: int = Field(gt=0)
    out: int = Field(default=512, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class TabularConfig(StrictConfig):
    """The encoder of tabular inputs: one hidden layer over features and masks.

    Attributes:
        columns: What the features are; empty in a run file (they follow from data.tabular), set in a built module.
        hidden: Width of the hidden layer.
        width: Width of the embedding.
        dropout: Share of hidden units left out in training.
    """

    kind: Literal["tabular_encoder"] = "tabular_encoder"
    columns: tuple[TabularColumn, ...] = ()
    hidden: int = Field(default=64, gt=0)
    width: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class HeadLabel(StrictConfig):
    """One output of a prediction head.

    Attributes:
        name: Name of the label.
        kind: regression or binary.
        unit: Unit of a regression label.
        one_of: Name of the category that a binary label is a value of. Labels of one category exclude each other: the
            softmax over them gives their probabilities. Empty for a label that stands for itself.
    """

    name: str
    kind: LabelKind
    unit: str = ""
    one_of: str = ""

    @model_validator(mode="after")
    def _category(self) -> HeadLabel:
        if self.one_of and self.kind != "binary":
            raise ValueError(f"label {self.name!r} is a value of {self.one_of!r}: its kind must be binary")
        return self

    @model_serializer(mode="wrap")
    def _short(self, plain: Any) -> dict[str, Any]:
        """Leave `one_of` out where it says nothing: weights written before it was there stay the same."""
        written: dict[str, Any] = plain(self)
        return written if self.one_of else {key: value for key, value in written.items() if key != "one_of"}


class HeadConfig(StrictConfig):
    """The prediction head: one linear layer, or one hidden layer where `hidden` is set."""

    kind: Literal["prediction_head"] = "prediction_head"
    in_features: int | None = Field(default=None, gt=0)
    hidden: int | None = Field(default=None, gt=0)
    labels: tuple[HeadLabel, ...] = ()


class ClassHeadConfig(StrictConfig):
    """A linear head over classes that exclude each other, of which the softmax gives the probabilities."""

    kind: Literal["class_head"] = "class_head"
    in_features: int = Field(gt=0)
    labels: tuple[HeadLabel, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _classes(self) -> ClassHeadConfig:
        wrong = [label.name for label in self.labels if label.kind != "binary"]
        if wrong:
            raise ValueError(f"labels {', '.join(wrong)} of a class head must be of kind binary: they are its classes")
        return self


class ModelConfig(StrictConfig):
    """All modules of a run; an objective builds those that it uses."""

    ecg: EcgEncoderConfig = Field(default_factory=lambda: EcgEncoderConfig())
    cmr: CmrEncoderConfig = CmrEncoderConfig()
    projection: ProjectionConfig = ProjectionConfig()
    head: HeadConfig = HeadConfig()
    tabular: TabularConfig = TabularConfig()
