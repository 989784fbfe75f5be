"""index.json: every weights folder of a place, with the size and the hash of each of its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ecgcmr.hub.catalogue import describe_folder
from ecgcmr.hub.folder import write_text
from ecgcmr.hub.reading import check_place, read_json
from ecgcmr.hub.source import FILES, INDEX

INDEX_FORMAT = 1


def build_index(place: Path) -> dict[str, Any]:
    """Describe all weights folders in a place.

    Args:
        place: A folder of weights folders; hidden ones are left out.

    Returns:
        The content of index.json: name, stage, license, provenance, format_version, dtype and parameters of each
        folder, with size and sha256 of each file. Sizes are in megabytes, exact to the byte: an integer of seven
        digits must not stand in a tracked file, where it could be the number of a subject.

    Raises:
        FileNotFoundError: If the place does not exist, or a folder lacks a file.
        ValueError: If a folder is not called as its config.json says, or cannot be read.
    """
    if not place.is_dir():
        raise FileNotFoundError(f"{place}: no such folder")
    folders = [path for path in sorted(place.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return {"format": INDEX_FORMAT, "models": [_entry(folder) for folder in folders]}


def write_index(place: Path) -> Path:
    """Write index.json of a place, whole or not at all.

    Raises:
        FileNotFoundError, ValueError, OSError: As `build_index`, or if it cannot be written.
    """
    path = place / INDEX
    write_text(path, json.dumps(build_index(place), indent=1, ensure_ascii=False) + "\n")
    return path


def read_index(place: Path) -> dict[str, Any]:
    """Read index.json of a place.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another format.
    """
    path = place / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no index; write it by: ecgcmr weights index {place}")
    index = read_json(path)
    if index.get("format") != INDEX_FORMAT or not isinstance(index.get("models"), list):
        raise ValueError(f"{path}: expected format {INDEX_FORMAT} and a list of models, found {index.get('format')!r}")
    return index


def check_against_index(folder: Path) -> bool:
    """Compare a folder with the index beside it.

    Returns:
        True if the index lists it and every file is the listed one; False if no index lists it.

    Raises:
        ValueError: Naming each file that is not the one listed.
    """
    if not (folder.parent / INDEX).is_file():
        return False
    listed = {entry["name"]: entry for entry in read_index(folder.parent)["models"]}
    if folder.name not in listed:
        return False
    files = {entry["name"]: entry["sha256"] for entry in listed[folder.name]["files"]}
    changed = [name for name, digest in files.items() if _sha256(folder / name) != digest]
    if changed:
        raise ValueError(
            f"{folder}: not as {folder.parent / INDEX} lists it: {', '.join(changed)}; get the folder again, or write "
            f"the index anew if the change was meant: ecgcmr weights index {folder.parent}"
        )
    return True


def _entry(folder: Path) -> dict[str, Any]:
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{folder}: {', '.join(absent)} missing: this is not a complete weights folder")
    check_place(folder, FILES)
    config, model = read_json(folder / "config.json"), describe_folder(folder)
    if model.name != folder.name:
        raise ValueError(
            f"{folder}: its config.json calls it {model.name!r}; a folder in an index bears its own name (rename it, "
            "or pack it under this name: ecgcmr weights pack)"
        )
    return {
        "name": model.name,
        "stage": model.stage,
        "license": model.license,
        "provenance": model.provenance,
        "format_version": config.get("format_version"),
        "dtype": model.dtype,
        "parameters_millions": model.parameters / 1e6,
        "files": [
            {"name": name, "megabytes": (folder / name).stat().st_size / 1e6, "sha256": _sha256(folder / name)}
            for name in FILES
        ],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
