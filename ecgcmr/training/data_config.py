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
        views: Views that a study must have, prepared alike; with more than one, a batch holds (B, V, C, H, W).
    """

    pipeline: str = "three_frames"
    crop_mm: float | None = Field(default=None, gt=0)
    size: int | None = Field(default=None, gt=0)
    slices: int | None = Field(default=None, gt=0)
    frames: int | None = Field(default=None, gt=0)
    views: tuple[str, ...] = Field(default=("sax",), min_length=1)

    def study_shape(self, prepared: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a study in a batch, from that of one prepared view."""
        return prepared if len(self.views) == 1 else (len(self.views), *prepared)


class CohortSource(StrictConfig):
    """One of several cohorts that a run learns from.

    Attributes:
        cohort: Folder of the cohort.
        split: Name of one of its splits.
        weight: Its part of every epoch, relative to the weights of the others; set it for all sources or for none.
            Without, each item of all sources comes once an epoch, so that a source counts by its size.
        name: What logs and cards call it; None takes the name of the cohort.
        val: Whether its validation subjects are evaluated.
    """

    cohort: str
    split: str = "default"
    weight: float | None = Field(default=None, gt=0)
    name: str | None = Field(default=None, min_length=1)
    val: bool = True


class DataConfig(StrictConfig):
    """What the run learns from.

    Attributes:
        cohort: Folder of a cohort; None where `sources` names several.
        split: Name of one of its splits; training and validation subjects come from there.
        sources: Several cohorts instead of one, each with its split. Limits of subjects, groups and labels are those of
            all of them together; one person in two cohorts counts as two.
        labels: Names of the labels to learn, in the order of the outputs. A category gives one output for each of its
            values, by softmax; NAME=VALUE is the binary label of one of them.
        tabular: Columns of subjects.parquet, and regression and binary labels, that are inputs beside the signal (age,
            sex, ...); standardized over the training subjects, missing values allowed. No label can be both.
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

    cohort: str | None = None
    split: str = "default"
    sources: tuple[CohortSource, ...] = ()
    ecg: EcgData = EcgData()
    cmr: CmrData = CmrData()
    labels: tuple[str, ...] = ()
    tabular: tuple[str, ...] = ()
    train_subjects: int | None = Field(default=None, gt=0)
    train_share: float | None = Field(default=None, gt=0, le=1)
    undersample: str | None = None
    val_subjects: int | None = Field(default=None, gt=0)
    draw_seed: int = Field(default=0, ge=0)
    group: str | None = None
    balance: float = Field(default=0.0, ge=0, le=1)
    weight: str | None = None

    @model_validator(mode="after")
    def _one_or_several(self) -> DataConfig:
        if self.sources and (self.cohort is not None or self.split != "default"):
            raise ValueError("sources names its own cohorts and splits; leave cohort and split out (data.cohort=null)")
        if not self.sources and self.cohort is None:
            raise ValueError(
                "cohort is missing: name a folder of a cohort, data.cohort=..., or several in data.sources"
            )
        weighed = [source.weight is not None for source in self.sources]
        if any(weighed) and not all(weighed):
            raise ValueError("sources: some have a weight and some have none; set it for all of them, or for none")
        if any(weighed) and (self.balance or self.weight is not None):
            raise ValueError("the weights of sources make the order; they do not go together with balance or weight")
        return self

    @model_validator(mode="after")
    def _no_leak(self) -> DataConfig:
        both = sorted(set(self.tabular) & set(self.labels))
        if both:
            raise ValueError(f"tabular names {', '.join(both)}, which labels names too: a target cannot be an input")
        if len(set(self.tabular)) < len(self.tabular):
            raise ValueError(f"tabular names a column more than once: {', '.join(self.tabular)}")
        return self

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
