"""What a user asks of an ingest: which files, told by a recipe or by options, and how the run shall go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ecgcmr.cohort.recipe import CmrFiles, Column, EcgFiles, Parts, Recipe, Table

QC_MODES = ("keep", "drop", "report")
BACKENDS = ("loky", "dask")


@dataclass(frozen=True)
class IngestOptions:
    """How to turn folders of files into a cohort.

    Either `recipe` and `root` say what to read, or the fields from `ecg` to `split` do, which together are the recipe
    `folder`.

    Attributes:
        out: Folder of the cohort.
        ecg: Folder of ECG files, or None.
        cmr: Folder with one folder, zip or NIfTI file for each study, or None.
        labels: Table with one row for each item or subject, or None.
        unit: Unit of ECG files that do not state one: "mV", "uV", "V", or "z" for standardised arrays.
        rate_hz: Sampling rate of arrays that do not state one [Hz].
        leads: Lead names of arrays that do not state them.
        gain_uv_per_unit: Microvolts per digital unit, replacing the gains of WFDB headers.
        subject_column: Column of the labels with the subject.
        item_column: Column of the labels with the item (record name, array key); default: the first column.
        date_column: Column of the labels with the day of the recording.
        label_columns: Columns to take as labels; empty for all that can be.
        group_columns: Columns to take as groups.
        sex_column: Column of the labels with the sex; a column of that name is found only where all columns are read.
        age_column: Column of the labels with the age [years]; likewise.
        only_labelled: Leave out files that the labels do not know.
        subject_regex: Its first group, found in the relative path, is the item's key instead of the file's stem.
        cmr_level: Depth of the folders under `cmr` that hold one study each.
        incomplete: "error" drops a study in which a frame is missing, "drop" only the slices concerned.
        split_column: Column with official folds.
        split: Part -> fold values.
        seed: Seed of the default split when there are no folds.
        provenance: Free text for cohort.json and every card.
        recipe: A recipe, instead of all from `ecg` to `split`.
        root: Folder that the recipe speaks of.
        qc: What quality flags do: "keep" stores them, "drop" drops what has a hard flag, "report" writes a report and
            no cohort.
        pair_days: Largest distance of an ECG and a CMR study that are a pair [days]; None for any.
        salt: File with the secret salt of pseudonyms; None stores no pseudonyms, only numbers.
        workers: Processes.
        backend: "loky" for processes on this machine, "dask" for a cluster.
        scheduler: Address of the dask scheduler.
        chunk: (i, n): read only the i-th of n parts, for array jobs; merge them with `merge_parts`.
        time_limit_s: A file that takes longer is given up [s].
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
    date_column: str | None = None
    label_columns: tuple[str, ...] = ()
    group_columns: tuple[str, ...] = ()
    sex_column: str | None = None
    age_column: str | None = None
    only_labelled: bool = False
    subject_regex: str | None = None
    cmr_level: int = 1
    incomplete: str = "error"
    split_column: str | None = None
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    provenance: str = "ingested"
    recipe: Recipe | None = None
    root: Path | None = None
    qc: str = "keep"
    pair_days: float | None = None
    salt: Path | None = None
    workers: int = 1
    backend: str = "loky"
    scheduler: str | None = None
    chunk: tuple[int, int] | None = None
    time_limit_s: float = 300.0
    keep_map: Path | None = None
    force: bool = False

    def check(self) -> None:
        """Refuse options that contradict each other or name what is not there.

        Raises:
            FileNotFoundError: A folder or the labels table does not exist.
            ValueError: Options that do not go together.
        """
        if self.recipe is None:
            self._check_folders()
        elif self.root is None or not self.root.is_dir():
            raise FileNotFoundError(f"--root {self.root}: there is no such folder; a recipe needs one")
        elif self.ecg or self.cmr or self.labels:
            raise ValueError("--recipe says where the files are: leave out --ecg, --cmr and --labels")
        if self.keep_map is not None and self.out.resolve() in self.keep_map.resolve().parents:
            raise ValueError(f"--keep-map {self.keep_map} lies inside the cohort: identifiers must stay outside of it")
        if self.workers < 1 or self.cmr_level < 1:
            raise ValueError(f"workers and cmr_level must be at least 1, got {self.workers} and {self.cmr_level}")
        if self.qc not in QC_MODES:
            raise ValueError(f"--qc {self.qc}: expected one of {', '.join(QC_MODES)}")
        if self.pair_days is not None and not self.pair_days >= 0:
            raise ValueError(f"--pair-days {self.pair_days}: expected a number of days, 0 or more")
        if not self.time_limit_s > 0:
            raise ValueError(f"--time-limit {self.time_limit_s}: expected seconds, more than 0")
        if self.backend not in BACKENDS or (self.backend == "dask") != (self.scheduler is not None):
            raise ValueError("--backend dask and --scheduler ADDRESS belong together; the other backend is loky")
        if self.chunk is not None and not 1 <= self.chunk[0] <= self.chunk[1]:
            raise ValueError(f"--chunk {self.chunk[0]}/{self.chunk[1]}: expected i/n with i from 1 to n")
        if self.chunk is not None and self.qc == "report":
            raise ValueError("--qc report makes no cohort, so there are no parts to merge: leave out --chunk")

    def _check_folders(self) -> None:
        if self.ecg is None and self.cmr is None:
            raise ValueError("nothing to ingest: give --recipe FILE --root DIR, or --ecg DIR, --cmr DIR, or both")
        for name, path in (("--ecg", self.ecg), ("--cmr", self.cmr)):
            if path is not None and not path.is_dir():
                raise FileNotFoundError(f"{name} {path}: there is no such folder")
        if self.labels is not None and not self.labels.is_file():
            raise FileNotFoundError(f"--labels {self.labels}: there is no such file")
        if bool(self.split_column) != bool(self.split):
            raise ValueError("--split-column and --split belong together: --split-column fold --split test=8 ...")
        if self.split_column and self.labels is None:
            raise ValueError("--split-column needs --labels")
        if self.date_column and self.labels is None:
            raise ValueError("--date-column needs --labels")
        unknown = set(self.split) - {"train", "val", "test"}
        if unknown:
            raise ValueError(f"--split {min(unknown)}=...: a split has the parts train, val and test")

    def resolve(self) -> tuple[Recipe, Path]:
        """The recipe and the root; options without a recipe are written as one, with folders in place of the root."""
        if self.recipe is not None:
            assert self.root is not None
            return self.recipe, self.root
        ecg = cmr = table = None
        if self.ecg is not None:
            ecg = EcgFiles(
                folder=str(self.ecg.absolute()),
                unit=self.unit,
                rate_hz=self.rate_hz,
                leads=self.leads,
                gain_uv_per_unit=self.gain_uv_per_unit,
            )
        if self.cmr is not None:
            cmr = CmrFiles.model_validate(
                {"folder": str(self.cmr.absolute()), "level": self.cmr_level, "incomplete": self.incomplete}
            )
        if self.labels is not None:
            table = Table(
                file=str(self.labels.absolute()),
                subject=self.subject_column,
                item=self.item_column,
                date=self.date_column,
                sex=None if self.sex_column is None else Column(column=self.sex_column),
                age=None if self.age_column is None else Column(column=self.age_column),
                fold=self.split_column,
                groups=self.group_columns,
                labels=self.label_columns,
                only=self.only_labelled,
            )
        recipe = Recipe(
            name="folder",
            provenance=self.provenance,
            ecg=ecg,
            cmr=cmr,
            path=_named(self.subject_regex),
            table=table,
            split=Parts.model_validate(dict(self.split)),
        )
        return recipe, Path()


def _named(pattern: str | None) -> str | None:
    """A pattern whose first group is the item's key -> one that says so by name."""
    if pattern is None or "(?P<" in pattern:
        return pattern
    position = 0
    while (position := pattern.find("(", position)) >= 0:
        if pattern[position - 1 : position] != "\\" and pattern[position + 1 : position + 2] != "?":
            return pattern[: position + 1] + "?P<item>" + pattern[position + 1 :]
        position += 1
    return f"(?P<item>{pattern})"
