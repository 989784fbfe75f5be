"""Look for what must not be published: numbers of subjects, paths of a machine, pickles, links to other files.

A finding says the file and the line, never the number itself: findings end in logs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ecgcmr.hub.reading import check_magic, tensor_header

_TEXT = (".md", ".json", ".yaml", ".yml", ".txt", ".csv", ".toml", ".py", "")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npz", ".npy")

# Decimals, hashes and DOIs hold seven digits in a row by chance; nothing else is let through.
_HARMLESS = re.compile(r"\b10\.\d{4,9}/\S+|\d+\.\d+(?:[eE][+-]?\d+)?|\b[0-9a-f]{12,64}\b")
_SEVEN_DIGITS = re.compile(r"(?<!\d)[1-9]\d{6}(?!\d)")
_PATHS = re.compile(
    r"(?<![\w:/.~<>-])/(?:[\w.+-]+/)+[\w.+-]*"  # at least two parts: /data/cohort
    r"|(?<![\w:/.~<>-])/(?:home|root|Users|mnt|data|tmp|scratch)\b"
    r"|(?<!\w)[A-Za-z]:\\+\w"
    r"|file://"
)


def scan_text(text: str, where: str) -> list[str]:
    """Look through a text.

    Args:
        text: What to look through.
        where: How findings call it.

    Returns:
        One sentence for each finding.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if _SEVEN_DIGITS.search(_HARMLESS.sub(" ", line)):
            found.append(f"{where}, line {number}: a number of seven digits, which may be that of a subject")
        if _PATHS.search(line):
            found.append(f"{where}, line {number}: an absolute path of a machine")
    return found


def scan_folder(folder: Path) -> list[str]:
    """Look through all files in and below a folder.

    Returns:
        One sentence for each finding; empty if the folder is clean.
    """
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        where = str(path.relative_to(folder))
        found += scan_text(where, f"the name of {where!r}") if _SEVEN_DIGITS.search(where) else []
        if path.is_symlink():
            found.append(f"{where}: a link to another file")
        elif path.is_file():
            found += _scan_file(path, where)
    return found


def _scan_file(path: Path, where: str) -> list[str]:
    with path.open("rb") as file:
        head = file.read(9)
    try:
        check_magic(path, head)
    except ValueError:
        return [f"{where}: a pickle or an archive of pickles, which can run code"]
    if path.suffix in _PICKLES:
        return [f"{where}: a file of a kind that can hold pickles ({path.suffix})"]
    if path.suffix == ".safetensors":
        return _scan_tensors(path, where)
    if path.suffix in _TEXT:
        return scan_text(path.read_text(encoding="utf-8", errors="replace"), where)
    return []


def _scan_tensors(path: Path, where: str) -> list[str]:
    from safetensors import safe_open

    header = tensor_header(path)
    with safe_open(path, framework="numpy") as file:
        notes: dict[str, Any] = file.metadata() or {}
        found = scan_text(
            "\n".join([*header, *map(str, notes), *map(str, notes.values())]), f"{where} (names and notes)"
        )
        for name, entry in header.items():
            # A single whole number is a counter of steps; a list of them can be a list of subjects.
            if entry["dtype"] in ("I32", "I64", "U32", "U64") and entry["shape"]:
                values = file.get_tensor(name)
                if ((values >= 1_000_000) & (values < 10_000_000)).any():
                    found.append(
                        f"{where}, tensor {name}: whole numbers of seven digits, which may be those of subjects"
                    )
    return found
