"""The part of a run file that says what the run learns from."""

from __future__ import annotations

from pydantic import Field, model_validator

from ecgcmr.models.config import StrictConfig


class EcgData(StrictConfig):
    """How ECGs are prepared.

    Attributes:
        pipeline: Name of an ECG pipeline (`ecgcmr.ecg.preprocessing.named_pipeline`).
        crop_samples: Input length of the model [samples at the pipeline's rate]: a random window in training, the
            first samples in evaluation; None takes the whole prepared recording.
    """

    pipeline: str = "highpass"
    crop_samples: int | None = Field(default=None, gt=0)


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
        labels: Names of the labels to learn, in the order of the outputs.
        train_subjects: How many training subjects to use; None takes all. Smaller draws are nested in larger ones.
        val_subjects: How many validation subjects to use; None takes all.
        draw_seed: Which subjects `train_subjects` takes.
        group: Column of subjects.parquet that becomes the group of a sample, for instance sex.
        balance: How far groups are balanced in training: 0 as they are, 1 all alike, 0.5 in between.
        weight: Column of subjects.parquet by whose values samples are drawn.
    """

    cohort: str
    split: str = "default"
    ecg: EcgData = EcgData()
    cmr: CmrData = CmrData()
    labels: tuple[str, ...] = ()
    train_subjects: int | None = Field(default=None, gt=0)
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
