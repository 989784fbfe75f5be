"""Folders in the layouts of public cine data sets, written for tests: a beating disc with a ring and a right side."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (24, 20, 6, 8)  # x, y, slice, time
ED, ES = 0, 3
LABELS = {"acdc": {"rv": 1, "myo": 2, "lv": 3}, "mnms": {"lv": 1, "myo": 2, "rv": 3}}


def hearts(shape: tuple[int, ...] = SHAPE, apex_first: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Image (x, y, slice, time) and structures of it: 0 none, 1 LV cavity, 2 myocardium, 3 RV cavity."""
    x, y, z, t = np.ogrid[: shape[0], : shape[1], : shape[2], : shape[3]]
    taper = 1.0 - 0.6 * (z if not apex_first else shape[2] - 1 - z) / max(1, shape[2] - 1)
    radius = taper * (4.0 - 2.0 * np.sin(np.pi * t / shape[3]))
    away = np.hypot(x - 11.0, y - 9.0)
    right = np.hypot(x - 4.0, y - 9.0)
    structures = np.zeros(shape, dtype=np.uint8)
    structures[right < 0.8 * radius] = 3
    structures[away < radius + 2.0] = 2
    structures[away < radius] = 1
    noise = np.random.default_rng(0).integers(0, 20, shape)
    image = np.array([60, 800, 200, 700])[structures] + noise
    return image.astype(np.int16), structures


def relabel(structures: np.ndarray, preset: str) -> np.ndarray:
    labels = LABELS[preset]
    return np.array([0, labels["lv"], labels["myo"], labels["rv"]], dtype=np.uint8)[structures]


def save(path: Path, data: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.6, 9.0)) -> Path:
    image = nibabel.Nifti1Image(data, np.diag([*spacing, 1.0]))
    nibabel.save(image, path)
    return path


def write_acdc(folder: Path, whole: bool = True, apex_first: bool = False, ed: int = ED + 1, es: int = ES + 1) -> Path:
    """One subject; frames in names and Info.cfg count from 1."""
    folder.mkdir(parents=True)
    image, structures = hearts(apex_first=apex_first)
    if whole:
        save(folder / "case001_4d.nii.gz", image)
    for frame in (ED, ES):
        save(folder / f"case001_frame{frame + 1:02d}.nii.gz", image[..., frame])
        save(folder / f"case001_frame{frame + 1:02d}_gt.nii.gz", relabel(structures[..., frame], "acdc"))
    (folder / "Info.cfg").write_text(f"ED: {ed}\nES: {es}\nGroup: DCM\nHeight: 184.0\nNbFrame: 8\nWeight: 95.0\n")
    return folder


def write_mnms(root: Path, labeled: bool = True, ed: int = ED, es: int = ES) -> Path:
    """One subject below a table of the set; the table counts frames from 0."""
    folder = root / "Training" / "Labeled" / "A1B2C3"
    folder.mkdir(parents=True)
    image, structures = hearts()
    masks = np.zeros_like(structures)
    if labeled:
        for frame in (ED, ES):
            masks[..., frame] = relabel(structures[..., frame], "mnms")
    save(folder / "A1B2C3_sa.nii.gz", image)
    save(folder / "A1B2C3_sa_gt.nii.gz", masks)
    (root / "information.csv").write_text(
        ",External code,VendorName,Vendor,Centre,ED,ES,Age\n0,X9Y9Z9,Canon,D,5,1,2,40\n"
        f"1,A1B2C3,Siemens,A,1,{ed},{es},51\n"
    )
    return folder


def write_mnms2(folder: Path, cine: bool = True, equal: bool = True) -> Path:
    """One subject: short-axis stack and four-chamber view."""
    folder.mkdir(parents=True)
    for axis, shape in (("SA", SHAPE), ("LA", (*SHAPE[:2], 1, SHAPE[3]))):
        image, structures = hearts(shape)
        if cine:
            save(folder / f"007_{axis}_CINE.nii.gz", image)
        for name, frame in (("ED", ED), ("ES", ES)):
            still = image[..., frame] if equal else image[..., frame] + 3
            save(folder / f"007_{axis}_{name}.nii.gz", still)
            save(folder / f"007_{axis}_{name}_gt.nii.gz", relabel(structures[..., frame], "mnms"))
    (folder.parent / "dataset_information.csv").write_text("SUBJECT_CODE,DISEASE,VENDOR\n6,NOR,GE\n7,HCM,SIEMENS\n")
    return folder
