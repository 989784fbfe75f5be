"""The model card: what a weights folder says about itself, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_NOT_A_DEVICE = (
    "Research software. This is not a medical device: it must not be used for diagnosis, triage or treatment, "
    "and no authority has assessed it."
)
_SIMULATED = (
    "**Trained on simulated data.** The subjects, ECGs and images behind these weights come from a simulator. They "
    "show that the method works where the truth is known; they say nothing about real subjects."
)


class Card(BaseModel):
    """What must be said about weights.

    Attributes:
        name: Name of the weights.
        stage: What they were trained for: the name of the objective, for instance masked_ecg or supervised.
        license: License of the weights (not of the code).
        provenance: Where the training data come from: "simulated", a public data set, or free text.
        trained_on: How many subjects and items of what.
        intended_use: What they are for.
        limits: What is known not to work.
        metrics: Values reached, by name.
        run: How they were made: seed, steps, versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    stage: str = Field(min_length=1)
    license: str = Field(min_length=1)
    provenance: str = Field(min_length=1)
    trained_on: str = Field(min_length=1)
    intended_use: str = "Research on what an ECG tells about the heart that cardiac MRI sees."
    limits: str = (
        "Performance outside the population, devices and protocols of the training data is unknown. Standard 12-lead "
        "ECGs at rest only."
    )
    metrics: dict[str, float] = Field(default_factory=dict)
    run: dict[str, Any] = Field(default_factory=dict)


def render_card(card: Card, config: Mapping[str, Any]) -> str:
    """Write README.md of a weights folder, with the metadata block that model hubs read."""
    lines = [
        "---", f"license: {_hub_license(card.license)}", "library_name: ecgcmr",
        "tags: [ecg, cardiac-mri, representation-learning]", "---", "",
        f"# {card.name}", "", f"> {_NOT_A_DEVICE}", "",
    ]  # fmt: skip
    if card.provenance == "simulated":
        lines += [_SIMULATED, ""]
    lines += ["## Use", "", "```python", "import ecgcmr", "", 'model = ecgcmr.load_model("local-dir:THIS_FOLDER")']
    if "ecg" in config["modules"]:
        lines += ['embedding = model.embed("recording.hea")  # (1, D)']
    if "ecg" in config["modules"] and config["labels"]:
        lines += ['table = model.predict("recording.hea")  # one column for each label']
    lines += ["```", "", "## What it is", "", *_facts(card, config), ""]
    if config["labels"]:
        lines += ["## Outputs", "", "| label | kind | unit |", "|---|---|---|"]
        lines += [f"| {label['name']} | {label['kind']} | {label['unit'] or '-'} |" for label in config["labels"]]
        lines += [""]
    if card.metrics:
        lines += ["## Metrics on the validation subjects of the run", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in card.metrics.items()] + [""]
    lines += ["## Intended use", "", card.intended_use, "", "## Limits", "", card.limits, ""]
    return "\n".join(lines)


def _facts(card: Card, config: Mapping[str, Any]) -> list[str]:
    facts = [
        f"- Stage: {card.stage}", f"- Modules: {', '.join(config['modules'])}", f"- Training data: {card.trained_on}",
        f"- Provenance of the data: {card.provenance}", f"- License of the weights: {card.license}",
    ]  # fmt: skip
    if config["ecg"]:
        ecg = config["ecg"]
        facts.append(
            f"- ECG input: {', '.join(ecg['leads'])}; pipeline `{ecg['pipeline']}` at {ecg['rate_hz']:g} Hz; the model "
            f"reads the first {ecg['n_samples']} samples ({ecg['n_samples'] / ecg['rate_hz']:g} s)"
        )
    if config["cmr"]:
        facts.append(f"- CMR input: shape {tuple(config['cmr']['shape'])}, pipeline `{config['cmr']['pipeline']}`")
    facts.append(f"- Written by ecgcmr {config['ecgcmr_version']}")
    facts += [f"- {key}: {value}" for key, value in card.run.items()]
    return facts


def _hub_license(name: str) -> str:
    """Model hubs know short names; anything else is `other`."""
    known = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC-BY-4.0": "cc-by-4.0", "CC0-1.0": "cc0-1.0"}
    return known.get(name, "other")
