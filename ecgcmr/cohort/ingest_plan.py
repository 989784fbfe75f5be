"""What an ingest will read: every file with its subject, its row of the table and its day, kept small in memory."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from ecgcmr.cohort.ingest_labels import LabelTable, VisitTable
from ecgcmr.cohort.ingest_walk import Seen, suffix_of, walk_cmr, walk_ecg
from ecgcmr.cohort.ledger import LedgerRow, Reason, Redactor
from ecgcmr.cohort.privacy import Pseudonymizer
from ecgcmr.cohort.recipe import Recipe

KINDS = ("ecg", "cmr")
CHUNK_ITEMS = {"ecg": 128, "cmr": 2}
_SUPPORTED = 1


@dataclass(frozen=True, slots=True)
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
        day: Day of the recording by the tables, on the subject's own secret calendar; None where they do not say.
        shift: What to add to a day since year 1 that the file states, to get to that calendar.
    """

    kind: str
    path: Path
    name: str
    row: int
    subject: int
    label_row: int
    supported: bool = True
    day: int | None = None
    shift: int = 0


@dataclass
class Plan:
    """All items in the order in which they will stand in the cohort; a few dozen bytes for each beside its name.

    Attributes:
        folders: Kind -> folder.
        paths: Relative path of each item.
        subject_keys: Key of each provisional subject; held in memory only.
        ignored: Suffix -> number of files that are no signals.
        left_out: (kind, relative path, reason) of files that are not read by themselves.
        path_values: Name of a group of the recipe's path pattern -> value of each provisional subject.
        path_folds: Fold of each item by its path, when the pattern has one.
        pseudonyms: Makes the names of the ledger where there is a salt; otherwise long numbers in them are counted.
    """

    folders: dict[str, Path]
    redact: Redactor
    paths: list[str] = field(default_factory=list)
    subject_keys: dict[str, int] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    left_out: list[tuple[str, str, Reason]] = field(default_factory=list)
    path_values: dict[str, list[str]] = field(default_factory=dict)
    path_folds: list[str] = field(default_factory=list)
    pseudonyms: Pseudonymizer | None = None
    kinds: array[int] = field(default_factory=lambda: array("b"))
    rows: array[int] = field(default_factory=lambda: array("i"))
    subjects: array[int] = field(default_factory=lambda: array("i"))
    label_rows: array[int] = field(default_factory=lambda: array("i"))
    days: array[int] = field(default_factory=lambda: array("i"))
    flags: array[int] = field(default_factory=lambda: array("b"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    shifts: array[int] = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        """Number of items."""
        return len(self.paths)

    def item(self, index: int) -> Item:
        """One item, made when it is asked for."""
        kind, relative, row = KINDS[self.kinds[index]], self.paths[index], self.rows[index]
        folder, subject = self.folders[kind], self.subjects[index]
        shift = self.shifts[subject] if len(self.shifts) else 0
        return Item(
            kind,
            folder / relative,
            self.ledger_name(relative or folder.name) + (f" row {row}" if row >= 0 else ""),
            row,
            subject,
            self.label_rows[index],
            bool(self.flags[index] & _SUPPORTED),
            self.days[index] + shift if self.days[index] else None,
            shift,
        )

    def chunks(self) -> list[range]:
        """Items in chunks of one kind, each small enough for the memory of one worker."""
        found = []
        for number, kind in enumerate(KINDS):
            count = self.kinds.count(number)
            first = 0 if number == 0 else len(self) - count
            size = CHUNK_ITEMS[kind]
            found += [range(start, min(start + size, first + count)) for start in range(first, first + count, size)]
        return found

    def digest(self) -> str:
        """sha256 over paths, sizes and times of all files, to know a run again without storing a name."""
        digest = hashlib.sha256()
        columns = (self.paths, self.kinds, self.rows, self.subjects, self.label_rows, self.days, self.sizes, self.times)
        for values in zip(*columns, strict=True):
            digest.update("|".join(map(str, values)).encode() + b"\n")
        return digest.hexdigest()

    def ignored_rows(self) -> Iterator[LedgerRow]:
        """Rows of the ledger for files that are not read by themselves."""
        for kind, relative, reason in self.left_out:
            yield LedgerRow(self.ledger_name(relative), kind, "ignored", reason.value)

    def ledger_name(self, relative: str) -> str:
        """What stands in the ledger for a file: its path without long numbers, or a pseudonym where there is a salt."""
        if self.pseudonyms is None:
            return self.redact(relative)
        return self.pseudonyms.pseudonym(relative) + self.redact(suffix_of(relative))


class _Planner:
    """Gives every file its subject, its row of the table and its day."""

    def __init__(self, recipe: Recipe, plan: Plan, labels: LabelTable | None, visits: VisitTable | None) -> None:
        self.recipe, self.plan, self.labels, self.visits = recipe, plan, labels, visits
        self.pattern = re.compile(recipe.path) if recipe.path else None
        named = set(self.pattern.groupindex) if self.pattern else set()
        self.columns = sorted(named - {"subject", "item", "visit", "fold"})
        self.has_fold = "fold" in named
        plan.path_values = {name: [] for name in self.columns}

    def add(self, kind: str, seen: Seen) -> None:
        plan = self.plan
        if seen.reason is not None:
            self._leave_out(kind, seen.relative, seen.reason)
            return
        match = self.pattern.search(seen.relative) if self.pattern else None
        said = {name: value for name, value in match.groupdict().items() if value} if match else {}
        own = [said[name] for name in ("item", "subject") if name in said]
        short = seen.keys[-1] if kind == "ecg" and seen.row < 0 else seen.keys[0]
        label_row, subject_key = -1, None
        if self.labels is not None:
            subjects = [said["subject"]] if "subject" in said else [*own, *seen.keys]
            label_row, subject_key = self.labels.find([*own, *seen.keys], subjects)
            if label_row < 0 and self.labels.spec.only:
                self._leave_out(kind, seen.relative, Reason.NOT_WANTED)
                return
        key = subject_key or said.get("subject") or (own or [short])[0]
        subject = plan.subject_keys.setdefault(key, len(plan.subject_keys))
        for name in self.columns:
            values = plan.path_values[name]
            if len(values) <= subject:
                values.append(said.get(name, ""))
        if self.has_fold:
            plan.path_folds.append(said.get("fold", ""))
        day = int(self.labels.days[label_row]) if self.labels is not None and label_row >= 0 else 0
        if not day and self.visits is not None and "visit" in said:
            day = self.visits.day(key, said["visit"])
        plan.paths.append(seen.relative)
        plan.kinds.append(KINDS.index(kind))
        plan.rows.append(seen.row)
        plan.subjects.append(subject)
        plan.label_rows.append(label_row)
        plan.days.append(day)
        plan.flags.append(_SUPPORTED if seen.supported else 0)
        plan.sizes.append(seen.size)
        plan.times.append(seen.changed_ns)
        plan.redact(seen.relative)  # numbers its long numbers in the order of the plan

    def _leave_out(self, kind: str, relative: str, reason: Reason) -> None:
        self.plan.left_out.append((kind, relative, reason))
        self.plan.redact(relative)
        if reason in (Reason.NOT_A_SIGNAL, Reason.NOT_WANTED):
            self.plan.ignored[suffix_of(relative) or PurePosixPath(relative).name] += 1
        elif reason is Reason.MASK_FILE:
            self.plan.ignored["mask files (.nii)"] += 1

    def find_duplicates(self) -> set[int]:
        """Items whose file was met before under the same name in another folder, with the same bytes."""
        plan = self.plan
        marks = array("q")
        for index, relative in enumerate(plan.paths):
            # DICOM folders have no name of their own; rows of an array file are told apart by their row
            name = relative.rpartition("/")[2] + f"|{plan.sizes[index]}|{plan.rows[index]}|{plan.kinds[index]}"
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            marks.append(int.from_bytes(digest, "little", signed=True))
        values, counts = np.unique(np.frombuffer(marks, dtype=np.int64), return_counts=True)
        several = set(values[counts > 1].tolist())
        met: set[tuple[int, bytes]] = set()
        twice: set[int] = set()
        for index, mark in enumerate(marks if several else ()):
            path = plan.folders[KINDS[plan.kinds[index]]] / plan.paths[index]
            if mark not in several or plan.rows[index] > 0 or not path.is_file():
                continue
            content = (mark, _content(path))
            if content in met:
                twice.add(index)
            met.add(content)
        return twice

    def remove(self, twice: set[int]) -> None:
        """Move items to the files that are not read."""
        plan = self.plan
        gone = {(plan.kinds[index], plan.paths[index]) for index in twice}
        keep = [k for k in range(len(plan)) if (plan.kinds[k], plan.paths[k]) not in gone]
        plan.left_out += [(KINDS[kind], relative, Reason.DUPLICATE) for kind, relative in sorted(gone)]
        plan.paths = [plan.paths[k] for k in keep]
        plan.path_folds = [plan.path_folds[k] for k in keep] if plan.path_folds else []
        for name in ("kinds", "rows", "subjects", "label_rows", "days", "flags", "sizes", "times"):
            values = getattr(plan, name)
            setattr(plan, name, array(values.typecode, (values[k] for k in keep)))


def make_plan(
    recipe: Recipe, root: Path, labels: LabelTable | None, visits: VisitTable | None = None, salt: bytes | None = None
) -> Plan:
    """Walk the folders and give every item its subject, its row of labels and its day.

    Args:
        recipe: The recipe.
        root: The folder that it speaks of.
        labels: Its table, or None.
        visits: Its table of visit days, or None.
        salt: Secret of the subjects' calendars; derived from the keys, which are not stored, when None.

    Raises:
        FileNotFoundError: A folder of the recipe is not there.
        ValueError: Not one item is in the table.
    """
    folders = {
        kind: (root / section.folder).absolute()
        for kind, section in (("ecg", recipe.ecg), ("cmr", recipe.cmr))
        if section is not None
    }
    missing = [kind for kind, folder in folders.items() if not folder.is_dir()]
    if missing and (len(missing) == len(folders) or recipe.name != "folder"):
        kind = missing[0]
        raise FileNotFoundError(f"{folders[kind]}: there is no such folder; {recipe.name} should have its {kind} there")
    pseudonyms = Pseudonymizer(salt) if salt is not None else None
    plan = Plan(folders, Redactor(folders.values()), pseudonyms=pseudonyms)
    planner = _Planner(recipe, plan, labels, visits)
    shared = len(folders) == 2 and folders["ecg"] == folders["cmr"]
    if recipe.ecg is not None and "ecg" not in missing:
        for seen in walk_ecg(folders["ecg"], recipe.ecg, recipe.cmr if shared else None):
            planner.add("ecg", seen)
    if recipe.cmr is not None and "cmr" not in missing:
        for seen in walk_cmr(folders["cmr"], recipe.cmr, alone=not shared):
            planner.add("cmr", seen)
    twice = planner.find_duplicates()
    if twice:
        planner.remove(twice)
    if labels is not None and len(plan) and max(plan.label_rows) < 0:
        raise ValueError(
            f"{labels.path}: none of the {len(plan)} items is in column "
            f"{labels.item_column or labels.subject_column!r}: files are called {_shape(plan.paths[0])!r}, that column "
            f"holds {_shape(labels.example())!r} (digits written as 0); choose another column, or a path pattern that "
            "takes the key out of the name"
        )
    _hide_days(plan, salt)
    return plan


def _hide_days(plan: Plan, salt: bytes | None) -> None:
    """Give every subject a calendar of its own, so that no date stands in what a run writes."""
    secret = salt or hashlib.sha256("\n".join(sorted(plan.subject_keys)).encode()).digest()
    names = Pseudonymizer(secret)
    plan.shifts = array("i", (names.day_offset(key, "1950-01-01") for key in plan.subject_keys))


def _shape(text: str) -> str:
    """A name with its digits hidden: it may hold an identifier."""
    return re.sub(r"\d", "0", text)


def _content(path: Path) -> bytes:
    """Hash of a file and, for a WFDB header, of its data file."""
    digest = hashlib.blake2b()
    for part in (path, path.with_suffix(".dat"), path.with_suffix(".mat")) if path.suffix == ".hea" else (path,):
        if part.is_file():
            with part.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.digest()
