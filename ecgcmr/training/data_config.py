"""The part of a run file that says what the run learns from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ecgcmr.models.config import StrictConfig


class EcgData(StrictConfig):
    """How ECGs are prepared.

    Attributes:
        pipeline: Name of an ECG pipeline (`ecgcmr.ecg.preprocessing.named_pipeline`).
        crop_samples: Input length of the model [samples at the pipeline's rate]: a random window in training, the
            first samples in evaluation; None takes the whole prepared recording.
        dtype: How prepared ECGs are kept on disk: float16 (relative error 5e-4, half the size) or float32.
    """

    pipeline: str = "highpass"
    crop_samples: int | None = Field(default=None, gt=0)
    dtype: Literal["float16", "float32"] = "float16"


class CmrData(StrictConfig):
    """How cines are prepared; None keeps the value of the named pipeline.

    Attributes:
        pipeline: Name of a CMR pipeline (`ecgcmr.cmr.preprocessing.named_pipeline`).
        crop_mm: Side of the square that is cropped around the heart [mm].
        size: Side of the prepared image [pixels].
        slices: Number of slices (pipeline "cine").
        frames: Number of frames (pipeline "cine").
    """

    pipeline: str = "three_frames"
    crop_mm: float | None = Field(default=None, gt=0)
    size: int | None = Field(default=None, gt=0)
    slices: int | None = Field(default=None, gt=0)
    frames: int | None = Field(default=None, gt=0)


class DataConfig(StrictConfig):
    """What the run learns from.

    Attributes:
        cohort: Folder of a cohort.
        split: Name of one of its splits; training and validation subjects come from there.
        labels: Names of the labels to learn, in the order of the outputs. A category gives one output for each of its
            values, by softmax; NAME=VALUE is the binary label of one of them.
        train_subjects: How many training subjects to use; None takes all. Smaller draws are nested in larger ones.
        train_share: The same as a share of them; 0.1 and 0.01 are the low-data protocols of arXiv 2308.05764.
        undersample: A binary label: training takes as many subjects without it as with it, and those of whom it is
            not known are left out. Validation and test keep their prevalence.
        val_subjects: How many validation subjects to use; None takes all.
        draw_seed: Which subjects `train_subjects`, `train_share` and `undersample` take.
        group: Column of subjects.parquet, or binary or category label, that becomes the group of a sample.
        balance: How far groups are balanced in training: 0 as they are, 1 all alike, 0.5 in between. With a label as
            the group this is the sampler against class imbalance.
        weight: Column of subjects.parquet by whose values samples are drawn.
    """

    cohort: str
    split: str = "default"
    ecg: EcgData = EcgData()
    cmr: CmrData = CmrData()
    labels: tuple[str, ...] = ()
    train_subjects: int | None = Field(default=None, gt=0)
    train_share: float | None = Field(default=None, gt=0, le=1)
    undersample: str | None = None
    val_subjects: int | None = Field(default=None, gt=0)
    draw_seed: int = Field(default=0, ge=0)
    group: str | None = None
    balance: float = Field(default=0.0, ge=0, le=1)
    weight: str | None = None

    @model_validator(mode="after")
    def _one_order(self) -> DataConfig:
        if self.balance and (self.group is None or self.weight is not None):
            raise ValueError("balance needs group, the column to balance, and does not go together with weight")
        return self

    @model_validator(mode="after")
    def _one_limit(self) -> DataConfig:
        if self.train_subjects is not None and self.train_share is not None:
            raise ValueError("train_subjects and train_share both limit the training subjects; set one of them")
        return self
