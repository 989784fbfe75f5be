"""From a run file to data: pipelines, facts about the training subjects, and the two datasets."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.mixture import AnyDataset, MixedDataset
from ecgcmr.cohort.orders import GroupedOrder, WeightedOrder, balanced_shares
from ecgcmr.cohort.sampler import Order
from ecgcmr.cohort.schema import LabelSpec, value_label
from ecgcmr.cohort.several_views import paired_dataset
from ecgcmr.cohort.tabular import fit_columns, marginals
from ecgcmr.objectives.facts import DataFacts, LabelFact
from ecgcmr.training.config import DataConfig
from ecgcmr.training.draws import drawn_subjects
from ecgcmr.training.loop import Feeds
from ecgcmr.training.sources import Source, SourceCohort

log = logging.getLogger(__name__)


LEARNED = ("regression", "binary", "category")
FOLLOW_UP = ("time", "event")


def learned_kinds(objective: str) -> tuple[str, ...]:
    """Kinds of labels that the objective of this name reads."""
    return FOLLOW_UP if objective == "survival" else LEARNED


def check_labels(source: Source, config: DataConfig, kinds: tuple[str, ...] = LEARNED) -> None:
    """Refuse labels that no cohort has or that the objective does not learn.

    Raises:
        ValueError: The message names the label and what there is.
    """
    specs = source.label_specs
    for name in config.labels:
        if name not in specs:
            raise ValueError(f"data.labels: {source.where} has no label {name!r}; it has {', '.join(specs)}")
        if specs[name].kind not in kinds:
            hint = "; objective.name=survival learns outcomes" if specs[name].kind in FOLLOW_UP else ""
            raise ValueError(
                f"data.labels: {name!r} is of kind {specs[name].kind!r}; {', '.join(kinds)} labels can be learned{hint}"
            )


def outputs_of(specs: Mapping[str, LabelSpec], labels: Collection[str]) -> dict[str, str]:
    """Give the outputs that labels need, and the category that each is a value of; a category has one for each value.

    Returns:
        Name in `Batch.labels` -> category, "" for a label that stands for itself.
    """
    found: dict[str, str] = {}
    for name in labels:
        spec = specs[name]
        if spec.kind == "category":
            found |= {value_label(name, value): name for value in spec.values}
        else:
            found.setdefault(name, "")
    return found


def find_facts(source: Source, config: DataConfig, train: AnyDataset | None = None) -> DataFacts:
    """Give shapes from the pipelines and label statistics from the training items that the run uses.

    Args:
        source: The opened cohorts.
        config: With the crop.
        train: The training data with its labels and tabular inputs; None for a run without either.

    Raises:
        ValueError: If a label is never observed or constant; the message names it.
    """
    return DataFacts(
        ecg_samples=config.ecg.crop_samples or source.ecg_pipeline.n_samples,
        ecg_rate_hz=source.ecg_pipeline.rate_hz,
        cmr_shape=config.cmr.study_shape(source.cmr_pipeline.shape),
        labels=_label_facts(train, outputs_of(source.label_specs, config.labels)) if train is not None else (),
        tabular=train.tabular_columns if train is not None else (),
        tabular_marginals=marginals(train.tabular_columns, train) if train is not None else (),
    )


def open_feeds(source: Source, config: DataConfig, modalities: Collection[str]) -> Feeds:
    """Open training and validation data with what the objective reads.

    Args:
        source: The opened cohorts.
        config: Labels and limits.
        modalities: "ecg", "cmr" or both; items without them are left out, what is not named is not prepared.
    """
    train = _dataset(source, config, "train", modalities)
    assert train is not None, "a data set without an item is refused"
    val = _dataset(source, config, "val", modalities)
    if config.tabular:
        columns = fit_columns(train, config.tabular)
        train, val = train.with_tabular(columns), val.with_tabular(columns) if val is not None else None
    log.info(
        "%d training and %d validation items of %s",
        len(train),
        len(val) if val else 0,
        " and ".join(sorted(modalities)),
    )
    if val is None:
        splits = " and ".join(repr(one.split.name) for one in source.cohorts)
        log.warning("split %s has no validation subjects: the last weights are kept, not the best", splits)
    return Feeds(train, val, _order(train, config, source))


def _order(dataset: AnyDataset, config: DataConfig, source: Source) -> Order | None:
    """Make the order that `data.weight`, `data.balance` or the weights of the sources ask for."""
    if isinstance(dataset, MixedDataset) and any(one.weight is not None for one in source.cohorts):
        return _order_of_sources(dataset, source)
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


def _order_of_sources(dataset: MixedDataset, source: Source) -> Order:
    """Give each cohort the part of every epoch that its weight asks for."""
    weights = {one.name: one.weight for one in source.cohorts}
    empty = [name for name in weights if name not in dataset.names]
    if empty:
        raise ValueError(
            f"data.sources: {empty[0]!r} has a weight, but none of its training subjects was drawn; draw more, or "
            "leave the source out"
        )
    order = GroupedOrder(dataset.source_codes, {k: weights[name] or 0.0 for k, name in enumerate(dataset.names)})
    sizes = dict(zip(dataset.names, dataset.source_sizes, strict=True))
    for name, quota in zip(dataset.names, order.quotas, strict=True):
        log.info("%s: %d of %d places of an epoch, %d items", name, quota, order.n, sizes[name])
    return order


def _dataset(source: Source, config: DataConfig, part: str, modalities: Collection[str]) -> AnyDataset | None:
    """Open a part of the splits; None for a validation without subjects."""
    chosen = [one for one in source.cohorts if part != "val" or (one.val and len(one.split.val))]
    if not chosen:
        return None
    dataset: AnyDataset
    if len(source.cohorts) == 1:
        dataset = _of_cohort(source, chosen[0], config, part, modalities)
    else:
        parts = [_of_cohort(source, one, config, part, modalities) for one in chosen]
        outputs = tuple(outputs_of(source.label_specs, config.labels))
        names, offsets = [one.name for one in chosen], [one.offset for one in chosen]
        dataset = MixedDataset(parts, names, offsets, outputs, config.group)
    drawn = drawn_subjects(dataset, config, part)
    return dataset if drawn is None else dataset.subset(drawn)


def _of_cohort(
    source: Source, one: SourceCohort, config: DataConfig, part: str, modalities: Collection[str]
) -> PairedDataset:
    require = "both" if len(modalities) > 1 else next(iter(modalities))
    labels, group = tuple(outputs_of(source.label_specs, config.labels)), config.group
    if len(source.cohorts) > 1:
        tables = {"ecg": "recordings", "cmr": "studies"}
        absent = [name for name in sorted(modalities) if not len(one.cohort.columns(tables[name], ["subject"]))]
        if absent and len(modalities) > 1:
            require = "ecg" if absent == ["cmr"] else "cmr"
            log.info("%s has no %s: its items take no part in what needs both", one.name, absent[0].upper())
        labels = tuple(name for name in labels if name in one.cohort.label_specs)
        group = None  # the codes are those of all cohorts together
    ecg_pipeline = source.ecg_pipeline if "ecg" in modalities else None
    cmr_pipeline = source.cmr_pipeline if "cmr" in modalities else None
    return paired_dataset(
        config.cmr.views,
        one.cohort,
        one.split.part(part),
        (ecg_pipeline, cmr_pipeline),
        labels,
        DatasetOptions(require=require, ecg_dtype=config.ecg.dtype, group=group),
    )


def _label_facts(dataset: AnyDataset, categories: Mapping[str, str]) -> tuple[LabelFact, ...]:
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
