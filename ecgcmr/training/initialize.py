"""Start encoders from the weights of an earlier stage, and refuse those that do not belong to this run."""

from __future__ import annotations

import logging

from torch import nn

from ecgcmr.hub.card import cohorts_of
from ecgcmr.hub.weights import Weights, load_weights
from ecgcmr.models.build import load_pretrained
from ecgcmr.objectives.base import Objective
from ecgcmr.training.config import InitConfig
from ecgcmr.training.sources import Source, cohort_identity

log = logging.getLogger(__name__)


def load_initial(objective: Objective, config: InitConfig, source: Source) -> None:
    """Load `init.ecg` and `init.cmr` into the encoders of the objective.

    Raises:
        ValueError: If the objective has no such encoder, the weights have none, they do not fit, or they were trained
            on data that was prepared or split in another way.
    """
    for name, folder in (("ecg", config.ecg), ("cmr", config.cmr)):
        if folder is None:
            continue
        parts = objective.encoders()
        if name not in parts:
            raise ValueError(f"init.{name} is set, but this objective trains {', '.join(parts)}; remove it")
        weights = load_weights(folder)
        if name not in weights.modules:
            raise ValueError(f"init.{name}: {weights.folder} holds {', '.join(weights.modules)}, no {name!r}")
        _check_pipeline(name, weights, config, source)
        _check_split(name, weights, config, source)
        state = weights.modules[name].state_dict()
        if config.fresh_fc_norm and name == "ecg":
            state = {key: value for key, value in state.items() if not key.startswith("fc_norm.")}
        try:
            fresh = load_pretrained(parts[name], state)
        except ValueError as error:
            raise ValueError(
                f"init.{name}: {weights.folder}: {error}; model.{name} of the run file must describe the module that "
                f"was saved: {weights.config['modules'][name]}"
            ) from None
        log.info("%s encoder starts from %s", name, weights.config["name"])
        if fresh:
            log.info("%s encoder: not in the weights and freshly initialized: %s", name, ", ".join(fresh))
        if name == "ecg" and config.decoder and "ecg_decoder" in parts:
            _load_decoder(parts["ecg_decoder"], weights)


def _load_decoder(decoder: nn.Module, weights: Weights) -> None:
    """Go on with the decoder of the weights, if it is of the same shape: a fresh one takes epochs to be of use."""
    theirs = weights.modules.get("ecg_decoder")
    if theirs is None or theirs.config != decoder.config:
        why = "has none" if theirs is None else "has one of another shape"
        log.info("the decoder is freshly initialized: %s %s", weights.config["name"], why)
        return
    decoder.load_state_dict(theirs.state_dict())
    log.info("the decoder starts from %s", weights.config["name"])


def _check_pipeline(name: str, weights: Weights, config: InitConfig, source: Source) -> None:
    theirs = weights.ecg_pipeline if name == "ecg" else weights.cmr_pipeline
    ours = source.ecg_pipeline if name == "ecg" else source.cmr_pipeline
    assert theirs is not None
    if theirs.fingerprint() != ours.fingerprint() and not config.allow_other_pipeline:
        raise ValueError(
            f"init.{name}: {weights.folder} was trained on data prepared by {theirs.name!r} "
            f"({theirs.fingerprint()[:12]}), this run prepares it by {ours.name!r} ({ours.fingerprint()[:12]}); "
            f"set data.{name}.pipeline to the same, or init.allow_other_pipeline=true if you mean it"
        )


def _check_split(name: str, weights: Weights, config: InitConfig, source: Source) -> None:
    for ours in map(cohort_identity, source.cohorts):
        for theirs in cohorts_of(weights.config["run"]):
            same_cohort = theirs.get("cohort") == ours["cohort"]
            if same_cohort and theirs.get("split_sha256") != ours["split_sha256"] and not config.allow_other_split:
                raise ValueError(
                    f"init.{name}: {weights.folder} was trained with another split ({theirs.get('split')!r}) of the "
                    f"cohort {ours['cohort']!r} than this run ({ours['split']!r}): its training subjects may be test "
                    "subjects here; use the same split in all stages, or init.allow_other_split=true if you know that "
                    "they are not"
                )
