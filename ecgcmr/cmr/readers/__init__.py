"""Readers: files of a scanner or a public data set to `Cine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.readers.layouts import detect_layout, labeled_layout, open_study
from ecgcmr.cmr.readers.members import DEFAULT_MAX_BYTES

__all__ = ["detect_layout", "open_cine", "open_study"]


def open_cine(
    path: str | Path, *, incomplete: str = "error", max_bytes: int = DEFAULT_MAX_BYTES, **nifti: Any
) -> list[Cine]:
    """Read the cines at a path, whatever they are stored as.

    A list, because a study holds several views and each is a cine of its own with its own planes and times; of a file
    that holds one view the list has one. `open_study` also gives masks, ED and ES of public data sets.

    Args:
        path: `.nii` or `.nii.gz`; a folder, zip or file of DICOM; or one subject's folder of ACDC, M&Ms or M&Ms-2.
        incomplete: For DICOM: `error` refuses a study with a missing or double frame, `drop` leaves out the slices in
            which that is so and notes it.
        max_bytes: What the files may unpack to [bytes].
        nifti: For NIfTI: mask, mask_labels, view, third_axis (see `readers.nifti.read_nifti`).

    Returns:
        One Cine for each view; short-axis slices of a study as one stack, base to apex, first.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: When the files are damaged, incomplete or no cine, or an option does not belong to the format.
    """
    if str(path).lower().endswith((".nii", ".nii.gz")) and not Path(path).is_dir():
        from ecgcmr.cmr.readers.nifti import read_nifti

        return [read_nifti(path, max_bytes=max_bytes, **nifti)]
    if nifti:
        raise ValueError(f"{path}: options {sorted(nifti)} are for NIfTI files, and this is none")
    if labeled_layout(Path(path)) is not None:
        return list(open_study(path, incomplete=incomplete, max_bytes=max_bytes).cines)
    from ecgcmr.cmr.readers.dicom import read_dicom

    return read_dicom(path, incomplete=incomplete, max_bytes=max_bytes)
