"""From the name of a format to its options and its converter, and from the keys of a file to formats.

Nothing heavy is imported here; a converter is imported when its format is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ecgcmr.hub.convert.formats import AUTO, FORMATS, Format, Option

if TYPE_CHECKING:
    from ecgcmr.hub.convert.contract import Converted, Converter
__all__ = [
    "AUTO",
    "FORMATS",
    "Format",
    "Option",
    "convert",
    "describe_formats",
    "detect",
    "detect_one",
    "find_converter",
    "find_format",
    "parse_options",
]


def find_format(name: str) -> Format:
    """Look up a format.

    Raises:
        ValueError: If there is none of that name; the message has the nearest ones.
    """
    if name not in FORMATS:
        raise ValueError(f"the format {name!r} is unknown; {_near(name, FORMATS)}")
    return FORMATS[name]


def parse_options(name: str, given: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    """Complete options by the defaults of a format.

    Args:
        name: The format.
        given: By name, or as KEY=VALUE.

    Returns:
        A value for every option of the format.

    Raises:
        ValueError: For an option that the format does not have, that is no KEY=VALUE, or that is given twice.
    """
    options, pairs = find_format(name).options, []
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        for text in given:
            key, equals, value = text.partition("=")
            if not equals or not value.strip():
                raise ValueError(f"option {text!r} is no KEY=VALUE")
            pairs.append((key.strip(), value.strip()))
    chosen: dict[str, str] = {}
    for key, value in pairs:
        if key not in options:
            what = _near(key, options) if options else "it has none"
            raise ValueError(f"the format {name!r} has no option {key!r}; {what}")
        if key in chosen:
            raise ValueError(f"option {key!r} is given twice: {chosen[key]!r} and {value!r}")
        chosen[key] = value
    return {key: chosen.get(key, option.default) for key, option in options.items()}


def find_converter(name: str) -> Converter:
    """Import the converter of a format."""
    module, _, function = find_format(name).converter.partition(":")
    converter: Converter = getattr(import_module(f"ecgcmr.hub.convert.{module}"), function)
    return converter


def convert(path: str | Path, name: str, options: Mapping[str, str] | Iterable[str] = ()) -> Converted:
    """Convert a file of third-party weights.

    Args:
        path: The file.
        name: The format; "auto" takes the one that the keys suggest if no other would do.
        options: By name, or as KEY=VALUE.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: For an unknown format or option, or a file that is not of the format, by key and reason; if its keys
            agree with other formats, the message has them.
    """
    path = Path(path)
    name = detect_one(path) if name == AUTO else name
    chosen = parse_options(name, options)
    try:
        return find_converter(name)(path, chosen)
    except ValueError as error:
        try:
            others = detect(path)
        except (OSError, ValueError):
            others = []
        if others and name not in others:
            raise ValueError(f"{error}; its keys agree with the format {' or '.join(others)}") from error
        raise


def detect(path: str | Path) -> list[str]:
    """Give the formats that the keys of a file agree with; which of them it is, keys alone may not tell."""
    from ecgcmr.hub.convert.state import open_state

    keys = list(open_state(path).stripped("encoder_ecg.").tensors)

    def agrees(one: Format) -> bool:
        found = [any(re.match(pattern, key) for key in keys) for pattern in one.has]
        return bool(found) and all(found) and not any(re.match(p, key) for p in one.lacks for key in keys)

    return [name for name, one in FORMATS.items() if agrees(one)]


def detect_one(path: Path) -> str:
    """Give the format that the keys of a file agree with.

    Raises:
        ValueError: If there is none, or more than one: then it is the user who knows.
    """
    found = detect(path)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"{path}: its keys agree with no known format; known: {', '.join(FORMATS)}")
    raise ValueError(f"{path}: its keys agree with {', '.join(found)}; say which it is with --from")


def describe_formats() -> list[str]:
    """List all formats with their options and defaults, in lines for a terminal."""
    lines = []
    for name, one in FORMATS.items():
        lines.append(f"{name}: {one.about}")
        lines += [f"    {f'{key}={option.default}':<24}{option.about}" for key, option in one.options.items()]
    return lines


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
