"""Readers: files of a scanner or a public data set to `Cine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecgcmr.cmr.cine import Cine

__all__ = ["open_cine"]


def open_cine(path: str | Path, **options: Any) -> list[Cine]:
    """Read the cines at a path, whatever they are stored as.

    Args:
        path: `.nii` or `.nii.gz`; or a folder, zip or file of DICOM.
        options: Passed to `readers.nifti.read_nifti` (mask, mask_labels, view, third_axis, max_bytes) or
            `readers.dicom.read_dicom` (incomplete, max_bytes).

    Returns:
        One Cine for each view; short-axis slices of a study as one stack, base to apex, first.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: When the files are damaged, incomplete or no cine.
    """
    if str(path).lower().endswith((".nii", ".nii.gz")):
        from ecgcmr.cmr.readers.nifti import read_nifti

        return [read_nifti(path, **options)]
    from ecgcmr.cmr.readers.dicom import read_dicom

    return read_dicom(path, **options)
