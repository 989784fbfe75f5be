"""Reading definition files: YAML into typed objects, with unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """Fields are fixed, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Strict)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with a mapping; the values of `diseases` and `phenotypes` may be files beside it.

    Raises:
        FileNotFoundError: The file, or one that it names, is not there.
        ValueError: It is no YAML mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such definition file; complete ones are in configs/labels")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(data).__name__}")
    for name in ("diseases", "phenotypes", "statements"):
        if isinstance(data.get(name), str):
            data[name] = read_yaml(path.parent / data[name])
    return data


def checked(model: type[Model], data: Mapping[str, Any], path: Path) -> Model:
    """Build a definition from parsed YAML.

    Raises:
        ValueError: Names the file and the first fields that are wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors()[:5]:
            where = ".".join(str(part) for part in problem["loc"]) or "file"
            hint = " (quote codes: '410')" if problem["type"] == "string_type" else ""
            lines.append(f"{where}: {problem['msg']}{hint}")
        raise ValueError(f"{path}: " + "; ".join(lines)) from error
