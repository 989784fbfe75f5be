"""ICD codes: one spelling for each system, and sets of codes written as categories, subdivisions or ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SYSTEMS = ("icd10", "icd9")
# ICD-10 of the WHO has three to five characters, ICD-10-CM up to seven; ICD-9 and ICD-9-CM have V and E codes.
_WHOLE = {
    "icd10": re.compile(r"[A-Z][0-9][0-9A-Z][0-9A-Z]{0,4}"),
    "icd9": re.compile(r"[0-9]{3}[0-9]{0,2}|V[0-9]{2}[0-9]{0,2}|E[0-9]{3}[0-9]?"),
}
_CATEGORY = {"icd10": re.compile(r"[A-Z][0-9][0-9A-Z]"), "icd9": re.compile(r"[0-9]{3}|V[0-9]{2}|E[0-9]{3}")}


def normalize(system: str, codes: pd.Series) -> pd.Series:
    """Codes without dots, daggers and the words behind them, in capitals; "" where a text is no code of the system.

    An ICD-9 E code ("E1000", an accident) looks like ICD-10 ("E10.00", diabetes): the system decides, never the code.
    """
    first = (
        codes.astype("string").str.strip().str.split().str[0].astype("string")
    )  # "I21.4 Acute ..." where labels were exported
    text = first.str.upper().str.replace(r"[.*†+]|-+$", "", regex=True)
    whole = text.str.fullmatch(_WHOLE[system].pattern)
    return text.where(whole.fillna(False).astype(bool), "").astype(object)


def expand(system: str, entry: str) -> tuple[str, ...]:
    """Prefixes that an entry of a definition stands for: "I21", "I25.2" or the range of categories "I20-I25".

    Raises:
        ValueError: The entry is shorter than a category, is no code of the system, or is a range that runs backward.
    """
    text = entry.strip().upper()
    first, dash, last = (part.strip() for part in text.partition("-"))
    if dash:
        if not (_CATEGORY[system].fullmatch(first) and _CATEGORY[system].fullmatch(last)):
            raise ValueError(f"{entry!r}: the ends of a range must be {system} categories, such as {_sample(system)}")
        letter, start, stop = _letter(first), _number(first), _number(last)
        if letter != _letter(last) or start is None or stop is None or start > stop:
            raise ValueError(f"{entry!r}: a range must run upward within one letter, such as {_sample(system)}")
        width = len(first) - len(letter)
        return tuple(f"{letter}{number:0{width}d}" for number in range(start, stop + 1))
    code = text.replace(".", "")
    if not _WHOLE[system].fullmatch(code):
        raise ValueError(
            f"{entry!r} is no {system} code: write a category, a subdivision or a range of categories, such as "
            f"{_sample(system)}"
        )
    return (code,)


def _sample(system: str) -> str:
    return {"icd10": "I21, I25.2, I20-I25", "icd9": "410, 427.3, 410-414"}[system]


def _letter(category: str) -> str:
    return category[0] if category[0].isalpha() else ""


def _number(category: str) -> int | None:
    digits = category[len(_letter(category)) :]
    return int(digits) if digits.isdigit() else None


@dataclass(frozen=True)
class CodeSet:
    """Codes of one or more systems.

    Attributes:
        prefixes: System -> prefixes, each a category or a subdivision.
    """

    prefixes: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, entries: Mapping[str, Sequence[str]]) -> CodeSet:
        """Read the entries of a definition.

        Raises:
            ValueError: An unknown system or a wrong entry.
        """
        unknown = set(entries) - set(SYSTEMS)
        if unknown:
            raise ValueError(f"code system {sorted(unknown)[0]!r} is not known; there are {', '.join(SYSTEMS)}")
        found = {
            system: [code for entry in listed for code in expand(system, entry)] for system, listed in entries.items()
        }
        return cls({system: tuple(dict.fromkeys(codes)) for system, codes in found.items()})

    def __or__(self, other: CodeSet) -> CodeSet:
        """Codes of either set."""
        systems = dict.fromkeys([*self.prefixes, *other.prefixes])
        joined = {name: (*self.prefixes.get(name, ()), *other.prefixes.get(name, ())) for name in systems}
        return CodeSet({name: tuple(dict.fromkeys(codes)) for name, codes in joined.items()})

    def __bool__(self) -> bool:
        return any(self.prefixes.values())

    def matches(self, system: str, codes: pd.Series) -> NDArray[np.bool_]:
        """Which normalized codes (n,) of a system belong to the set: those that begin with one of its prefixes.

        A code that is coarser than an entry ("I25" for the entry "I25.2") does not.
        """
        prefixes = self.prefixes.get(system, ())
        if not prefixes or not len(codes):
            return np.zeros(len(codes), dtype=bool)
        # Tables repeat a few thousand codes millions of times: look each up once.
        names, inverse = np.unique(codes.to_numpy(dtype=str), return_inverse=True)
        hit = np.array([name.startswith(prefixes) for name in names], dtype=bool)
        found: NDArray[np.bool_] = hit[inverse]
        return found
