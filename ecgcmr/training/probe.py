"""LP-FT: first a linear probe of the head on the frozen encoder, then all weights from that head on.

Fine-tuning from a fresh head moves the features before the head knows what to ask of them, and predicts worse away from
the training data than a head that was fitted first (arXiv 2202.10054). Two runs, one after the other: the probe is a
whole run folder `probe/` inside the run's, so both can be resumed, looked at and used by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ecgcmr.hub.weights import load_weights
from ecgcmr.models.config import StrictConfig
from ecgcmr.objectives.base import Objective

if TYPE_CHECKING:
    from ecgcmr.training.config import RunConfig

PROBE_FOLDER = "probe"


class ProbeConfig(StrictConfig):
    """The linear probe before the run; all that is not said here is as in the run itself.

    Attributes:
        epochs: Passes over the training subjects.
        lr: Learning rate of the head.
        patience: As in `train`; None never stops before the last epoch.
    """

    epochs: int = Field(default=20, gt=0)
    lr: float = Field(default=1e-2, gt=0)
    patience: int | None = Field(default=None, ge=0)


def probe_run(config: RunConfig) -> RunConfig:
    """Give the run of the probe: the same data, model, objective and start, with the encoder frozen.

    Raises:
        ValueError: If the objective has no encoder to freeze in front of a head, or it is frozen in the run too.
    """
    assert config.probe is not None, "asked for by `probe`"
    frozen = getattr(config.objective, "freeze_encoder", None)
    if frozen is None:
        raise ValueError(f"probe: objective {config.objective.name} has no head on one encoder; remove probe")
    if frozen:
        raise ValueError("probe: objective.freeze_encoder=true trains the head only, before and after; remove one")
    if config.init.ecg is None and config.init.cmr is None:
        raise ValueError("probe: a head on an encoder of random weights is no start; set init.ecg, or remove probe")
    return config.with_values(
        **{
            "name": f"{config.name}_probe",
            "out": str(config.folder / PROBE_FOLDER),
            "probe": None,
            "objective.freeze_encoder": True,
            "optim.lr": config.probe.lr,
            "optim.lr_rule": "absolute",
            "optim.layer_decay": 1.0,
            "optim.warmup_epochs": min(config.optim.warmup_epochs, config.probe.epochs / 5),
            "train.epochs": config.probe.epochs,
            "train.patience": config.probe.patience,
        }
    )


def load_probe(objective: Objective, run: Path) -> None:
    """Start the head, and a pooling that the probe trained, from the probe of a run.

    The statistics of the labels come along: the head's outputs mean what they meant to the probe.
    """
    weights = load_weights(run / PROBE_FOLDER / "weights")
    parts = objective.encoders()
    for name, module in weights.modules.items():
        parts[name].load_state_dict(module.state_dict())
