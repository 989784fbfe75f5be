"""The one list of objectives: a run file names one, this builds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.align import ClipAlign, ClipAlignConfig
from ecgcmr.objectives.align_barlow import BarlowAlign, BarlowAlignConfig
from ecgcmr.objectives.align_labels import LabelAlign, LabelAlignConfig
from ecgcmr.objectives.align_ntxent import NtXentAlign, NtXentAlignConfig
from ecgcmr.objectives.align_phases import PhaseAlign, PhaseAlignConfig
from ecgcmr.objectives.align_phenotype import PhenotypeAlign, PhenotypeAlignConfig
from ecgcmr.objectives.align_relational import RelationalAlign, RelationalAlignConfig
from ecgcmr.objectives.align_siglip import SiglipAlign, SiglipAlignConfig
from ecgcmr.objectives.align_tabular import TabularAlign, TabularAlignConfig
from ecgcmr.objectives.align_temporal import TemporalAlign, TemporalAlignConfig
from ecgcmr.objectives.align_vicreg import VicregAlign, VicregAlignConfig
from ecgcmr.objectives.align_views import ViewAlign, ViewAlignConfig
from ecgcmr.objectives.base import Objective
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.image_contrastive import CmrSimclr, CmrSimclrConfig
from ecgcmr.objectives.masked import MaskedEcg, MaskedEcgConfig
from ecgcmr.objectives.supervised import Supervised, SupervisedConfig
from ecgcmr.objectives.survival import Survival, SurvivalConfig

ObjectiveConfig = Annotated[
    MaskedEcgConfig
    | CmrSimclrConfig
    | ClipAlignConfig
    | SiglipAlignConfig
    | BarlowAlignConfig
    | VicregAlignConfig
    | LabelAlignConfig
    | TabularAlignConfig
    | NtXentAlignConfig
    | PhenotypeAlignConfig
    | RelationalAlignConfig
    | PhaseAlignConfig
    | TemporalAlignConfig
    | ViewAlignConfig
    | SupervisedConfig
    | SurvivalConfig,
    Field(discriminator="name"),
]

OBJECTIVES: dict[str, type[Objective]] = {
    "masked_ecg": MaskedEcg,
    "cmr_simclr": CmrSimclr,
    "clip_align": ClipAlign,
    "siglip_align": SiglipAlign,
    "barlow_align": BarlowAlign,
    "vicreg_align": VicregAlign,
    "label_align": LabelAlign,
    "tabular_align": TabularAlign,
    "ntxent_align": NtXentAlign,
    "phenotype_align": PhenotypeAlign,
    "relational_align": RelationalAlign,
    "phase_align": PhaseAlign,
    "temporal_align": TemporalAlign,
    "view_align": ViewAlign,
    "supervised": Supervised,
    "survival": Survival,
}


def build_objective(config: ObjectiveConfig, model: ModelConfig, facts: DataFacts) -> Objective:
    """Build the objective that `config.name` names.

    Args:
        config: The objective's own configuration.
        model: Configurations of all modules; the objective builds those that it uses.
        facts: Shapes and label statistics of the training data.

    Returns:
        The objective with freshly initialized modules (torch's global generator decides the initial weights).

    Raises:
        ValueError: If the configuration and the facts contradict each other.
    """
    return OBJECTIVES[config.name](config, model, facts)
