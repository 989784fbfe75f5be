"""README.md of a weights folder: the card as a page, with the head that model hubs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecgcmr.hub.card import Card, Metric, provenance_kinds

_NOT_A_DEVICE = (
    "Research software. This is not a medical device: it must not be used for diagnosis, triage or treatment, "
    "and no authority has assessed it."
)
_SIMULATED = (
    "**Trained on simulated data.** The subjects, ECGs and images behind these weights come from a simulator. They "
    "show that the method works where the truth is known; they say nothing about real subjects."
)
_PARTLY_SIMULATED = (
    "**Trained in part on simulated data.** Part of the subjects, ECGs and images behind these weights come from a "
    "simulator; numbers measured on simulated subjects say nothing about real ones."
)
_LICENSES = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC-BY-4.0": "cc-by-4.0", "CC0-1.0": "cc0-1.0"}
_LICENSES |= {"CC-BY-NC-4.0": "cc-by-nc-4.0", "CC-BY-SA-4.0": "cc-by-sa-4.0", "BSD-3-Clause": "bsd-3-clause"}


def render_card(card: Card, config: Mapping[str, Any]) -> str:
    """Write README.md of a weights folder, with the metadata block that model hubs read."""
    lines = [
        "---", *_hub_license(card.license), "library_name: ecgcmr",
        "tags: [ecg, cardiac-mri, representation-learning]", "---", "",
        f"# {card.name}", "", f"> {_NOT_A_DEVICE}", "",
    ]  # fmt: skip
    kinds = provenance_kinds(card.provenance)
    if "simulated" in kinds:
        lines += [_SIMULATED if len(kinds) == 1 else _PARTLY_SIMULATED, ""]
    lines += ["## Use", "", "```python", "import ecgcmr", "", 'model = ecgcmr.load_model("local-dir:THIS_FOLDER")']
    if "ecg" in config["modules"]:
        lines += ['embedding = model.embed("recording.hea")  # (1, D)']
    beside = config["modules"]["tabular"]["columns"] if config.get("head_options", {}).get("tabular") else []
    if "ecg" in config["modules"] and config["labels"]:
        known = f", covariates={ {column['name']: None for column in beside} }" if beside else ""
        lines += [f'table = model.predict("recording.hea"{known})  # one column for each label']
    lines += ["```", "", "## What it is", "", *_facts(card, config), ""]
    if beside:
        lines += [
            "## Inputs beside the ECG",
            "",
            "None where a value is not known.",
            "",
            "| column | values |",
            "|---|---|",
        ]
        lines += [f"| {column['name']} | {_values(column)} |" for column in beside] + [""]
    if config["labels"]:
        lines += ["## Outputs", "", "| label | kind | unit |", "|---|---|---|"]
        lines += [f"| {label['name']} | {label['kind']} | {label['unit'] or '-'} |" for label in config["labels"]]
        lines += [""]
    if card.metrics:
        lines += ["## Metrics", "", "| metric | value | 95 % interval | n | measured on | note |", "|---" * 6 + "|"]
        lines += [_row(metric) for metric in card.metrics] + [""]
    if card.command:
        lines += ["## How it was made", "", "```", card.command.strip(), "```", ""]
    lines += ["## Intended use", "", card.intended_use, "", "## Limits", "", card.limits, ""]
    return "\n".join(lines)


def _values(column: Mapping[str, Any]) -> str:
    """What a covariate may be."""
    if column["kind"] == "category":
        return ", ".join(column["levels"])
    return "0 or 1" if column["kind"] == "binary" else f"number [{column['unit'] or '-'}]"


def add_approval(page: str, approval: str) -> str:
    """Write the reference of an approval into a page, and leave everything else as it is."""
    line = approval_line(approval)
    kept = [old for old in page.splitlines() if not old.startswith(approval_line(""))]
    places = [i for i, old in enumerate(kept) if old.startswith("- License of the weights:")]
    at = places[0] + 1 if places else len(kept)
    return "\n".join([*kept[:at], line, *kept[at:]]) + "\n"


def approval_line(approval: str) -> str:
    """Give the line of the page that names the approval."""
    return f"- Approval for publishing: {approval}"


def _facts(card: Card, config: Mapping[str, Any]) -> list[str]:
    facts = [
        f"- Stage: {card.stage}", f"- Modules: {', '.join(config['modules'])}", f"- Training data: {card.trained_on}",
        f"- Provenance of the data: {card.provenance}", f"- License of the weights: {card.license}",
    ]  # fmt: skip
    if card.approval:
        facts.append(approval_line(card.approval))
    if config["ecg"]:
        ecg = config["ecg"]
        facts.append(
            f"- ECG input: {', '.join(ecg['leads'])}; pipeline `{ecg['pipeline']}` at {ecg['rate_hz']:g} Hz; the model "
            f"reads the first {ecg['n_samples']} samples ({ecg['n_samples'] / ecg['rate_hz']:g} s)"
        )
    if config["cmr"]:
        facts.append(f"- CMR input: shape {tuple(config['cmr']['shape'])}, pipeline `{config['cmr']['pipeline']}`")
    storage = config["storage"]
    if storage["dtype"] != "float32":
        kept = f" ({', '.join(storage['exact'])} in float32)" if storage.get("exact") else ""
        facts.append(
            f"- Stored in {storage['dtype']}{kept}, computed in float32: no output of the check moved by "
            f"more than {storage['largest_change']:.1g} of itself"
        )
    facts.append(f"- Written by ecgcmr {config['ecgcmr_version']}")
    facts += [f"- {key}: {value}" for key, value in card.run.items()]
    return facts


def _row(metric: Metric) -> str:
    interval = f"{metric.lo:.4g} to {metric.hi:.4g}" if metric.lo is not None else "-"
    cells = (metric.name, f"{metric.value:.4g}", interval, metric.n or "-", metric.where or "-", metric.note or "-")
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"


def _hub_license(name: str) -> list[str]:
    """Model hubs know short names; anything else is `other` and a name."""
    if name in _LICENSES:
        return [f"license: {_LICENSES[name]}"]
    return ["license: other", f"license_name: {'-'.join(name.lower().split())}"]
