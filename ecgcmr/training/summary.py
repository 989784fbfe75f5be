"""What a run says at its end: summary.json and the card of its weights."""

from __future__ import annotations

from typing import Any

from ecgcmr.hub.card import Card, Metric, metrics_of_run
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.training.data import Source
from ecgcmr.training.initialize import data_identity
from ecgcmr.training.loop import Trainer
from ecgcmr.training.versions import versions


def summarize(trainer: Trainer, facts: DataFacts) -> dict[str, Any]:
    """Give the content of summary.json."""
    position, config = trainer.position, trainer.config
    samples = position.step * trainer.global_batch
    parameters = list(trainer.objective.parameters())
    return {
        "status": "finished",
        "name": config.name,
        "objective": config.objective.name,
        "steps": position.step,
        "steps_planned": trainer.total_steps,
        "epochs": position.epoch,
        "stopped_early": trainer.stopping.should_stop,
        "skipped_steps": position.skipped,
        "best": {
            "monitor": config.train.monitor,
            "value": trainer.stopping.best,
            "epoch": position.best_epoch or None,
        },
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "train_items": len(trainer.feeds.train),
        "val_items": len(trainer.feeds.val) if trainer.feeds.val is not None else 0,
        "global_batch": trainer.global_batch,
        "processes": trainer.accelerator.num_processes,
        "precision": config.train.precision,
        "lr": trainer.schedule.lr,
        "facts": facts.to_dict(),
        "seconds": round(position.seconds, 2),
        "samples_per_second": round(samples / max(position.seconds, 1e-9), 1),
        "versions": versions(),
    }


def make_card(trainer: Trainer, source: Source) -> Card:
    """Give what the exported weights say about themselves."""
    config, schema = trainer.config, source.cohort.schema
    simulated = schema.provenance == "simulated"
    train = trainer.feeds.train
    metrics = {}
    if trainer.stopping.best is not None:
        metrics = {f"validation {config.train.monitor}": trainer.stopping.best}
    return Card(
        name=config.name,
        stage=config.objective.name,
        license=config.license or ("MIT" if simulated else "not stated"),
        provenance=schema.provenance,
        trained_on=f"{len(train)} items of {len(train.unique_subjects)} subjects of the cohort {schema.name!r}",
        metrics=tuple(Metric.model_validate(row) for row in metrics_of_run(metrics)),
        run={**data_identity(source), "seed": config.seed, "steps": trainer.position.step},
    )
