"""Format versions of config.json, and the step from each to the next; folders on the disk are not touched.

1. The first: metrics as {name: value}, tensors always in float32.
2. Metrics with intervals and what they were measured on; `storage` says how tensors are stored; the whole card
   (command, intended use, limits, approval) stands in config.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ecgcmr
from ecgcmr.hub.card import metrics_of_run

FORMAT_VERSION = 2


def migrate(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Bring the content of config.json to this version's format.

    Args:
        config: As it was read.
        path: Of the file, for messages.

    Raises:
        ValueError: If the version is unknown or newer, or a field that every version has is missing.
    """
    version = config.get("format_version")
    if version not in (*STEPS, FORMAT_VERSION) or isinstance(version, bool):
        advice = "; update ecgcmr" if isinstance(version, int) and version > FORMAT_VERSION else ""
        raise ValueError(
            f"{path}: format_version is {version!r}, this ecgcmr ({ecgcmr.__version__}) reads 1 to {FORMAT_VERSION}"
            f"{advice}"
        )
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(config.get(name), kind)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} missing, or not of the type that a weights folder has there")
    while config["format_version"] != FORMAT_VERSION:
        config = STEPS[config["format_version"]](config)
    return config


def migrate_1_to_2(config: dict[str, Any]) -> dict[str, Any]:
    """Give metrics the form that has room for intervals, and say that tensors are stored in float32.

    Format 1 kept intended use and limits in README.md only; where they are absent, `Card` has what every folder of
    that format said.
    """
    metrics = metrics_of_run(config.get("metrics") or {})
    storage = {"dtype": "float32", "largest_change": 0.0, "exact": []}
    return {**config, "format_version": 2, "metrics": metrics, "storage": storage}


STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: migrate_1_to_2}

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str, "modules": dict, "labels": list, "run": dict, "sha256": str, "head_options": dict, "license": str,
    "provenance": str, "ecg": (dict, type(None)), "cmr": (dict, type(None)),
}  # fmt: skip
