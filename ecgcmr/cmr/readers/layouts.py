"""open_study: one subject's folder of a known data set, or any study, with the layout found out from file names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ecgcmr.cmr.readers.members import DEFAULT_MAX_BYTES
from ecgcmr.cmr.readers.study import Study

_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("acdc", re.compile(r".+_(4d|frame\d{1,3}(_gt)?)\.nii(\.gz)?$")),
    ("mnms2", re.compile(r".+_(SA|LA)_(CINE|ED|ES)(_gt)?\.nii(\.gz)?$")),
    ("mnms", re.compile(r".+_sa(_gt)?\.nii(\.gz)?$")),
    ("sunnybrook", re.compile(r"IM-\d+-\d{4}-[io]contour-(manual|auto)\.txt$")),
)
_DEEP = {"sunnybrook"}  # contours lie in folders of their own


def detect_layout(path: str | Path) -> tuple[str, str]:
    """Tell the layout of a study, and what it was told by.

    Returns:
        One of `LAYOUTS`, and the reason in words.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: When files of two layouts lie in the folder.
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"no file or folder at {folder}")
    if not folder.is_dir():
        nifti = folder.name.lower().endswith((".nii", ".nii.gz"))
        return ("nifti", "a NIfTI file") if nifti else ("dicom", "a single file or zip")
    here = [item.name for item in folder.iterdir() if item.is_file()]
    deep = [item.name for item in folder.rglob("*.txt")]
    found: dict[str, str] = {}
    for name, pattern in _NAMES:
        match = next((one for one in sorted(deep if name in _DEEP else here) if pattern.match(one)), None)
        if match is not None:
            found[name] = pattern.pattern
    if len(found) > 1:
        raise ValueError(f"{folder}: files of the layouts {sorted(found)} in one folder; say which with layout=...")
    if found:
        name, words = next(iter(found.items()))
        return name, f"file names like {words}"
    if any(one.lower().endswith((".nii", ".nii.gz")) for one in here):
        return "nifti", "NIfTI files without names of a known layout"
    return "dicom", "no names of another layout"


def labeled_layout(path: Path) -> str | None:
    """The layout of a folder of labeled NIfTI files, told by the names in it alone; None for everything else."""
    if not path.is_dir():
        return None
    names = [item.name for item in path.iterdir()]
    return next((name for name, pattern in _NAMES if name not in _DEEP and any(map(pattern.match, names))), None)


def open_study(
    path: str | Path, layout: str | None = None, *, incomplete: str = "error", max_bytes: int = DEFAULT_MAX_BYTES
) -> Study:
    """Read one study with all that its layout knows: cines, masks, ED and ES, and facts about the subject.

    Args:
        path: Folder of one subject (for `dicom` also a zip or file, for `nifti` a file).
        layout: One of `LAYOUTS`; None finds it out and notes by what.
        incomplete: For DICOM: see `open_cine`.
        max_bytes: What each file (or all zips together) may unpack to [bytes].

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: For an unknown layout, a folder that is not of it, or damaged files.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {sorted(LAYOUTS)}, got {layout!r}")
    name, reason = (layout, "") if layout is not None else detect_layout(path)
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"no file or folder at {folder}")
    if name not in ("dicom", "nifti") and not folder.is_dir():
        raise ValueError(f"{folder}: the layout {name!r} is that of a folder, and this is none")
    study = LAYOUTS[name](folder, incomplete, max_bytes)
    if not reason:
        return study
    found = f"layout {name!r} found by {reason}"
    return Study(study.layout, study.cines, study.phases, study.facts, (found, *study.notes))


def _acdc(folder: Path, incomplete: str, max_bytes: int) -> Study:
    from ecgcmr.cmr.readers.acdc import read_acdc

    return read_acdc(folder, max_bytes)


def _mnms(folder: Path, incomplete: str, max_bytes: int) -> Study:
    from ecgcmr.cmr.readers.mnms import read_mnms

    return read_mnms(folder, max_bytes)


def _mnms2(folder: Path, incomplete: str, max_bytes: int) -> Study:
    from ecgcmr.cmr.readers.mnms import read_mnms2

    return read_mnms2(folder, max_bytes)


def _sunnybrook(folder: Path, incomplete: str, max_bytes: int) -> Study:
    from ecgcmr.cmr.readers.sunnybrook import read_sunnybrook

    return read_sunnybrook(folder, incomplete, max_bytes)


def _dicom(folder: Path, incomplete: str, max_bytes: int) -> Study:
    from ecgcmr.cmr.readers.dicom import read_dicom

    cines = tuple(read_dicom(folder, incomplete=incomplete, max_bytes=max_bytes))
    return Study("dicom", cines, tuple({} for _ in cines))


def _nifti(folder: Path, incomplete: str, max_bytes: int) -> Study:
    from ecgcmr.cmr.readers.nifti import read_nifti

    files = [folder]
    if folder.is_dir():
        files = sorted(item for item in folder.iterdir() if item.name.lower().endswith((".nii", ".nii.gz")))
        if not files:
            raise ValueError(f"{folder}: no NIfTI file in it")
    cines = tuple(read_nifti(file, max_bytes=max_bytes) for file in files)
    return Study("nifti", cines, tuple({} for _ in cines))


LAYOUTS: dict[str, Callable[[Path, str, int], Study]] = {
    "acdc": _acdc,
    "mnms": _mnms,
    "mnms2": _mnms2,
    "sunnybrook": _sunnybrook,
    "dicom": _dicom,
    "nifti": _nifti,
}
