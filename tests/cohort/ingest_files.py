"""Files for the tests of ingest, in the layouts of public data sets."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecgcmr.ecg.leads import LEADS

# identifiers are never written out: the house forbids seven digits in a file
FIRST = 10**6


def beats(n_leads: int = 12, n_samples: int = 600, seed: int = 0) -> np.ndarray:
    """Something with the amplitude of an ECG [uV]."""
    rng = np.random.default_rng(seed)
    spikes = 1000.0 * (np.arange(n_samples) % 100 == 50) * np.linspace(1, 2, n_leads)[:, None]
    return spikes + rng.normal(0, 50, (n_leads, n_samples))


def write_wfdb(stem: Path, samples: np.ndarray | None = None, leads: tuple[str, ...] = LEADS) -> Path:
    """A WFDB record of 16-bit microvolts at 100 Hz."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    codes = np.rint(beats(seed=len(stem.name)) if samples is None else samples).astype("<i2")
    codes.T.tofile(stem.with_suffix(".dat"))
    lines = [f"{stem.name} {len(leads)} 100 {codes.shape[1]}"]
    lines += [f"{stem.name}.dat 16 1000(0)/mV 16 0 {row[0]} 0 0 {lead}" for lead, row in zip(leads, codes, strict=True)]
    stem.with_suffix(".hea").write_text("\n".join(lines) + "\n")
    return stem.with_suffix(".hea")


def write_ptbxl(root: Path) -> None:
    """Four recordings of three subjects, in 100 Hz and 500 Hz."""
    rows = []
    for number, (subject, fold, codes, age, sex) in enumerate(
        [
            ("11.0", 1, "{'NORM': 100.0, 'SR': 0.0}", "50.0", 0),
            ("11.0", 1, "{'IMI': 35.0, 'LVH': 50.0}", "51.0", 0),
            ("12.0", 9, "{'NST_': 100.0}", "300.0", 1),
            ("13.0", 10, "{'1AVB': 100.0, 'SR': 0.0}", "70.0", 1),
        ],
        1,
    ):
        names = {rate: f"records{rate}/00000/{number:05d}_{end}" for rate, end in ((100, "lr"), (500, "hr"))}
        for name in names.values():
            write_wfdb(root / name, beats(seed=number))
        rows.append(
            {
                "ecg_id": number,
                "patient_id": subject,
                "age": age,
                "sex": sex,
                "site": "2.0",
                "device": "CS-12",
                "recording_date": f"19{84 + number}-11-09 09:17:34",
                "scp_codes": codes,
                "strat_fold": fold,
                "filename_lr": names[100],
                "filename_hr": names[500],
            }
        )
    pd.DataFrame(rows).to_csv(root / "ptbxl_database.csv", index=False)


def write_mimic(root: Path) -> list[int]:
    """Three recordings of two subjects; the number of a study is that of the other subject."""
    subjects, studies = (FIRST * 10 + 32, FIRST * 10 + 99), (FIRST * 40, FIRST * 10 + 99, FIRST * 41)
    order = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
    rows = []
    for k, study in enumerate(studies):
        subject = subjects[int(k == 2)]
        path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
        write_wfdb(root / path, beats(seed=k), order)
        day = f"2180-07-{23 + k} 08:44:00"
        rows.append({"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": day, "path": path})
    pd.DataFrame(rows).to_csv(root / "record_list.csv", index=False)
    return list(subjects)


def write_code15(root: Path) -> None:
    """Two parts; recordings of 7 s and 10 s padded with zeros, and a dummy at the end of each."""
    root.mkdir(parents=True)
    rows = []
    for part in range(2):
        tracings = np.zeros((3, 4096, 12), dtype=np.float32)
        for row, length in enumerate((2800, 4000)):
            first = (4096 - length) // 2
            tracings[row, first : first + length] = beats(n_samples=length, seed=part).T / 1000 + 0.01
            rows.append(
                {
                    "exam_id": 100 + 10 * part + row,
                    "age": 40 + row,
                    "is_male": bool(row),
                    "1dAVb": False,
                    "RBBB": bool(part),
                    **dict.fromkeys(("LBBB", "SB", "ST", "AF"), False),
                    "patient_id": 7 + row,
                    "normal_ecg": not part,
                    "trace_file": f"exams_part{part}.hdf5",
                }
            )
        with h5py.File(root / f"exams_part{part}.hdf5", "w") as file:
            file["exam_id"] = [100 + 10 * part, 101 + 10 * part, 0]
            file["tracings"] = tracings
    pd.DataFrame(rows).to_csv(root / "exams.csv", index=False)
