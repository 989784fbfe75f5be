"""The study file: a typed tree whose every key is known, read from YAML and changed by KEY=VALUE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from ecgcmr.config_errors import explain
from ecgcmr.models.config import StrictConfig

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]
MIN_SEEDS = 3


class SimulateConfig(StrictConfig):
    """A cohort that the study simulates into its output folder.

    Attributes:
        subjects: Number of subjects.
        seed: Seed of the population and of its default split.
        cine: What is rendered (`ecgcmr.cohort.simulate.simulate_cohort`).
    """

    subjects: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)
    cine: Literal["mid", "mid3", "full"] = "mid"


class CohortConfig(StrictConfig):
    """Where the subjects come from: a folder, or a simulation.

    Attributes:
        path: Folder of a cohort.
        simulate: Simulate one instead.
        split: Name of the split; its test part is held out of everything and scored.
    """

    path: str | None = None
    simulate: SimulateConfig | None = None
    split: str = "default"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.simulate is None):
            raise ValueError("name one source of subjects: either path or simulate")
        return self


class RunSpec(StrictConfig):
    """One training: a run file and what changes in it.

    Attributes:
        recipe: Run file, relative to the study file.
        values: Values that replace those of the run file and of `base`, nested as they are there.
        start: Encoder (ecg, cmr) -> stage whose weights it starts from.
    """

    recipe: str
    values: dict[str, Any] = Field(default_factory=dict)
    start: dict[Literal["ecg", "cmr"], str] = Field(default_factory=dict)


class ArmSpec(StrictConfig):
    """One arm: a training of its own, or a stage as it is.

    Attributes:
        title: Name in tables and figures.
        stage: Evaluate the weights of this stage.
        recipe, values, start: As in `RunSpec`.
    """

    title: str
    stage: str | None = None
    recipe: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    start: dict[Literal["ecg", "cmr"], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.stage is None) == (self.recipe is None):
            raise ValueError("an arm has either a recipe, which is trained, or a stage, which is evaluated as it is")
        if self.stage is not None and (self.values or self.start):
            raise ValueError("an arm with a stage trains nothing: values and start belong to the stage")
        return self

    @property
    def training(self) -> RunSpec | None:
        """What the arm trains; None for a stage as it is."""
        if self.recipe is None:
            return None
        return RunSpec(recipe=self.recipe, values=self.values, start=self.start)


class EvaluateConfig(StrictConfig):
    """How every arm is scored on the held-out subjects.

    Attributes:
        labels: Labels that ridge (measurements) and logistic (diagnoses) probes predict from frozen ECG embeddings.
        counts: Numbers of labelled training subjects; null stands for all.
        windows: Windows of a recording whose mean is its embedding.
        gallery: Held-out subjects among whom retrieval searches; null takes all.
        bootstrap_draws: Draws of the subject bootstrap.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    counts: tuple[Annotated[int, Field(gt=1)] | None, ...] = Field(default=(None,), min_length=1)
    windows: int = Field(default=4, gt=0)
    gallery: int | None = Field(default=None, gt=1)
    bootstrap_draws: int = Field(default=1000, ge=20)


class StudyConfig(StrictConfig):
    """One study, complete.

    Attributes:
        name: Name of the study.
        title: Title of its page.
        about: What the page says under its title.
        cohort: Where the subjects come from.
        seeds: Each decides initial weights, augmentations and order of one training of every arm, and one label draw.
        base: Values of all run files, nested as they are there.
        stages: Trainings that several arms start from; each is run once for each seed.
        arms: What is compared.
        compare_to: The arm that is subtracted in paired differences.
        evaluate: How arms are scored.
    """

    name: Name
    title: str
    about: str = ""
    cohort: CohortConfig
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    base: dict[str, Any] = Field(default_factory=dict)
    stages: dict[Name, RunSpec] = Field(default_factory=dict)
    arms: dict[Name, ArmSpec]
    compare_to: str
    evaluate: EvaluateConfig

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < MIN_SEEDS:
            raise ValueError(
                f"seeds are {list(self.seeds)}; a study needs at least {MIN_SEEDS} different ones, because one "
                "training says nothing about how much trainings differ"
            )
        if len(self.arms) < 2:
            raise ValueError("a study compares at least two arms")
        if self.compare_to not in self.arms:
            raise ValueError(f"compare_to is {self.compare_to!r}, expected one of the arms {', '.join(self.arms)}")
        shared = set(self.arms) & set(self.stages)
        if shared:
            raise ValueError(f"{', '.join(sorted(shared))} names an arm and a stage; give them different names")
        named = {f"arms.{key}.stage": arm.stage for key, arm in self.arms.items() if arm.stage is not None}
        for section, specs in (("stages", self.stages), ("arms", self.arms)):
            for key, spec in specs.items():
                named |= {f"{section}.{key}.start.{which}": stage for which, stage in spec.start.items()}
        for where, stage in named.items():
            if stage not in self.stages:
                have = ", ".join(self.stages) or "none"
                raise ValueError(f"{where} is {stage!r}, which is no stage of this study; it has: {have}")
        self.stage_order()
        return self

    def stage_order(self) -> list[str]:
        """Stages so that each comes after those that it starts from.

        Raises:
            ValueError: If they start from each other in a circle.
        """
        order: list[str] = []
        left = dict(self.stages)
        while left:
            ready = [key for key, spec in left.items() if all(start in order for start in spec.start.values())]
            if not ready:
                raise ValueError(f"the stages {', '.join(left)} start from each other in a circle")
            order += ready
            left = {key: spec for key, spec in left.items() if key not in ready}
        return order


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study file and apply KEY=VALUE.

    Args:
        path: YAML file.
        overrides: For instance `cohort.simulate.subjects=200`, `base.train.max_steps=10`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not YAML, a key is unknown (with the nearest valid name) or a value does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such study file; a complete one is configs/study/alignment.yaml")
    tree, given = read_yaml(path, overrides)
    try:
        return StudyConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, StudyConfig, tree, str(path), given)) from None


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a YAML file with keys at its top, and merge KEY=VALUE into it.

    Returns:
        The merged values, and the part that came as KEY=VALUE.

    Raises:
        ValueError: If it cannot be read; names the file.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    wrong = [text for text in overrides if not text.partition("=")[0].strip() or "=" not in text]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not KEY=VALUE, for instance cohort.simulate.subjects=200")
    try:
        file = OmegaConf.load(path)
        if not OmegaConf.is_dict(file):
            raise ValueError(f"{path}: expected keys and values at the top, found {type(file).__name__}")
        given = OmegaConf.from_dotlist(list(overrides))
        merged = OmegaConf.to_container(OmegaConf.merge(file, given), resolve=True)
        extra = OmegaConf.to_container(given)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    assert isinstance(merged, dict)
    assert isinstance(extra, dict)
    return {str(key): value for key, value in merged.items()}, {str(key): value for key, value in extra.items()}


def merged_values(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested values: a later one wins, sections are merged key by key, lists are replaced."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            below = result.get(key)
            both = isinstance(value, Mapping) and isinstance(below, Mapping)
            result[key] = merged_values(below, value) if both else value  # type: ignore[arg-type]
    return result
