"""Say what is wrong with a configuration file: the key, its place, what was expected, the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError


def valid_names(model: type[BaseModel], tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted names that a tree may have.

    Args:
        model: The configuration class.
        tree: Values at hand: where a field is one of several classes, `name` in the tree chooses which names count.
        prefix: Put before each name.

    Returns:
        Names of values and of sections, in the order of the classes.
    """
    names: list[str] = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        below = tree.get(name) if isinstance(tree, Mapping) else None
        below = below if isinstance(below, Mapping) else {}
        if get_origin(field.annotation) in (dict, Mapping):  # sections with names of the user's choice
            for key, section in below.items():
                for part in _models_in(field.annotation):
                    names.extend(valid_names(part, section, f"{prefix}{name}.{key}."))
            continue
        for part in _chosen(list(_models_in(field.annotation)), below):
            names.extend(valid_names(part, below, f"{prefix}{name}."))
    return names


def explain(
    error: ValidationError, model: type[BaseModel], tree: Mapping[str, Any], source: str, overridden: Mapping[str, Any]
) -> str:
    """Give one message for all that pydantic found.

    Args:
        error: What pydantic raised.
        model: The configuration class.
        tree: The values that it was given.
        source: Name of the file.
        overridden: The part of the values that came from the command line.

    Returns:
        One line for each problem.
    """
    lines = []
    for problem in error.errors():
        path = _path_in(tree, problem["loc"])
        key = ".".join(path)
        where = "the command line" if _has(overridden, path) else source
        lines.append(_line(problem, key, where, model, tree))
    return "\n".join(dict.fromkeys(lines))


def _line(problem: Any, key: str, where: str, model: type[BaseModel], tree: Mapping[str, Any]) -> str:
    kind, value = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"{where}: unknown key {key!r}; {nearest(key, valid_names(model, tree))}"
    if kind == "missing":
        return f"{where}: {key!r} is missing and has no default; set {key}=..."
    if kind == "union_tag_invalid":
        tag, allowed = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        return f"{where}: {key}.name is {tag!r}, expected one of {allowed}"
    if kind == "union_tag_not_found":
        return f"{where}: {key}.name is missing; it names which {key} to build"
    expected = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{where}: {key}: {expected}" if key else f"{where}: {expected}"
    return f"{where}: {key} is {value!r} ({type(value).__name__}); {expected[:1].lower()}{expected[1:]}"


def nearest(key: str, names: list[str]) -> str:
    """Say which valid dotted name is closest to a wrong one; a right last part in a wrong section counts most."""
    last = key.rpartition(".")[2]
    same_last = [name for name in names if name.rpartition(".")[2] == last]
    section = key.rpartition(".")[0]
    beside = [name for name in names if name.rpartition(".")[0] == section]
    lasts = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = (
        difflib.get_close_matches(key, beside, n=1, cutoff=0.75)
        or difflib.get_close_matches(key, same_last, n=1, cutoff=0.0)
        or difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        or [lasts[name] for name in difflib.get_close_matches(last, list(lasts), n=1, cutoff=0.6)]
    )
    if close:
        return f"the nearest valid name is {close[0]!r}"
    return f"valid here: {', '.join(beside or [name for name in names if '.' not in name])}"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models_in(part)


def _chosen(models: list[type[BaseModel]], tree: Mapping[str, Any]) -> list[type[BaseModel]]:
    """Of several classes that tell each other apart by a literal `name`, those that the tree's name allows."""
    if len(models) < 2:
        return models
    name = tree.get("name")
    fitting = [model for model in models if name in get_args(model.model_fields["name"].annotation)]
    return fitting or models


def _path_in(tree: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Drop the steps that pydantic adds for chosen classes and keep those that are keys."""
    path: list[str] = []
    node = tree
    for index, step in enumerate(loc):
        if isinstance(node, Mapping) and step in node:
            node = node[step]
        elif isinstance(node, list) and isinstance(step, int):
            node = node[step] if step < len(node) else None
        elif index < len(loc) - 1 and isinstance(node, Mapping):
            continue
        path.append(str(step))
    return path


def _has(tree: Any, path: list[str]) -> bool:
    for step in path:
        if not isinstance(tree, Mapping) or step not in tree:
            return isinstance(tree, list)
        tree = tree[step]
    return bool(path)
