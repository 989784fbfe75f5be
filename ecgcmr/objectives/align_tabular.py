"""Alignment of three towers - CMR, ECG and what is known of the subject - by pairwise CLIP terms.

After Girlanda et al. (BMVC 2024, arXiv 2411.05900): from CMR to ECG and to tabular data. The tabular view is corrupted
as in SCARF (arXiv 2106.15147): a random part of the known columns is replaced by draws from their distribution over
the training subjects. Each column is replaced with the same chance, where SCARF replaces a fixed number of them: few
columns would never be replaced otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.models.tabular import tabular_input
from ecgcmr.objectives.align import MAX_LOG_SCALE, clip_loss
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, ranks_of_positive, unit_rows
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient, shard
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision, make_projection, make_tabular_encoder, wide
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig
from ecgcmr.objectives.views import the_generator

TOWERS = {"cmr": "image", "ecg": "ecg", "tabular": "tabular"}
"""Tower and the name of its projection."""

PAIRS = (("cmr", "ecg"), ("cmr", "tabular"), ("ecg", "tabular"))


class TabularAlignConfig(PairAlignConfig):
    """Three towers; see `PairAlignConfig` for the encoders of signal and image.

    Attributes:
        cmr_ecg: Weight of the pairs of CMR and ECG; 0 leaves them out.
        cmr_tabular: Weight of the pairs of CMR and tabular data.
        ecg_tabular: Weight of the pairs of ECG and tabular data.
        corruption: Chance of each known column to be replaced in training.
        temperature: Softmax temperature tau of all pairs, fixed or where learning starts.
        learn_temperature: Learn log(1 / tau), kept at or below log 100.
    """

    name: Literal["tabular_align"] = "tabular_align"
    cmr_ecg: float = Field(default=1.0, ge=0)
    cmr_tabular: float = Field(default=1.0, ge=0)
    ecg_tabular: float = Field(default=1.0, ge=0)
    corruption: float = Field(default=0.3, ge=0, lt=1)
    temperature: float = Field(default=0.1, ge=0.01)
    learn_temperature: bool = False

    @model_validator(mode="after")
    def _towers_meet(self) -> Self:
        idle = sorted(set(TOWERS) - {tower for pair, weight in pair_weights(self).items() if weight for tower in pair})
        if idle:
            raise ValueError(f"all weights of the pairs with {idle[0]} are 0, so that its tower would learn nothing")
        return self


def pair_weights(config: TabularAlignConfig) -> dict[tuple[str, str], float]:
    """Weight of each pair of towers."""
    return {pair: float(getattr(config, "_".join(pair))) for pair in PAIRS}


def corrupt(
    values: Tensor, known: Tensor, marginals: tuple[Tensor, Tensor], chance: float, generator: torch.Generator
) -> Tensor:
    """Replace known columns by draws from their marginal distributions; all features of a column together.

    Args:
        values: Features (B, C).
        known: Which are known (B, C); what is not stays unknown.
        marginals: Features at evenly spaced quantiles of their columns (Q, C), and the column of each feature (C,).
        chance: Of each column to be replaced.
        generator: Alike on all processes; draws for the global batch.

    Returns:
        (B, C).
    """
    (table, column), (part, parts), rows = marginals, shard(), values.shape[0]
    n_columns = int(column.max()) + 1
    draws = torch.rand(parts * rows, 2, n_columns, generator=generator, device=values.device)
    replaced, place = draws[part * rows : (part + 1) * rows].unbind(1)
    quantile = (place * len(table)).long().clamp(max=len(table) - 1)[:, column]
    drawn = table[quantile, torch.arange(len(column), device=values.device)]
    return torch.where((replaced < chance)[:, column] & known, drawn.to(values.dtype), values)


class TabularAlign(PairAlign):
    """Losses `cmr_ecg`, `cmr_tabular` and `ecg_tabular` of each subject that has both sides of the pair."""

    reads_tabular = True
    config: TabularAlignConfig
    log_scale: Tensor
    marginals: Tensor
    column: Tensor

    def __init__(self, config: TabularAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.tabular_encoder = make_tabular_encoder(model, facts)
        self.tabular_projection = make_projection(model, self.tabular_encoder.embed_dim)
        self.pairs = {pair: weight for pair, weight in pair_weights(config).items() if weight}
        self.loss_weights = {"_".join(pair): weight for pair, weight in self.pairs.items()}
        start = torch.tensor(-math.log(config.temperature))
        if config.learn_temperature:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)
        # Of the data and not of the model: what a checkpoint or an export holds is not theirs.
        self.register_buffer("marginals", torch.tensor(facts.tabular_marginals), persistent=False)
        columns = [k for k, column in enumerate(facts.tabular) for _ in column.features]
        self.register_buffer("column", torch.tensor(columns), persistent=False)
        if self.marginals.shape[1:] != self.column.shape:
            raise ValueError(f"facts hold marginals of shape {tuple(self.marginals.shape)} for {len(columns)} features")
        self.train()

    def encoders(self) -> dict[str, nn.Module]:
        """Export the three encoders and their projections."""
        return {**super().encoders(), "tabular": self.tabular_encoder, "tabular_projection": self.tabular_projection}

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep a learned scale at or below 100."""
        self.log_scale.clamp_(max=MAX_LOG_SCALE)

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give projections `image`, `ecg` and `tabular` (B, D) of length 1, and `scale` (B,), 1 / tau for each row."""
        random = the_generator(generator, self.training, batch["ecg"].device)
        image, ecg = self.project(batch, random)
        values, known = batch["tabular"].to(image.dtype), batch["tabular_mask"]
        if self.training and self.config.corruption:
            values = corrupt(values, known, (self.marginals, self.column), self.config.corruption, random)
        tabular = wide(self.tabular_projection(self.tabular_encoder(tabular_input(values, known))))
        rows = {"image": unit_rows(image), "ecg": unit_rows(ecg), "tabular": unit_rows(tabular)}
        return {**rows, "scale": self.log_scale.exp().expand(image.shape[0])}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each subject's side of a pair with the other sides of the global batch, for each pair of towers."""
        has = {"cmr": batch["has_cmr"], "ecg": batch["has_ecg"], "tabular": batch["tabular_mask"].any(1)}
        out = ObjectiveOutput({}, {})
        with full_precision(rows["image"]):
            everything = {tower: gather_with_gradient(rows[name]) for tower, name in TOWERS.items()}
            for first, second in self.pairs:
                valid = has[first] & has[second]
                sides = rows[TOWERS[first]], rows[TOWERS[second]]
                candidates = everything[first], everything[second]
                found = pair_terms(sides, candidates, rows["scale"], (batch["subject"], valid))
                name, zero = f"{first}_{second}", torch.zeros_like(found["loss"])
                out.losses[name], out.valid[name] = torch.where(valid, found["loss"], zero), valid
                for direction, side in ((f"{first}_to_{second}", "first"), (f"{second}_to_{first}", "second")):
                    for k in (1, 5):
                        hits = (found[side] < k).to(zero.dtype)
                        out.metrics[f"{direction}_top{k}"] = Mean.over(hits, valid)
        out.metrics["temperature"] = Mean.over(rows["scale"].reciprocal(), torch.ones_like(batch["has_ecg"]))
        return out


def pair_terms(
    sides: tuple[Tensor, Tensor],
    everything: tuple[Tensor, Tensor],
    scale: Tensor,
    who: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """Loss (B,) of one pair of towers, and the rank of the match among the candidates, from either side.

    Args:
        sides: Projections (B, D) of both, of length 1.
        everything: Those of the global batch, (G, D) each.
        scale: 1 / tau (B,).
        who: Subjects (B,) and which of them have both sides (B,).
    """
    (a, b), (subject, valid) = sides, who

    def terms(part: slice) -> dict[str, Tensor]:
        excluded, own = excluded_columns(subject, valid, part)
        loss, from_a, from_b = clip_loss(a[part], b[part], scale[part, None], 0.5, (excluded, own), everything)
        return {"loss": loss, "first": ranks_of_positive(from_a, own), "second": ranks_of_positive(from_b, own)}

    return by_rows(terms, a.shape[0], gather_rows(valid).shape[0])
