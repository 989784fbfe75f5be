"""Merging the parts that array jobs wrote into the cohort that one run would have written, byte for byte."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.cohort.ingest import IngestReport, Progress, make_report
from ecgcmr.cohort.ingest_about import About
from ecgcmr.cohort.ingest_finish import finish
from ecgcmr.cohort.writer import ABOUT_FOLDER, PART_FILE, CohortWriter

_OWN = ("chunk", "n_chunks", "cine_dtype")


def merge_parts(
    parts: Sequence[Path],
    out: Path,
    force: bool = False,
    keep_map: Path | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Merge parts into a cohort. A killed merge goes on when it is repeated.

    Args:
        parts: Folders that `ingest` wrote with `chunk`, in any order; all of one run, each once.
        out: Folder of the cohort.
        force: Replace a finished cohort.
        keep_map: The list that one of the parts wrote; its provisional numbers become those of the cohort.
        progress: Called with (parts done, parts in all).

    Raises:
        FileNotFoundError: A folder is no finished part.
        ValueError: Parts of different runs, a part twice, or one missing; names them.
    """
    facts = sorted(((_read_part(path), path) for path in parts), key=lambda pair: (pair[0]["chunks"], str(pair[1])))
    if not facts:
        raise ValueError("nothing to merge: give the folders of all parts")
    identity = _identity(facts[0][0])
    _check(facts, identity)
    n_chunks = int(facts[0][0]["chunks"][2])
    with CohortWriter(out, identity, n_chunks, facts[0][0]["plan"]["cine_dtype"], force) as writer:
        about_folder = writer.partial / ABOUT_FOLDER
        shutil.copytree(facts[0][1] / ABOUT_FOLDER, about_folder, dirs_exist_ok=True)
        for number, (part, path) in enumerate(facts, 1):
            first, stop, _ = part["chunks"]
            if writer.n_merged <= first < stop:
                writer.append_part(path)
            if progress is not None:
                progress(number, len(facts))
        about = About.load(about_folder)
        ended = finish(writer, about)
    if keep_map is not None and ended.out is not None:
        _renumber_map(keep_map, {int(old): new for new, old in enumerate(np.asarray(ended.dense).tolist())})
    return make_report(ended, about)


def _read_part(path: Path) -> dict[str, Any]:
    file = path / PART_FILE
    if not file.is_file():
        begun = path.with_name(f"{path.name}.partial").is_dir()
        hint = "; it is unfinished: repeat the command that made it" if begun else ""
        raise FileNotFoundError(f"{path} is no part of a cohort: it holds no {PART_FILE}{hint}")
    try:
        facts = json.loads(file.read_text())
        _ = facts["chunks"], facts["plan"], facts["elements"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not what `ecgcmr ingest --chunk` writes ({error!r}); make the part again") from error
    return dict(facts)


def _identity(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts["plan"].items() if key not in _OWN}


def _check(facts: Sequence[tuple[dict[str, Any], Path]], identity: dict[str, Any]) -> None:
    """Refuse parts of different runs, and sets that do not cover every chunk exactly once."""
    for part, path in facts[1:]:
        other = _identity(part)
        different = sorted(key for key in other.keys() | identity.keys() if other.get(key) != identity.get(key))
        if different or part["plan"]["chunk"][1] != facts[0][0]["plan"]["chunk"][1]:
            names = ", ".join(different) or "the number of parts"
            raise ValueError(
                f"{path} and {facts[0][1]} are parts of different runs ({names} differ): every part needs the same "
                "files, options and version"
            )
    count = int(facts[0][0]["plan"]["chunk"][1])
    numbers = [int(part["plan"]["chunk"][0]) for part, _ in facts]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if twice or missing:
        what = [f"part {number}/{count} is given twice" for number in twice]
        what += [f"part {number}/{count} is missing" for number in missing]
        raise ValueError("; ".join(what))


def _renumber_map(path: Path, number: dict[int, int]) -> None:
    """Put the numbers of the cohort in place of the provisional ones of a part."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if rows and "provisional" not in rows[0]:
        raise ValueError(f"{path}: expected the list that `ecgcmr ingest --chunk ... --keep-map` wrote")
    temporary = path.with_name(path.name + ".tmp")
    with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", newline="") as stream:  # noqa: PTH123
        writer = csv.writer(stream)
        writer.writerow(["kind", "item", "file", "key", "subject"])
        for row in rows:
            subject = number.get(int(row["provisional"]), -1)
            writer.writerow([row["kind"], row["item"], row["file"], row["key"], subject])
    temporary.replace(path)
