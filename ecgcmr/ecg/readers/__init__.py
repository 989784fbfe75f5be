"""Reading ECG files: `open_ecg` for one recording of any format, `iter_array` for arrays of many."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgcmr.ecg.readers.array import ArrayFile, iter_array
from ecgcmr.ecg.readers.sniff import SUFFIXES, disagreement, sniff
from ecgcmr.ecg.recording import EcgRecording

__all__ = ["ECG_SUFFIXES", "READERS", "ArrayFile", "detect_format", "iter_array", "open_ecg", "reader_options"]

READERS: dict[str, tuple[str, str]] = {
    "wfdb": ("wfdb", "read_wfdb"),
    "ukb_xml": ("ukb_xml", "read_ukb_xml"),
    "muse_xml": ("muse_xml", "read_muse_xml"),
    "sierra_xml": ("sierra_xml", "read_sierra_xml"),
    "aecg_xml": ("aecg_xml", "read_aecg_xml"),
    "dicom": ("dicom_waveform", "read_dicom_waveform"),
    "npz": ("array", "read_array"),
    "npy": ("array", "read_array"),
    "hdf5": ("array", "read_array"),
    "mat": ("array", "read_array"),
    "table": ("array", "read_array"),
    "vendor": ("vendor", "read_vendor"),
}
"""Format -> (module, function) that reads it; modules are imported at first use."""

ECG_SUFFIXES = tuple(sorted({suffix for suffixes in SUFFIXES.values() for suffix in suffixes}))
"""Suffixes that `open_ecg` expects; others are read by content too."""

_WFDB_DATA = (".dat", ".mat")


def detect_format(path: str | Path) -> str:
    """Return the format of an ECG file, a key of `READERS`, by its content and its name.

    Args:
        path: The file; for WFDB also the record name without suffix.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No reader takes it, or its suffix belongs to another format than its content.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    beside = path.with_suffix(".hea") if suffix in _WFDB_DATA else path.with_name(path.name + ".hea")
    if (suffix in _WFDB_DATA or not path.is_file()) and beside.is_file():
        return "wfdb"
    if not path.exists() and suffix == ".hea":
        raise FileNotFoundError(f"no WFDB header {path}")
    if not path.exists():
        hint = "" if suffix else " and no WFDB header beside it (.hea)"
        raise FileNotFoundError(f"no ECG file {path}{hint}")
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"no ECG reader: {path} is {'a folder' if path.is_dir() else 'no regular file'}")
    found = sniff(path)
    if suffix == ".dat" and found not in READERS:
        raise FileNotFoundError(f"no WFDB header {beside}: {path.name} cannot be read without its header (.hea)")
    wrong = disagreement(path, found)
    if wrong is not None:
        known = f"rename it or check where it came from; readers exist for {', '.join(READERS)}"
        raise ValueError(f"no ECG reader: {wrong}; {known}")
    return found


def reader_options(path: str | Path) -> frozenset[str]:
    """Return the options that `open_ecg` takes for a file, such as `unit`; raises as it does."""
    return _options(_reader(detect_format(path)))


def open_ecg(path: str | Path, **options: Any) -> EcgRecording:
    """Read one ECG file of any format.

    The format follows from the content; a suffix that belongs to another format is an error. Leads stand in file order
    under their canonical names; `ecgcmr.ecg.to_canonical` orders them and derives limb leads that are missing.

    Args:
        path: The file; for WFDB the header, a data file, or the record name without suffix.
        options: What the reader of the format takes: `unit` (most formats), `gain_uv_per_unit` (WFDB, arrays),
            `rate_hz`, `leads`, `signal` and `row` (arrays). docs/formats.md has the table.

    Returns:
        The recording in mV (or standardised, for arrays declared so).

    Raises:
        FileNotFoundError: There is no such file, or a file that belongs to it is missing.
        ValueError: No reader, a suffix that contradicts the content, an option that the format does not take, or a
            file that is damaged or contradicts itself (the message names file and field).
    """
    path = Path(path)
    name = detect_format(path)
    reader = _reader(name)
    unknown = sorted(options.keys() - _options(reader))
    if unknown:
        takes = ", ".join(sorted(_options(reader))) or "none"
        raise ValueError(f"{path} is read as {name}, which takes no option {', '.join(unknown)}; it takes: {takes}")
    try:
        return reader(path, **options)
    except OSError:
        raise
    except Exception as error:  # a net below the readers: whatever a damaged file provokes has a type and a name
        if isinstance(error, ValueError) and str(path.with_suffix("")) in str(error):
            raise
        raise ValueError(f"{path} cannot be read as {name} ({type(error).__name__}: {error})") from error


def _reader(name: str) -> Callable[..., EcgRecording]:
    module, function = READERS[name]
    found: Callable[..., EcgRecording] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return found


def _options(reader: Callable[..., EcgRecording]) -> frozenset[str]:
    return frozenset(inspect.signature(reader).parameters) - {"path"}
