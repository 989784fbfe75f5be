"""The cohorts of a run: opened, told apart, and what the exported weights say about them."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.cmr.preprocessing import named_pipeline as named_cmr_pipeline
from ecgcmr.cohort.mixture import common_label_specs, subject_offsets
from ecgcmr.cohort.schema import SCHEMA_FILE, LabelSpec
from ecgcmr.cohort.splits import Split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.ecg.preprocessing import named_pipeline as named_ecg_pipeline
from ecgcmr.hub.card import PROVENANCE_KINDS, provenance_kinds
from ecgcmr.training.config import CmrData, DataConfig
from ecgcmr.training.data_config import CohortSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceCohort:
    """One opened cohort.

    Attributes:
        name: What logs and cards call it.
        cohort: The cohort.
        split: Its split, checked to be disjoint.
        offset: What is added to its subjects, so that no two cohorts of a run share a number.
        weight: Its part of every epoch; None counts by size.
        val: Whether its validation subjects are evaluated.
    """

    name: str
    cohort: Cohort
    split: Split
    offset: int = 0
    weight: float | None = None
    val: bool = True


@dataclass(frozen=True)
class Source:
    """The opened cohorts, at least one, with the pipelines of a run.

    Attributes:
        cohorts: The cohorts.
        ecg_pipeline: Prepares ECGs.
        cmr_pipeline: Prepares cines.
        label_specs: The labels that any of the cohorts has.
    """

    cohorts: tuple[SourceCohort, ...]
    ecg_pipeline: EcgPipeline
    cmr_pipeline: CmrPipeline
    label_specs: dict[str, LabelSpec]

    @property
    def where(self) -> str:
        """Folders of the cohorts, for messages."""
        return " and ".join(str(one.cohort.path) for one in self.cohorts)


def open_source(config: DataConfig) -> Source:
    """Open what a run file names.

    Raises:
        FileNotFoundError: If there is no such cohort or split.
        ValueError: If a pipeline is unknown, the crop is longer than the recording, parts of a split overlap, a cohort
            is named twice, or two cohorts mean different things by one label.
    """
    ecg_pipeline = named_ecg_pipeline(config.ecg.pipeline)
    crop = config.ecg.crop_samples
    if crop is not None and crop > ecg_pipeline.n_samples:
        raise ValueError(
            f"data.ecg.crop_samples is {crop}, but {ecg_pipeline.name!r} gives {ecg_pipeline.n_samples} samples"
        )
    cmr_pipeline = _cmr_pipeline(config.cmr)
    if config.cohort is not None:
        cohort = Cohort.open(config.cohort)
        only = SourceCohort(cohort.schema.name, cohort, open_split(cohort, config.split))
        return Source((only,), ecg_pipeline, cmr_pipeline, cohort.label_specs)
    cohorts = [Cohort.open(named.cohort) for named in config.sources]
    names = [named.name or cohort.schema.name for named, cohort in zip(config.sources, cohorts, strict=True)]
    _check_distinct(config.sources, cohorts, names)
    opened = tuple(
        SourceCohort(name, cohort, open_split(cohort, named.split), offset, named.weight, named.val)
        for named, cohort, name, offset in zip(config.sources, cohorts, names, subject_offsets(cohorts), strict=True)
    )
    log.info("%d cohorts: whether one person is in two of them cannot be known and is not checked", len(opened))
    return Source(opened, ecg_pipeline, cmr_pipeline, common_label_specs(cohorts))


def _check_distinct(named: tuple[CohortSource, ...], cohorts: list[Cohort], names: list[str]) -> None:
    """Refuse one cohort under two names, whose subjects would be taken for others, and one name for two cohorts."""
    seen: dict[str, str] = {}
    for source, cohort in zip(named, cohorts, strict=True):
        before = len(seen)
        first = seen.setdefault(_content(cohort), source.cohort)
        if len(seen) == before:
            raise ValueError(
                f"data.sources: {source.cohort} and {first} are one cohort; name it once, with one split (its subjects "
                "would be taken for different ones)"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"data.sources: two cohorts are called {twice[0]!r}; set the name of each in data.sources")


def _content(cohort: Cohort) -> str:
    """Give what a copy or a link in another place shares with a cohort, splits that were added later left out."""
    files = cohort.schema.files
    names = [f"{table}.parquet" for table in ("subjects", "recordings", "studies")]
    return " ".join(files[name] for name in names) if set(names) <= set(files) else sha256(cohort.path / SCHEMA_FILE)


def cohort_identity(one: SourceCohort) -> dict[str, Any]:
    """Give what tells two trainings on one cohort apart: its name and the hash of the split."""
    file = f"splits/{one.split.name}.json"
    return {
        "cohort": one.cohort.schema.name,
        "split": one.split.name,
        "split_sha256": str(one.cohort.schema.files.get(file, ""))[:16],
    }


def data_identity(source: Source) -> dict[str, Any]:
    """Give what the card of the weights keeps of the data: that of the cohort; of several, also each by itself."""
    each = [cohort_identity(one) for one in source.cohorts]
    if len(each) == 1:
        return each[0]
    together = hashlib.sha256("+".join(one["split_sha256"] for one in each).encode()).hexdigest()[:16]
    joined = {key: " + ".join(one[key] for one in each) for key in ("cohort", "split")}
    named = [{"name": one.name, **identity} for one, identity in zip(source.cohorts, each, strict=True)]
    return {**joined, "split_sha256": together, "sources": named}


def joint_provenance(source: Source) -> str:
    """Give the provenance of all cohorts together: the kinds of each, then what each says of itself.

    A cohort that names no kind leaves the whole without one: what is not known is not called public.
    """
    said = list(dict.fromkeys(one.cohort.schema.provenance for one in source.cohorts))
    if len(said) == 1:
        return said[0]
    kinds = [provenance_kinds(text) for text in said]
    if not all(kinds):
        return " and ".join(said)
    present = [kind for kind in PROVENANCE_KINDS if any(kind in those for those in kinds)]
    details = [text.partition(":")[2].strip() for text in said]
    rest = ", ".join(detail for detail in details if detail)
    return " + ".join(present) + (f": {rest}" if rest else "")


def _cmr_pipeline(config: CmrData) -> CmrPipeline:
    given = {key: value for key, value in config.model_dump(exclude={"pipeline", "views"}).items() if value is not None}
    return named_cmr_pipeline(config.pipeline, **given)
