"""Options of a converter as numbers: typed text in, a checked value or a clear message out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ecgcmr.hub.convert.registry import AUTO


def whole_option(options: Mapping[str, str], name: str, auto: int) -> int:
    """Read a positive whole number; "auto" gives `auto`.

    Raises:
        ValueError: Naming the option and its value.
    """
    text = options[name]
    if text == AUTO:
        return auto
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"option {name}={text}: expected a positive whole number")
    return int(text)


def number_option(options: Mapping[str, str], name: str, auto: float) -> float:
    """Read a positive finite number; "auto" gives `auto`.

    Raises:
        ValueError: Naming the option and its value.
    """
    text = options[name]
    if text == AUTO:
        return auto
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError(f"option {name}={text}: expected a positive number")
    return value


def word_option(options: Mapping[str, str], name: str, known: Iterable[str]) -> str:
    """Read one of some words.

    Raises:
        ValueError: Naming the option, its value and the words.
    """
    words = tuple(known)
    if options[name] not in words:
        raise ValueError(f"option {name}={options[name]}: expected one of {', '.join(words)}")
    return options[name]


def heads_option(
    options: Mapping[str, str], name: str, width: int, size: int, stated: Mapping[str, float] | None = None
) -> int:
    """Read a number of attention heads, which no file of weights holds.

    Args:
        options: Of the converter.
        name: Of the option.
        width: Features of a token.
        size: Features of a head, unless it is said otherwise.
        stated: Heads by the name of the option, as a configuration beside the file states them.

    Raises:
        ValueError: If the heads do not divide the width.
    """
    heads = whole_option(options, name, int((stated or {}).get(name, max(1, width // size))))
    if heads < 1 or width % heads:
        raise ValueError(f"option {name}={options[name]}: {heads} heads do not divide the width {width}; give {name}=N")
    return heads
