"""From a run file to data: pipelines, facts about the training subjects, and the two datasets."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.cmr.preprocessing import named_pipeline as named_cmr_pipeline
from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.orders import GroupedOrder, WeightedOrder, balanced_shares
from ecgcmr.cohort.sampler import Order
from ecgcmr.cohort.schema import value_label
from ecgcmr.cohort.splits import Split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.ecg.preprocessing import named_pipeline as named_ecg_pipeline
from ecgcmr.objectives.facts import DataFacts, LabelFact
from ecgcmr.training.config import CmrData, DataConfig
from ecgcmr.training.draws import drawn_subjects
from ecgcmr.training.loop import Feeds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """An opened cohort with the pipelines of a run.

    Attributes:
        cohort: The cohort.
        split: Its split, checked to be disjoint.
        ecg_pipeline: Prepares ECGs.
        cmr_pipeline: Prepares cines.
    """

    cohort: Cohort
    split: Split
    ecg_pipeline: EcgPipeline
    cmr_pipeline: CmrPipeline


def open_source(config: DataConfig) -> Source:
    """Open what a run file names.

    Raises:
        FileNotFoundError: If there is no such cohort or split.
        ValueError: If a pipeline is unknown, the crop is longer than the recording, or parts of the split overlap.
    """
    ecg_pipeline = named_ecg_pipeline(config.ecg.pipeline)
    crop = config.ecg.crop_samples
    if crop is not None and crop > ecg_pipeline.n_samples:
        raise ValueError(
            f"data.ecg.crop_samples is {crop}, but {ecg_pipeline.name!r} gives {ecg_pipeline.n_samples} samples"
        )
    cohort = Cohort.open(config.cohort)
    return Source(cohort, open_split(cohort, config.split), ecg_pipeline, _cmr_pipeline(config.cmr))


LEARNED = ("regression", "binary", "category")
FOLLOW_UP = ("time", "event")


def learned_kinds(objective: str) -> tuple[str, ...]:
    """Kinds of labels that the objective of this name reads."""
    return FOLLOW_UP if objective == "survival" else LEARNED


def check_labels(source: Source, config: DataConfig, kinds: tuple[str, ...] = LEARNED) -> None:
    """Refuse labels that the cohort does not have or that the objective does not learn.

    Raises:
        ValueError: The message names the label and what there is.
    """
    specs = source.cohort.label_specs
    for name in config.labels:
        if name not in specs:
            raise ValueError(f"data.labels: {source.cohort.path} has no label {name!r}; it has {', '.join(specs)}")
        if specs[name].kind not in kinds:
            hint = "; objective.name=survival learns outcomes" if specs[name].kind in FOLLOW_UP else ""
            raise ValueError(
                f"data.labels: {name!r} is of kind {specs[name].kind!r}; {', '.join(kinds)} labels can be learned{hint}"
            )


def outputs_of(cohort: Cohort, labels: Collection[str]) -> dict[str, str]:
    """Give the outputs that labels need, and the category that each is a value of; a category has one for each value.

    Returns:
        Name in `Batch.labels` -> category, "" for a label that stands for itself.
    """
    found: dict[str, str] = {}
    for name in labels:
        spec = cohort.label_specs[name]
        if spec.kind == "category":
            found |= {value_label(name, value): name for value in spec.values}
        else:
            found.setdefault(name, "")
    return found


def find_facts(source: Source, config: DataConfig, labeled: PairedDataset | None = None) -> DataFacts:
    """Give shapes from the pipelines and label statistics from the training items that the run uses.

    Args:
        source: The opened cohort.
        config: With the crop.
        labeled: The training data with its labels; None for a run that learns none.

    Raises:
        ValueError: If a label is never observed or constant; the message names it.
    """
    return DataFacts(
        ecg_samples=config.ecg.crop_samples or source.ecg_pipeline.n_samples,
        ecg_rate_hz=source.ecg_pipeline.rate_hz,
        cmr_shape=source.cmr_pipeline.shape,
        labels=_label_facts(labeled, outputs_of(source.cohort, config.labels)) if labeled is not None else (),
    )


def open_feeds(source: Source, config: DataConfig, modalities: Collection[str]) -> Feeds:
    """Open training and validation data with what the objective reads.

    Args:
        source: The opened cohort.
        config: Labels and limits.
        modalities: "ecg", "cmr" or both; items without them are left out, what is not named is not prepared.
    """
    train = _dataset(source, config, "train", modalities)
    val = _dataset(source, config, "val", modalities) if len(source.split.val) else None
    log.info(
        "%d training and %d validation items of %s",
        len(train),
        len(val) if val else 0,
        " and ".join(sorted(modalities)),
    )
    if val is None:
        log.warning("split %r has no validation subjects: the last weights are kept, not the best", config.split)
    return Feeds(train, val, _order(train, config))


def _order(dataset: PairedDataset, config: DataConfig) -> Order | None:
    """Make the order that `data.weight` or `data.balance` asks for."""
    if config.weight is not None:
        weights = dataset.subject_column(config.weight).to_numpy()
        try:
            return WeightedOrder(weights)
        except (ValueError, TypeError) as error:
            raise ValueError(f"data.weight: column {config.weight!r} of the subjects: {error}") from None
    if not config.balance:
        return None
    groups = dataset.group_codes
    unknown = int((groups < 0).sum())
    if unknown:
        raise ValueError(f"data.balance: {unknown} training items have no {config.group!r}, by which to balance them")
    return GroupedOrder(groups, balanced_shares(groups, config.balance))


def _dataset(source: Source, config: DataConfig, part: str, modalities: Collection[str]) -> PairedDataset:
    require = "both" if len(modalities) > 1 else next(iter(modalities))
    dataset = PairedDataset(
        source.cohort,
        source.split.part(part),
        source.ecg_pipeline if "ecg" in modalities else None,
        source.cmr_pipeline if "cmr" in modalities else None,
        tuple(outputs_of(source.cohort, config.labels)),
        DatasetOptions(require=require, ecg_dtype=config.ecg.dtype, group=config.group),
    )
    drawn = drawn_subjects(dataset, config, part)
    return dataset if drawn is None else dataset.subset(drawn)


def _cmr_pipeline(config: CmrData) -> CmrPipeline:
    given = {key: value for key, value in config.model_dump().items() if key != "pipeline" and value is not None}
    return named_cmr_pipeline(config.pipeline, **given)


def _label_facts(dataset: PairedDataset, categories: Mapping[str, str]) -> tuple[LabelFact, ...]:
    facts = []
    for name, found in dataset.label_statistics().items():
        if not found.n:
            raise ValueError(f"data.labels: {name!r} is missing in all {len(dataset)} training items; leave it out")
        if found.kind == "binary":
            if found.mean in (0.0, 1.0):
                log.warning(
                    "data.labels: %r is %d in all %d observed training items: nothing can be learned about it",
                    name, found.mean, found.n,
                )  # fmt: skip
            facts.append(LabelFact(name, "binary", found.unit, prevalence=found.mean, one_of=categories[name]))
        elif found.kind == "event":
            if found.mean == 0:
                raise ValueError(f"data.labels: none of the {found.n} training items at risk has the event {name!r}")
            facts.append(LabelFact(name, "event", prevalence=found.mean))
        elif found.kind == "time":
            facts.append(LabelFact(name, "time", found.unit, found.mean, found.std))
        else:
            facts.append(LabelFact(name, "regression", found.unit, found.mean, found.std))
    return tuple(facts)
