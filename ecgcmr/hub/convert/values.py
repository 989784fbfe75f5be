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


def heads_option(options: Mapping[str, str], name: str, width: int, size: int) -> int:
    """Read a number of attention heads, which no file holds; "auto" gives heads of `size` features.

    Raises:
        ValueError: If the heads do not divide the width.
    """
    heads = whole_option(options, name, max(1, width // size))
    if width % heads:
        raise ValueError(f"option {name}={options[name]}: {heads} heads do not divide the width {width}; give {name}=N")
    return heads
