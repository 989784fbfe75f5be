"""The schema of a cohort on disk: format version, tables, arrays, labels. Told to people in docs/cohort_format.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
SCHEMA_FILE = "cohort.json"
ECG_FILE = "arrays/ecg.bin"
CINE_FILE = "arrays/cine.bin"
MASK_FILE = "arrays/masks.bin"
ARRAY_FILES = {"ecg": ECG_FILE, "cine": CINE_FILE, "masks": MASK_FILE}
_ARRAY_DTYPES = {"ecg": ("int16",), "cine": ("uint8", "uint16"), "masks": ("uint8",)}
LABEL_KINDS = ("regression", "binary", "time", "event", "category")
MISSING_SAMPLE = -32768  # int16 value that stands for a missing ECG sample (NaN)

# Column -> type of every fixed column. Tables may hold more columns (groups, labels, truths) after these.
TABLES: dict[str, dict[str, str]] = {
    "subjects": {"subject": "int64", "sex": "string", "age_years": "float64", "site": "string"},
    "recordings": {
        "recording": "int64",
        "subject": "int64",
        "visit_days": "float64",
        "rate_hz": "float64",
        "n_samples": "int64",
        "n_leads": "int64",
        "leads": "string",
        "unit": "string",
        "offset": "int64",
        "scale_per_unit": "float64",
        "source": "string",
        "notes": "string",
        "flags": "string",
    },
    "studies": {
        "study": "int64",
        "subject": "int64",
        "visit_days": "float64",
        "view": "string",
        "n_slices": "int64",
        "n_frames": "int64",
        "rows": "int64",
        "columns": "int64",
        "spacing_row_mm": "float64",
        "spacing_column_mm": "float64",
        "slice_spacing_mm": "float64",
        "affine": "list<float64>",
        "frame_times_ms": "list<float64>",
        "offset": "int64",
        "mask_offset": "int64",
        "pixel_scale": "float64",
        "pixel_offset": "float64",
        "mask_labels": "string",
        "source": "string",
        "notes": "string",
        "flags": "string",
    },
    "labels": {"subject": "int64"},
    "recording_labels": {"recording": "int64"},
    "truth": {"subject": "int64"},
    "ledger": {
        "item": "string",
        "kind": "string",
        "status": "string",
        "reason": "string",
        "detail": "string",
        "row": "int64",
        "flags": "string",
    },
    "pairs": {"recording": "int64", "study": "int64", "view": "string", "days_apart": "float64", "rank": "int64"},
}
REQUIRED_TABLES = ("subjects", "recordings", "studies", "labels", "ledger")
ADDED_COLUMNS = ("flags",)  # cohorts written before a column was added are still whole
KEY_COLUMNS = {"subjects": "subject", "recordings": "recording", "studies": "study", "labels": "subject"}


@dataclass(frozen=True)
class LabelSpec:
    """What one label column means.

    Attributes:
        name: Column of labels.parquet (and of recording_labels.parquet when `level` is "recording").
        kind: One of `LABEL_KINDS`; `time` and `event` columns come in pairs.
        unit: Unit of the values; "" for binary, event and category labels.
        description: One sentence.
        ukb_field: UK Biobank field with the same meaning, or None.
        values: Names of the codes 0, 1, ... of a category.
        low: Smallest plausible value, or None.
        high: Largest plausible value, or None.
        level: "subject", or "recording" when every recording has its own value (the subject's is then an aggregate).
    """

    name: str
    kind: str
    unit: str = ""
    description: str = ""
    ukb_field: int | None = None
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    level: str = "subject"

    def __post_init__(self) -> None:
        if self.kind not in LABEL_KINDS:
            raise ValueError(f"label {self.name!r}: kind must be one of {LABEL_KINDS}, got {self.kind!r}")
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound is not None and not isinstance(bound, int | float):
                raise ValueError(f"label {self.name!r}: {name} must be a number or absent, got {bound!r}")
        if self.level not in ("subject", "recording"):
            raise ValueError(f"label {self.name!r}: level must be 'subject' or 'recording', got {self.level!r}")


def value_label(category: str, value: str) -> str:
    """Name of the binary label "has this value" of a category; every category label has one for each value."""
    return f"{category}={value}"


@dataclass(frozen=True)
class CohortSchema:
    """The content of cohort.json.

    Attributes:
        name: Name of the cohort.
        provenance: Where the data come from: "simulated", "ptbxl", or free text. Goes into every weights card.
        created_with: Version of ecgcmr that wrote the cohort.
        arrays: For "ecg", "cine", "masks": file, dtype, unit, number of elements and bytes, meaning of a stored step.
        labels: One spec for each label column.
        group_columns: Columns of subjects.parquet that may be audited as groups.
        origin: How it was made: seed, design and cine mode when simulated; options when ingested.
        files: sha256 of every table and split, by name relative to the cohort.
        format_version: Version of this layout.
    """

    name: str
    provenance: str
    created_with: str
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: tuple[LabelSpec, ...] = ()
    group_columns: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The text of cohort.json; the same schema always gives the same bytes."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: Path) -> CohortSchema:
        """Build the schema from parsed JSON.

        Raises:
            ValueError: An unknown format version, an unknown or a missing field; names the file.
        """
        version = data.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path}: format_version is {version!r}, this ecgcmr reads {FORMAT_VERSION}; "
                "write the cohort again with this version, or use the version that wrote it"
            )
        known = {item.name for item in fields(cls)}
        missing = {"name", "provenance", "created_with", "arrays", "labels"} - data.keys()
        if missing or data.keys() - known:
            raise ValueError(f"{path}: missing fields {sorted(missing)}, unknown fields {sorted(data.keys() - known)}")
        _check_types(data, path)
        try:
            labels = tuple(LabelSpec(**{**spec, "values": tuple(spec.get("values", ()))}) for spec in data["labels"])
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{path}: field labels: {error}") from error
        values = {**data, "labels": labels, "group_columns": tuple(data.get("group_columns", ()))}
        return cls(**values)


def _check_types(data: Mapping[str, Any], path: Path) -> None:
    """Refuse fields of another type than the writer's, before something far away trips over them."""
    expected = {
        "name": str, "provenance": str, "created_with": str, "labels": list, "group_columns": list, "arrays": dict,
        "origin": dict, "files": dict,
    }  # fmt: skip
    for name, kind in expected.items():
        if name in data and not isinstance(data[name], kind):
            raise ValueError(f"{path}: field {name} is a {type(data[name]).__name__}, expected a {kind.__name__}")
    for name, entry in data["arrays"].items():
        where = f"{path}: field arrays.{name}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is a {type(entry).__name__}, expected a dict")
        if entry.get("dtype") not in _ARRAY_DTYPES.get(name, ()):
            raise ValueError(f"{where}.dtype is {entry.get('dtype')!r}, expected one of {_ARRAY_DTYPES.get(name, ())}")
        if entry.get("file") != ARRAY_FILES[name]:
            raise ValueError(f"{where}.file is {entry.get('file')!r}, expected {ARRAY_FILES[name]!r}")
        for key in ("elements", "bytes"):
            if not isinstance(entry.get(key), int) or entry[key] < 0:
                raise ValueError(f"{where}.{key} is {entry.get(key)!r}, expected a number of at least 0")


def read_schema(folder: Path) -> CohortSchema:
    """Read cohort.json of a cohort folder.

    Raises:
        FileNotFoundError: The folder is no cohort, or it is the remainder of a killed run.
        ValueError: cohort.json is broken.
    """
    path = folder / SCHEMA_FILE
    if not path.is_file():
        partial = folder.with_name(folder.name + ".partial")
        unfinished = folder if folder.name.endswith(".partial") and folder.is_dir() else partial
        hint = (
            f"; {unfinished.name} is an unfinished run: repeat the command that made it and it will go on"
            if unfinished.is_dir()
            else "; make one with `ecgcmr simulate` or `ecgcmr ingest`"
        )
        raise FileNotFoundError(f"{folder} is not a cohort: it holds no {SCHEMA_FILE}{hint}")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return CohortSchema.from_dict(data, path)
