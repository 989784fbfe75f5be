"""Uploaded files: read, and gone before the answer is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecgcmr.ecg.readers import open_ecg, reader_options
from ecgcmr.ecg.recording import EcgRecording

_COMPANIONS = (".dat", ".mat")  # of a WFDB header


def read_upload(paths: Sequence[str | Path], unit: str | None = None, row: int | None = None) -> EcgRecording:
    """Read the recording that was uploaded, and remove the files whether or not it could be read.

    Args:
        paths: One file, or the files of one recording (WFDB: header and data).
        unit: mV, uV or V, for files that do not state it; None keeps what they state.
        row: Which recording of an array of several.

    Returns:
        The recording.

    Raises:
        ValueError, FileNotFoundError: As `open_ecg`; messages name files as they were uploaded, without folders.
    """
    files = [Path(path) for path in paths]
    try:
        if not files:
            raise ValueError("no file was given: drop an ECG file, or choose an example")
        with tempfile.TemporaryDirectory(prefix="ecgcmr-") as place:
            together = Path(place)
            for file in files:
                shutil.move(file, together / file.name)
            try:
                return _read(together, [file.name for file in files], unit, row)
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(str(error).replace(f"{together}/", "").replace(str(together), "")) from None
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _read(folder: Path, names: Sequence[str], unit: str | None, row: int | None) -> EcgRecording:
    headers = [name for name in names if name.lower().endswith(".hea")]
    main = headers or [name for name in names if not (len(names) > 1 and name.lower().endswith(_COMPANIONS))] or names
    if len(main) != 1:
        raise ValueError(
            f"{len(main)} recordings at once ({', '.join(sorted(main)[:3])}): give one; of WFDB its .hea and .dat file"
        )
    path = folder / main[0]
    takes = reader_options(path)
    options: dict[str, Any] = {}
    if unit is not None and "unit" in takes:
        options["unit"] = unit
    if row is not None and "row" in takes:
        options["row"] = row
    return open_ecg(path, **options)
