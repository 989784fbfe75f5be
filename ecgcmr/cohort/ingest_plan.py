"""What an ingest will read: options, the walk through the folders, and whose item each file is."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.cohort.ingest_labels import LabelTable
from ecgcmr.cohort.ledger import Redactor
from ecgcmr.ecg.readers.array import recording_keys

WFDB_SUFFIXES = (".hea", ".dat", ".mat")
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
ARRAY_SUFFIXES = (".npz", ".npy", *HDF5_SUFFIXES)
UNREAD_ECG = (".dat",)  # signals without the header that tells what they are
_TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".json")  # beside recordings these are tables of labels far more often
NIFTI_SUFFIXES = (".nii", ".nii.gz")
_MASK_ENDINGS = ("_gt", "_seg", "_mask", "_label", "_labels")
_ARRAY_KEYS = ("ecg_id", "ids", "key", "record")
_ARRAY_SIGNALS = ("ecg", "signals", "samples", "x", "X")


@dataclass(frozen=True)
class IngestOptions:
    """How to turn folders of files into a cohort.

    Attributes:
        out: Folder of the cohort.
        ecg: Folder of ECG files of any format that `ecgcmr.ecg.readers` knows, or None.
        cmr: Folder with one folder, zip or NIfTI file for each study, or None.
        labels: CSV with one row for each item or subject, or None.
        unit: Unit of ECG files that do not state one: "mV", "uV", "V", or "z" for standardised arrays.
        rate_hz: Sampling rate of arrays that do not state one [Hz].
        leads: Lead names of arrays that do not state them.
        gain_uv_per_unit: Microvolts per digital unit, replacing the gains of WFDB headers.
        subject_column: Column of the labels with the subject.
        item_column: Column of the labels with the item (record name, array key); default: the first column.
        label_columns: Columns to take as labels; empty for all that can be.
        group_columns: Columns to take as groups.
        subject_regex: Its first group, found in the relative path, is the item's key instead of the file's stem.
        cmr_level: Depth of the folders under `cmr` that hold one study each.
        incomplete: "error" drops a study in which a frame is missing, "drop" only the slices concerned.
        split_column: Column with official folds.
        split: Part -> fold values.
        seed: Seed of the default split when there are no folds.
        provenance: Free text for cohort.json and every card.
        workers: Processes.
        keep_map: File outside the cohort for the list of files, keys and subject numbers; None keeps no such list.
        force: Replace a finished cohort.
    """

    out: Path
    ecg: Path | None = None
    cmr: Path | None = None
    labels: Path | None = None
    unit: str | None = None
    rate_hz: float | None = None
    leads: tuple[str, ...] | None = None
    gain_uv_per_unit: float | None = None
    subject_column: str | None = None
    item_column: str | None = None
    label_columns: tuple[str, ...] = ()
    group_columns: tuple[str, ...] = ()
    subject_regex: str | None = None
    cmr_level: int = 1
    incomplete: str = "error"
    split_column: str | None = None
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    provenance: str = "ingested"
    workers: int = 1
    keep_map: Path | None = None
    force: bool = False

    def check(self) -> None:
        """Refuse options that contradict each other or name what is not there.

        Raises:
            FileNotFoundError: A folder or the labels table does not exist.
            ValueError: Options that do not go together.
        """
        if self.ecg is None and self.cmr is None:
            raise ValueError("nothing to ingest: give --ecg DIR, --cmr DIR, or both")
        for name, path in (("--ecg", self.ecg), ("--cmr", self.cmr)):
            if path is not None and not path.is_dir():
                raise FileNotFoundError(f"{name} {path}: there is no such folder")
        if self.labels is not None and not self.labels.is_file():
            raise FileNotFoundError(f"--labels {self.labels}: there is no such file")
        if bool(self.split_column) != bool(self.split):
            raise ValueError("--split-column and --split belong together: --split-column fold --split test=8 ...")
        if self.split_column and self.labels is None:
            raise ValueError("--split-column needs --labels")
        if self.keep_map is not None and self.out.resolve() in self.keep_map.resolve().parents:
            raise ValueError(f"--keep-map {self.keep_map} lies inside the cohort: identifiers must stay outside of it")
        if self.workers < 1 or self.cmr_level < 1:
            raise ValueError(f"workers and cmr_level must be at least 1, got {self.workers} and {self.cmr_level}")


@dataclass(frozen=True)
class Item:
    """One recording or study to read.

    Attributes:
        kind: "ecg" or "cmr".
        path: File or folder.
        name: Name for the ledger: relative, without long numbers.
        row: Row within an array file, else -1.
        subject: Number given to its subject for now; made dense when it is known what was kept.
        label_row: Row of the labels table, or -1.
        supported: False for formats without a reader: goes into the ledger unread.
    """

    kind: str
    path: Path
    name: str
    row: int
    subject: int
    label_row: int
    supported: bool = True


@dataclass
class Plan:
    """All items in the order in which they will stand in the cohort.

    Attributes:
        items: The items.
        subject_keys: Key of each provisional subject; held in memory only.
        ignored: Suffix -> number of files that are no signals.
    """

    items: list[Item] = field(default_factory=list)
    subject_keys: dict[str, int] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)

    def digest(self) -> str:
        """sha256 over names, sizes and times of all files, to know a run again without storing a name."""
        digest = hashlib.sha256()
        for item in self.items:
            stat = item.path.stat()
            line = f"{item.kind}|{item.path}|{item.row}|{item.subject}|{stat.st_size}|{stat.st_mtime_ns}\n"
            digest.update(line.encode())
        return digest.hexdigest()


def make_plan(options: IngestOptions, labels: LabelTable | None) -> Plan:
    """Walk the folders and give every item its subject and its row of labels."""
    plan = Plan()
    redact = Redactor([root for root in (options.ecg, options.cmr) if root is not None])
    pattern = re.compile(options.subject_regex) if options.subject_regex else None

    def add(kind: str, path: Path, root: Path, keys: list[str], row: int = -1, supported: bool = True) -> None:
        relative = path.relative_to(root).as_posix() if path != root else path.name
        match = pattern.search(relative) if pattern else None
        candidates = ([match.group(1)] if match else []) + keys
        label_row, subject_key = labels.find(candidates) if labels is not None else (-1, None)
        key = subject_key if subject_key is not None else candidates[0]
        subject = plan.subject_keys.setdefault(key, len(plan.subject_keys))
        name = redact(relative) + (f" row {row} ({redact(keys[0])})" if row >= 0 else "")
        plan.items.append(Item(kind, path, name, row, subject, label_row, supported))

    if options.ecg is not None:
        for path, keys, row, supported in _walk_ecg(options.ecg, plan.ignored):
            add("ecg", path, options.ecg, keys, row, supported)
    if options.cmr is not None:
        for path, keys in _walk_cmr(options.cmr, options.cmr_level, plan.ignored):
            add("cmr", path, options.cmr, keys)
    return plan


def _files(root: Path) -> list[Path]:
    """All files below a folder, sorted; linked folders are followed once, hidden files left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            inner.clear()
            continue
        seen.add(real)
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _walk_ecg(root: Path, ignored: Counter[str]) -> Iterator[tuple[Path, list[str], int, bool]]:
    """(file, keys, row, supported) of every recording under a folder."""
    from ecgcmr.ecg.readers import ECG_SUFFIXES

    for path in _files(root):
        suffix = path.suffix.lower()
        relative = path.relative_to(root).with_suffix("").as_posix()
        if suffix in ARRAY_SUFFIXES:
            for row, key in enumerate(array_keys(path)):
                yield path, [key], row, True
        elif suffix in (".dat", ".mat") and path.with_suffix(".hea").is_file():
            continue  # read with its header
        elif suffix in UNREAD_ECG:
            yield path, [path.stem, relative], -1, False
        elif suffix in ECG_SUFFIXES and suffix not in _TEXT_SUFFIXES:
            yield path, [path.stem, relative], -1, True
        else:
            ignored[suffix or path.name] += 1


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
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
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


def _walk_cmr(root: Path, level: int, ignored: Counter[str]) -> Iterator[tuple[Path, list[str]]]:
    """(file or folder, keys) of every study: NIfTI files and zips one by one, DICOM by folder."""
    folders: dict[Path, None] = {}
    for path in _files(root):
        relative = path.relative_to(root)
        stem = path.name.lower().removesuffix(".gz").removesuffix(".nii")
        if path.name.lower().endswith(NIFTI_SUFFIXES) and stem.endswith(_MASK_ENDINGS):
            ignored["mask files (.nii)"] += 1  # their numbers mean different things in every data set
        elif path.name.lower().endswith(NIFTI_SUFFIXES):
            folders_above = relative.parts[:-1][:level]
            yield path, [*reversed(folders_above), path.name[: len(stem)]]
        elif path.suffix.lower() == ".zip" and len(relative.parts) <= level:
            yield path, [path.stem]
        elif path.suffix.lower() in (".dcm", ".zip", ".ima", "") or path.suffix[1:].isdigit():
            folders.setdefault(root.joinpath(*relative.parts[:-1][:level]))
        else:
            ignored[path.suffix.lower() or path.name] += 1
    for folder in folders:
        yield folder, [folder.name]
