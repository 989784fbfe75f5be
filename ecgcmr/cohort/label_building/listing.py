"""What a definition file says, as rows for a table that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ecgcmr.cohort.label_building.concepts import Codes, Disease
from ecgcmr.cohort.label_building.definition_files import checked, read_yaml
from ecgcmr.cohort.label_building.definitions import OutcomeDefinitions
from ecgcmr.cohort.label_building.statements import StatementDefinitions


def list_definitions(path: Path) -> dict[str, list[dict[str, str]]]:
    """Title -> rows of a definition file.

    Raises:
        FileNotFoundError, ValueError: As `read_yaml` and `checked`.
    """
    data = read_yaml(path)
    if data.get("kind") == "statements":
        rules = checked(StatementDefinitions, data, path)
        rows = [
            {"label": item.name, "statements": ", ".join(item.codes), "meaning": item.description, "group": item.group}
            for item in rules.classes
        ]
        return {f"Statements of {rules.name}": rows}
    outcomes = checked(OutcomeDefinitions, data, path)
    found: dict[str, list[dict[str, str]]] = {}
    if outcomes.diseases:
        found["Diseases"] = [_disease(disease) for disease in outcomes.diseases.diseases]
    if outcomes.phenotypes:
        found["Phenotypes"] = [
            {
                "label": item.name,
                "field": str(item.field),
                "meaning": item.description,
                "unit": item.unit,
                "plausible": f"{item.low:g} to {item.high:g}",
                "not verified": item.unverified,
            }
            for item in outcomes.phenotypes.fields
        ]
    return found


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(row[name].replace('|', '/') for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _disease(disease: Disease) -> dict[str, str]:
    options = [
        f"`{disease.name}:{name}` {'(included) ' * option.include}{_codes(option)}"
        for name, option in disease.options.items()
    ]
    return {
        "label": disease.name,
        "disease": disease.title,
        "codes": _codes(disease.codes),
        "options": "; ".join(options),
        "neither case nor control": _codes(disease.not_controls),
        "controls": disease.controls,
        "source": "; ".join(disease.source),
    }


def _codes(codes: Codes) -> str:
    parts = [("ICD-10", codes.icd10), ("ICD-9", codes.icd9)]
    return "; ".join(f"{name} {', '.join(listed)}" for name, listed in parts if listed)
