"""The walk through the folders: every file is a recording, a study, part of one, or ignored with a reason."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ecgcmr.cohort.ledger import Reason
from ecgcmr.cohort.recipe import CmrFiles, EcgFiles
from ecgcmr.ecg.readers.array import recording_keys

WFDB_SUFFIXES = (".hea", ".dat", ".mat")
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
ARRAY_SUFFIXES = (".npz", ".npy", *HDF5_SUFFIXES)
UNREAD_ECG = (".dat",)  # signals without the header that tells what they are
_TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".json")  # beside recordings these are tables far more often
NIFTI_SUFFIXES = (".nii", ".nii.gz")
MASK_ENDINGS = ("_gt", "_seg", "_mask", "_label", "_labels")
_ARRAY_KEYS = ("ecg_id", "ids", "key", "record")
_ARRAY_SIGNALS = ("ecg", "signals", "samples", "x", "X")


@dataclass(frozen=True, slots=True)
class Seen:
    """One file (or folder of a study) that was met.

    Attributes:
        relative: Path below its folder, with slashes.
        size: Size [bytes]; 0 for folders.
        changed_ns: Time of the last change [ns]; 0 for folders.
        reason: Why it is ignored, or None for an item.
        keys: Names under which a table may know it, best first.
        row: Row within a file of many recordings, else -1.
        supported: False for formats without a reader.
    """

    relative: str
    size: int
    changed_ns: int
    reason: Reason | None = None
    keys: tuple[str, ...] = ()
    row: int = -1
    supported: bool = True


def walk_files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(relative path, stat) of all files below a folder, sorted by path; linked folders are followed once.

    Only one listing for each level is in memory. Hidden files and folders are left out.
    """
    seen: set[int] = set()

    def enter(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        about = os.stat(folder)  # noqa: PTH116  a million times: no Path
        real = (about.st_dev << 64) | about.st_ino
        if about.st_ino and real in seen:  # a link that leads back up
            return
        seen.add(real)
        with os.scandir(folder) as listing:
            entries = sorted((entry for entry in listing if entry.name[0] != "."), key=lambda entry: entry.name)
        for entry in entries:
            try:
                if entry.is_dir():
                    yield from enter(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    yield prefix + entry.name, entry.stat()
            except FileNotFoundError:  # a dangling link, or a file that went away
                continue

    yield from enter(str(root), "")


def glob_pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """One regular expression for several globs; `**` is any depth, `*` and `?` stay within a name."""
    parts = []
    for glob in globs:
        text = re.escape(glob).replace(r"\*\*/", "(?:[^/]+/)*").replace(r"\*\*", ".*")
        parts.append(text.replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))
    return re.compile("|".join(f"(?:{part})" for part in parts))


def suffix_of(relative: str) -> str:
    """Lower-case suffix of a name; the name itself for one without."""
    return PurePosixPath(relative).suffix.lower()


def walk_ecg(root: Path, files: EcgFiles, studies: CmrFiles | None = None) -> Iterator[Seen]:
    """Every file of an ECG folder, as items and as what is ignored.

    Args:
        root: The folder.
        files: What is wanted.
        studies: What is wanted as a CMR study, when both lie in one folder: told by `walk_cmr`.
    """
    from ecgcmr.ecg.readers import ECG_SUFFIXES

    wanted = glob_pattern(files.files)
    elsewhere = glob_pattern(studies.files) if studies is not None else None
    named = files.files != ("**/*",)  # the recipe says which files are recordings
    for relative, stat in walk_files(root):
        suffix = suffix_of(relative)
        about = (relative, stat.st_size, stat.st_mtime_ns)
        stem = PurePosixPath(relative).stem
        keys = (relative, relative[: len(relative) - len(suffix)] if suffix else relative, stem)
        header = root / f"{keys[1]}.hea"
        if suffix in (".dat", ".mat") and header.is_file():
            yield Seen(*about, Reason.COMPANION)
        elif not wanted.fullmatch(relative):
            if elsewhere is None or not elsewhere.fullmatch(relative):
                yield Seen(*about, Reason.NOT_WANTED)
        elif suffix in ARRAY_SUFFIXES:
            for row, key in enumerate(array_keys(root / relative)):
                yield Seen(*about, None, (key,), row)
        elif suffix in UNREAD_ECG:
            yield Seen(*about, None, keys, -1, False)
        elif suffix in ECG_SUFFIXES and (suffix not in _TEXT_SUFFIXES or named):
            yield Seen(*about, None, keys)
        else:
            yield Seen(*about, Reason.NOT_A_SIGNAL)


def walk_cmr(root: Path, files: CmrFiles, alone: bool = True) -> Iterator[Seen]:
    """Every study of a CMR folder (NIfTI files and zips one by one, DICOM by folder) and what is ignored.

    The folders of DICOM files come last, because a folder is known only when its files were seen.

    Args:
        root: The folder.
        files: What is wanted.
        alone: False when `walk_ecg` has told what of this folder nobody wants.
    """
    wanted = glob_pattern(files.files)
    folders: dict[str, list[int]] = {}
    for relative, stat in walk_files(root):
        parts = PurePosixPath(relative).parts
        lower = parts[-1].lower()
        about = (relative, stat.st_size, stat.st_mtime_ns)
        above = parts[:-1][: files.level]
        stem = lower.removesuffix(".gz").removesuffix(".nii")
        suffix = suffix_of(relative)
        if not wanted.fullmatch(relative):
            if alone:
                yield Seen(*about, Reason.NOT_WANTED)
        elif files.layout is not None:
            _note(folders, "/".join(above), stat)
        elif lower.endswith(NIFTI_SUFFIXES) and stem.endswith(MASK_ENDINGS):
            yield Seen(*about, Reason.MASK_FILE)  # its numbers mean different things in every data set
        elif lower.endswith(NIFTI_SUFFIXES):
            yield Seen(*about, None, (*reversed(above), parts[-1][: len(stem)]))
        elif suffix == ".zip" and len(parts) <= files.level:
            yield Seen(*about, None, (PurePosixPath(relative).stem,))
        elif suffix in (".dcm", ".zip", ".ima", "") or suffix[1:].isdigit():
            _note(folders, "/".join(above), stat)
        else:
            yield Seen(*about, Reason.NOT_A_SIGNAL)
    for folder, (size, changed) in folders.items():
        name = PurePosixPath(folder).name or root.name
        yield Seen(folder, size, changed, None, (name, folder))


def _note(folders: dict[str, list[int]], folder: str, stat: os.stat_result) -> None:
    """Sum of sizes and latest change of the files of a study."""
    known = folders.setdefault(folder, [0, 0])
    known[0] += stat.st_size
    known[1] = max(known[1], stat.st_mtime_ns)


def array_keys(path: Path) -> list[str]:
    """Keys of the recordings of an array file, without decompressing the signals; one key when it cannot be opened."""
    try:
        if path.suffix.lower() in HDF5_SUFFIXES:
            return recording_keys(path)
        if path.suffix.lower() == ".npy":
            return [f"{path.stem}/{row}" for row in range(len(np.load(path, mmap_mode="r", allow_pickle=False)))]
        with np.load(path, allow_pickle=False) as members:
            named = next((name for name in _ARRAY_KEYS if name in members), None)
            if named is not None:
                return [str(key) for key in members[named].tolist()]
        return [f"{path.stem}/{row}" for row in range(_npz_length(path))]
    except (OSError, ValueError, KeyError, EOFError, StopIteration, zipfile.BadZipFile):
        return [path.stem]


def _npz_length(path: Path) -> int:
    """Length of the signal array, from its header alone."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in (f"{signal}.npy" for signal in _ARRAY_SIGNALS) if name in archive.namelist())
        with archive.open(name) as stream:
            version = np.lib.format.read_magic(stream)
            read: Any = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            return int(read(stream)[0][0])
