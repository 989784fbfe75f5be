"""Reading ECG files: `open_ecg` for one recording, `iter_array` for arrays of many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgcmr.ecg.readers.array import ArrayFile, iter_array
from ecgcmr.ecg.readers.wfdb import read_wfdb
from ecgcmr.ecg.recording import EcgRecording

__all__ = ["READERS", "ArrayFile", "iter_array", "open_ecg"]

READERS: dict[str, Callable[..., EcgRecording]] = {".hea": read_wfdb, ".dat": read_wfdb, ".mat": read_wfdb}
"""Reader of each file suffix."""


def open_ecg(path: str | Path, **options: Any) -> EcgRecording:
    """Read one ECG file.

    The reader follows from the suffix: `.hea`, `.dat`, `.mat` and names without one are WFDB records. Array files
    (`.npz`, `.npy`) hold many recordings: use `iter_array`.

    Args:
        path: The file; for WFDB also the record name without suffix.
        options: Passed to the reader, such as `unit="uV"` for a file that states no unit.

    Returns:
        The recording in mV, leads in file order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No reader for the suffix, or the file is damaged or contradicts itself.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        raise ValueError(f"{path} is an array of recordings; read it with iter_array(path) or ArrayFile(path)")
    reader = READERS.get(suffix)
    if reader is None and path.with_name(path.name + ".hea").is_file():
        reader = read_wfdb
    if reader is None:
        if not path.exists():
            raise FileNotFoundError(f"no ECG file {path}" + ("" if suffix else " and no WFDB header beside it (.hea)"))
        raise ValueError(f"no ECG reader for {path}: expected one of {', '.join(READERS)}, or .npz with iter_array")
    return reader(path, **options)
