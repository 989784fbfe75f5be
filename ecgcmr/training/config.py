"""The run file: a typed tree whose every key is known, read from YAML and changed by KEY=VALUE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ecgcmr.config_errors import explain
from ecgcmr.hub.folder import write_text
from ecgcmr.models.config import ModelConfig, StrictConfig
from ecgcmr.objectives.registry import ObjectiveConfig
from ecgcmr.training.data_config import CmrData, DataConfig, EcgData
from ecgcmr.training.probe import ProbeConfig

__all__ = [
    "CmrData",
    "DataConfig",
    "EcgData",
    "InitConfig",
    "OptimConfig",
    "ProbeConfig",
    "RunConfig",
    "TrainConfig",
    "check_config",
    "load_config",
    "save_config",
]


class InitConfig(StrictConfig):
    """Weights to start from.

    Attributes:
        ecg: Weights folder that holds the ECG encoder; None starts from random weights.
        cmr: Weights folder that holds the CMR encoder; None starts from random weights.
        decoder: Masked modelling goes on with the decoder of the folder `ecg` too, if it has one of the same shape.
        allow_other_pipeline: Accept weights that were trained on data prepared in another way than this run's.
        allow_other_split: Accept weights that were trained with another split of the same cohort, whose training
            subjects may be this run's test subjects.
        fresh_fc_norm: Start the norm behind the ECG pooling afresh: the reference's files lack it.
    """

    ecg: str | None = None
    cmr: str | None = None
    decoder: bool = True
    allow_other_pipeline: bool = False
    allow_other_split: bool = False
    fresh_fc_norm: bool = False


class OptimConfig(StrictConfig):
    """The optimizer and its schedule.

    Attributes:
        name: adamw (decoupled weight decay) or adam (L2 term in the gradient, as the reference's alignment).
        lr: Learning rate, or the base of the rule.
        lr_rule: absolute takes `lr` as it is; batch_over_4 is the reference's rule lr * global batch / 4.
        betas: Moments of Adam.
        weight_decay: Decay of weight matrices; biases, norms, tokens and position codes are exempt.
        decay_all: Decay those too (the reference's alignment does).
        decay_tokens: Decay tokens and learned position codes, but not what has one dimension (the reference's masked
            autoencoder does).
        schedule: Renew the learning rate at each iteration, or at each epoch: then the first epoch has rate 0 and the
            last of the warm-up the highest (LinearWarmupCosineAnnealing, which the reference's alignment takes).
        warmup_epochs: Linear warm-up from 0, in epochs; fractions are allowed.
        min_lr: Where the half-cycle cosine ends.
        layer_decay: Factor of the learning rate from one layer of an encoder to the one before it.
        lr_multipliers: Factor of the learning rate of a part, which is named as it is exported (ecg, cmr, head, ...) or
            by the beginning of its parameters' names; the longest name decides. 0 freezes it. For instance
            {cmr: 0.1}; it multiplies layer_decay.
        clip_grad: Largest norm of the gradient; None does not clip.
    """

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    lr_rule: Literal["absolute", "batch_over_4"] = "absolute"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_all: bool = False
    decay_tokens: bool = False
    schedule: Literal["iteration", "epoch"] = "iteration"
    warmup_epochs: float = Field(default=0.0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    lr_multipliers: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    clip_grad: float | None = Field(default=1.0, gt=0)


def _yaml_no(value: Any) -> Any:
    """YAML reads an unquoted `no` as false."""
    return "no" if value is False else value


class TrainConfig(StrictConfig):
    """The loop.

    Attributes:
        epochs: Passes over the training subjects.
        max_steps: Stop after this many optimizer steps, if that comes earlier; the schedule ends there.
        batch_size: Samples of each process and step.
        micro_batches: Pieces in which a process computes its samples, to fit into memory: loss and gradient stay those
            of the whole batch, for one more forward pass.
        micro_batch_norm: Accept that BatchNorm takes the statistics of a piece, not of the whole batch.
        eval_batch_size: Samples that a process computes at once in evaluation, which changes no value (at most 128 are
            used, and powers of two); None is `batch_size`.
        processes: Processes that must have started; None accepts what the launcher started.
        threads: Threads of each process on the CPU; None keeps what torch or the launcher chose.
        precision: auto (measured on this machine), bf16 or no (float32).
        products: measured takes faster float32 products where their error is that of float32; exact changes nothing.
        log_every: Steps between rows of metrics.jsonl; None writes one row for each epoch.
        eval_every: Epochs between evaluations on the validation subjects.
        label_metrics: Compute r and AUROC of the labels at each evaluation, where the objective predicts labels.
        monitor: Which validation value decides: `loss`, or the name of a metric (`r`, `auroc`, ...).
        mode: Whether a smaller (min) or larger (max) value is better.
        patience: Evaluations in a row that may be worse than the best by more than `max_delta`; None never stops.
        max_delta: That tolerance, in the unit of the value.
        max_nonfinite: Steps in a row skipped for a loss or gradient that is not finite before the run stops.
        save_seconds: Least time between two checkpoints [s]; 0 writes one after each evaluation.
        keep_every: Epochs between checkpoints that stay beside the last and the best one; None keeps none.
        keep: How many of those stay, the newest.
        async_save: Write checkpoints in a background thread, from a copy of the state in the memory of the host: a
            step is held up for the copy only.
        ema_decay: Decay of an exponential moving average of the weights, for instance 0.999, which is evaluated and
            exported instead of them; None keeps none.
        ema_warmup: Begin it with min(ema_decay, (1 + t) / (10 + t)) at update t, which forgets the first weights fast.
        grad_checkpointing: Compute the layers of encoders and decoder once more in the backward pass instead of keeping
            what is in them: less memory, about a third more time, the same gradient.
        timeout_seconds: How long a process waits for the others before it ends with an error [s]; longer than the
            longest that one process alone is busy, for instance writing a checkpoint.
        trackers: Names that accelerate knows (tensorboard, wandb, ...); none by default.
    """

    epochs: int = Field(default=100, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, gt=0)
    micro_batches: int = Field(default=1, gt=0)
    micro_batch_norm: bool = False
    eval_batch_size: int | None = Field(default=None, gt=0)
    processes: int | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, gt=0)
    precision: Annotated[Literal["auto", "bf16", "no"], BeforeValidator(_yaml_no)] = "auto"
    products: Literal["exact", "measured"] = "exact"
    log_every: int | None = Field(default=None, gt=0)
    eval_every: int = Field(default=1, gt=0)
    label_metrics: bool = True
    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = Field(default=None, ge=0)
    max_delta: float = Field(default=0.0, ge=0)
    max_nonfinite: int = Field(default=10, ge=0)
    save_seconds: float = Field(default=60.0, ge=0)
    keep_every: int | None = Field(default=None, gt=0)
    keep: int = Field(default=3, gt=0)
    async_save: bool = True
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    ema_warmup: bool = True
    grad_checkpointing: bool = False
    timeout_seconds: float = Field(default=600.0, gt=0)
    trackers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _better_is_known(self) -> TrainConfig:
        # The wrong direction would keep the worst weights of the run, and nobody would notice.
        better = _better(self.monitor)
        if better is not None and better != self.mode:
            raise ValueError(
                f"monitor={self.monitor} is better when it is {'larger' if better == 'max' else 'smaller'}, "
                f"but mode={self.mode}; set train.mode={better}"
            )
        return self


def _better(monitor: str) -> Literal["min", "max"] | None:
    """Whether a smaller or a larger value is better, for the names that are known; None for others."""
    kind = monitor.partition("_")[0]
    if kind in ("loss", "mse") or monitor.endswith("_loss"):
        return "min"
    return "max" if kind in ("r", "auroc", "ncc", "c") or monitor.endswith(("top1", "top5")) else None


class RunConfig(StrictConfig):
    """One run, complete.

    Attributes:
        name: Name of the run and of the weights that it exports.
        seed: Decides initial weights, order of samples, augmentations, masks and dropout.
        out: The run folder; None is `runs/<name>`.
        license: License of the exported weights; None is MIT for simulated data and "not stated" for any other.
        data, model, objective, init, optim, train: The parts.
        probe: LP-FT: train the head alone first (`ecgcmr.training.probe`); None does not.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    out: str | None = None
    license: str | None = None
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig
    init: InitConfig = InitConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    probe: ProbeConfig | None = None

    @model_validator(mode="after")
    def _labels_once(self) -> RunConfig:
        repeated = sorted({name for name in self.data.labels if self.data.labels.count(name) > 1})
        if repeated:
            raise ValueError(f"data.labels names {', '.join(repeated)} more than once")
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out) if self.out else Path("runs") / self.name

    def with_values(self, **dotted: Any) -> RunConfig:
        """Give a copy with other values: `config.with_values(**{"train.precision": "no"})`; checked like a file."""
        tree = self.model_dump(mode="json")
        for key, value in dotted.items():
            *path, last = key.split(".")
            node = tree
            for part in path:
                node = node[part]
            node[last] = value
        return check_config(tree, "with_values()")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file and apply KEY=VALUE.

    Args:
        path: YAML file.
        overrides: For instance `train.epochs=5`, `data.labels=[lvef,lvm]`, `init.ecg=null`; values are read as YAML.

    Returns:
        The checked configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not YAML, a key is unknown (the message has the nearest valid name) or a value has
            the wrong type or range (the message has field, value and what was expected).
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such run file; complete ones are in configs/pretrain and configs/finetune")
    try:
        file = OmegaConf.load(path)
        if not OmegaConf.is_dict(file):
            raise ValueError(f"{path}: expected keys and values at the top, found {type(file).__name__}")
        given = OmegaConf.from_dotlist([_checked_override(text) for text in overrides])
        merged = OmegaConf.to_container(OmegaConf.merge(file, given), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{path}: cannot be read as a run file: {' '.join(str(error).split())}") from None
    assert isinstance(merged, dict)
    tree = {str(key): value for key, value in merged.items()}
    return check_config(tree, str(path), OmegaConf.to_container(given))


def check_config(tree: Mapping[str, Any], source: str, overridden: Any = None) -> RunConfig:
    """Turn plain values into a `RunConfig`.

    Args:
        tree: Values as read.
        source: The file, for messages.
        overridden: The part that came as KEY=VALUE, for messages.

    Raises:
        ValueError: As `load_config`.
    """
    try:
        return RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        raise ValueError(explain(error, RunConfig, tree, source, overridden or {})) from None


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back to an equal one; whole or not at all."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _checked_override(text: str) -> str:
    key, separator, _ = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"{text!r} is not KEY=VALUE, for instance train.epochs=5")
    return text
