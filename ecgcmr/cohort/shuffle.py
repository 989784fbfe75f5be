"""A control cohort with broken pairs: the same ECGs and the same studies, but the studies belong to other subjects.

What a model learns from pairing must vanish on it. Studies are exchanged within each part of the split, so that no test
study is seen in training.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgcmr.cohort.schema import ARRAY_FILES, SCHEMA_FILE
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256, write_table

STUDIES = "studies.parquet"


def shuffle_pairs(cohort: Cohort, out: Path, seed: int, split: str = "default") -> Path:
    """Write a copy of a cohort in which every study belongs to another subject of the same part of the split.

    Arrays are linked, not copied, where the file system can. The copy is written under a temporary name and renamed.

    Args:
        cohort: The cohort; each subject has the studies of exactly one other subject afterwards.
        out: Folder of the copy.
        seed: Decides who gets whose studies.
        split: Parts within which studies are exchanged; subjects in no part keep theirs.

    Raises:
        FileExistsError: If `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; delete it, or choose another folder for the shuffled cohort")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    arrays = {str(cohort.path / name) for name in ARRAY_FILES.values()}
    ignore = shutil.ignore_patterns("cache", "*.partial")
    shutil.copytree(cohort.path, partial, ignore=ignore, copy_function=lambda a, b: _link(a, b, a in arrays))
    owner = _exchange(cohort, np.random.default_rng([seed, 0x5F]), split)
    studies = cohort.studies.copy()
    studies["subject"] = [owner.get(int(subject), int(subject)) for subject in studies["subject"]]
    columns = {str(name): studies[name].tolist() for name in studies}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    (partial / STUDIES).unlink()
    digest = write_table(partial / STUDIES, "studies", rows)
    schema = cohort.schema
    files = {**schema.files, STUDIES: digest}
    (partial / SCHEMA_FILE).unlink()
    (partial / SCHEMA_FILE).write_text(replace(schema, name=f"{schema.name}-shuffled", files=files).to_json())
    assert sha256(partial / STUDIES) == digest, "the table that was hashed is the one that was written"
    partial.replace(out)
    return out


def _exchange(cohort: Cohort, rng: np.random.Generator, split: str) -> dict[int, int]:
    """Old owner -> new owner; a random cycle through the subjects of each part, so that nobody keeps the own study."""
    owner: dict[int, int] = {}
    for members in open_split(cohort, split).parts().values():
        order = rng.permutation(members)
        owner |= {int(a): int(b) for a, b in zip(order, np.roll(order, 1), strict=True)}
    return owner


def _link(source: str, target: str, link: bool) -> str:
    if link:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            return str(shutil.copy2(source, target))
        return target
    return str(shutil.copy2(source, target))
