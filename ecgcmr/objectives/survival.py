"""Incident risk from one modality: Cox partial likelihood with Efron ties, or hazards of discrete intervals.

Cox. Each event is compared with those at risk at its time *in the global batch*. That is the partial likelihood of a
nested case-control sample of the risk set: its log hazards are consistent (Goldstein & Langholz, Annals of Statistics
1992; for networks arXiv 1907.00825), but it is not the likelihood of the whole cohort, and small batches with few
events are noisy. Over a whole validation set, and in training where a batch holds all subjects, it is exact. Scores
are log relative hazards: the risk itself needs a baseline, see `evaluation.kaplan_meier.add_cox_probabilities`.

Discrete time. Each interval has a hazard, the chance of the event among those who enter it (PeerJ 2019,
10.7717/peerj.6257); no sample needs another one, and the risk by the end of an interval follows without a baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import HeadConfig, HeadLabel, ModelConfig
from ecgcmr.models.heads import PredictionHead
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.one_encoder import OneEncoder, OneEncoderConfig
from ecgcmr.objectives.supervised import masked_label_loss


class SurvivalConfig(OneEncoderConfig):
    """Incident risk; see `OneEncoderConfig` for the encoder.

    Attributes:
        loss: `cox` (one log relative hazard for each outcome) or `discrete` (a hazard for each interval).
        cuts: Ends of the intervals of the discrete loss, rising, in the unit of the follow-up times; the first
            interval starts at 0.
    """

    name: Literal["survival"] = "survival"
    loss: Literal["cox", "discrete"] = "cox"
    cuts: tuple[float, ...] = Field(default=())

    @model_validator(mode="after")
    def _cuts_fit(self) -> Self:
        rising = all(a < b for a, b in zip((0.0, *self.cuts), self.cuts, strict=False))
        if self.loss == "discrete" and (not self.cuts or not rising):
            raise ValueError(f"objective.cuts must be rising times above 0 for the discrete loss, got {self.cuts}")
        if self.loss == "cox" and self.cuts:
            raise ValueError("objective.cuts belongs to the discrete loss; remove it, or set objective.loss=discrete")
        return self


class Outcome(NamedTuple):
    """An outcome and the columns of `Batch.labels` that hold its follow-up."""

    name: str
    time: int
    event: int


def find_outcomes(facts: DataFacts) -> tuple[Outcome, ...]:
    """Pair the labels of kind `time` and `event` by their names: mi_time_years and mi_event are the outcome mi.

    Raises:
        ValueError: If there is none, or one of a pair is missing.
    """
    times = {fact.name.partition("_time")[0]: k for k, fact in enumerate(facts.labels) if fact.kind == "time"}
    events = {fact.name.removesuffix("_event"): k for k, fact in enumerate(facts.labels) if fact.kind == "event"}
    alone = sorted(set(times) ^ set(events))
    if alone or not events:
        what = f"the outcome {alone[0]!r} lacks one of them" if alone else "there is none"
        raise ValueError(f"data.labels must name outcomes in pairs, NAME_time_... and NAME_event: {what}")
    return tuple(Outcome(name, times[name], column) for name, column in events.items())


def cox_terms(score: Tensor, everyone: Tensor, at_risk: Tensor, tied: Tensor) -> Tensor:
    """Minus the log partial likelihood of each event, ties after Efron (JASA 1977, 10.1080/01621459.1977.10480613).

    The m events of one time share the m factors of Efron's product; each gets the mean of their logarithms.

    Args:
        score: Log relative hazards (B,).
        everyone: Those of the global batch (G,).
        at_risk: (B, G) bool, who is at risk at the time of the row, itself included.
        tied: (B, G) bool, who has an event at that time, itself included; no entry where the row is no event.

    Returns:
        (B,); 0 where nobody is tied, that is where the row is no event.
    """
    scores = everyone.expand(at_risk.shape)
    top = scores.masked_fill(~at_risk, -torch.inf).amax(1).detach()
    top = torch.where(top.isfinite(), top, torch.zeros_like(top))
    hazard = (scores - top[:, None]).masked_fill(~at_risk, -torch.inf).exp()
    risk, died = hazard.sum(1), torch.where(tied, hazard, torch.zeros_like(hazard)).sum(1)
    count = tied.sum(1)
    step = torch.arange(max(int(count.max()), 1), device=score.device)[None]  # 0 ... m - 1
    used = step < count[:, None]
    left = risk[:, None] - died[:, None] * (step / count.clamp(min=1)[:, None]).to(score.dtype)
    logs = torch.where(used, left, torch.ones_like(left)).log().sum(1) / count.clamp(min=1)
    return torch.where(count > 0, logs + top - score, torch.zeros_like(score))


def discrete_terms(logits: Tensor, time: Tensor, event: Tensor, cuts: Tensor) -> Tensor:
    """Minus the log likelihood of the intervals that each sample lived through or had its event in.

    An event on a cut belongs to the interval before it. Who is censored within an interval counts as having lived
    through it from its middle on. Follow-up beyond the last cut is cut off there.

    Args:
        logits: Of the hazards (B, J).
        time: Follow-up (B,).
        event: (B,) bool.
        cuts: Ends of the intervals (J,).

    Returns:
        (B,).
    """
    starts = functional.pad(cuts, (1, 0))[:-1]
    inside = torch.searchsorted(cuts, time.contiguous())[:, None]  # J when beyond the last cut
    interval = torch.arange(len(cuts), device=logits.device)[None]
    here = interval == inside
    lived = (interval < inside) | (here & ~event[:, None] & (time[:, None] >= (starts + cuts) / 2))
    failed = here & event[:, None]
    return (functional.softplus(logits) * lived + functional.softplus(-logits) * failed).sum(1)


def interval_risks(hazards: Tensor) -> Tensor:
    """Turn hazards of intervals (..., J) into the chance of the event by the end of each (..., J)."""
    return 1 - (1 - hazards).cumprod(-1)


class Survival(OneEncoder):
    """Loss `cox` or `discrete` of each sample: the mean over its outcomes with a term.

    Labels are follow-up times and events in pairs (`find_outcomes`); a sample that was not at risk of an outcome, whose
    labels are missing, takes no part in it, and labels of other kinds are not read. With `cox` only events have a term.
    """

    config: SurvivalConfig

    def __init__(self, config: SurvivalConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.outcomes = find_outcomes(facts)
        labels = [HeadLabel(name=one.name, kind="regression", unit="log hazard") for one in self.outcomes]
        if config.loss == "discrete":
            spans = list(zip((0.0, *config.cuts), config.cuts, strict=False))
            names = [f"{one.name}_{a:g}_to_{b:g}" for one in self.outcomes for a, b in spans]
            labels = [HeadLabel(name=name, kind="binary") for name in names]
        fields = {**model.head.model_dump(), "in_features": self.head_features, "labels": labels}
        self.head = PredictionHead(HeadConfig.model_validate(fields))
        self.n_labels = len(facts.labels)
        self.loss_weights = {config.loss: 1.0}
        self.train()

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Take the follow-up of the samples into account, of this process and for `cox` of all others."""
        raw = rows["raw"]
        if batch["labels"].shape != (raw.shape[0], self.n_labels):
            shape = tuple(batch["labels"].shape)
            raise ValueError(f"batch has labels of shape {shape}, expected {(raw.shape[0], self.n_labels)}")
        valid = batch["has_ecg"] if self.config.modality == "ecg" else batch["has_cmr"]
        raw = raw.reshape(raw.shape[0], len(self.outcomes), -1)
        losses, observed, pairs = [], [], []
        metrics: dict[str, Mean] = {}
        with full_precision(raw):
            for k, one in enumerate(self.outcomes):
                seen = batch["label_mask"][:, one.time] & batch["label_mask"][:, one.event] & valid
                # What is missing may hold anything, NaN too.
                time = batch["labels"][:, one.time].to(raw.dtype).masked_fill(~seen, 0)
                event = (batch["labels"][:, one.event] > 0.5) & seen
                follow_up = (time, event, seen, batch["subject"])
                found = self._terms(raw[:, k], follow_up)
                losses.append(found["loss"])
                observed.append(event if self.config.loss == "cox" else seen)
                pairs.append(Mean(found["right"].sum(), found["pairs"].sum()))
                metrics[f"c_index_{one.name}"] = pairs[-1]
        metrics["c_index"] = Mean(
            torch.stack([mean.total for mean in pairs]).sum(), torch.stack([mean.count for mean in pairs]).sum()
        )
        sample, counted = masked_label_loss(torch.stack(losses, 1), torch.stack(observed, 1), valid)
        return ObjectiveOutput({self.config.loss: sample}, {self.config.loss: counted}, metrics)

    def _terms(self, raw: Tensor, follow_up: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss (B,) of each sample, and how many pairs with it as the event are in the right order, of how many."""
        time, event, seen, subject = follow_up
        is_cox = self.config.loss == "cox"
        # Minus the log of the chance to live through all intervals rises with the risk.
        score = raw[:, 0] if is_cox else functional.softplus(raw).sum(1)
        everyone = gather_with_gradient(score) if is_cox else gather_rows(score)
        times, events = gather_rows(time), gather_rows(event)

        def terms(part: slice) -> dict[str, Tensor]:
            # Another recording of the subject with the event is no one to compare it with.
            excluded, _ = excluded_columns(subject, seen, part)
            mine = event[part, None] & ~excluded
            at_risk = ~excluded & (times >= time[part, None])
            tied = mine & events & (times == time[part, None])
            later = mine & at_risk & ~tied
            order = score[part, None].detach() - everyone.detach()
            right = ((order > 0).to(score.dtype) + 0.5 * (order == 0)) * later
            found = {"right": right.sum(1), "pairs": later.sum(1)}
            if is_cox:
                found["loss"] = cox_terms(score[part], everyone, at_risk, tied)
            return found

        found = by_rows(terms, score.shape[0], times.shape[0])
        if not is_cox:
            cuts = torch.tensor(self.config.cuts, dtype=raw.dtype, device=raw.device)
            found["loss"] = discrete_terms(raw, time, event, cuts)
        return found
