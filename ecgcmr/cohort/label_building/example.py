"""Small synthetic tables in the layout of UK Biobank and of MIMIC, to try `labels build` without any real data.

Nobody is described by them: every number is drawn here, and the diseases of a subject say nothing about its ECG.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ecgcmr.cohort.label_building.own_example import write_own_example

KINDS = ("ukb", "mimic", "own")
_FIRST_VISIT, _LAST_DAY = np.datetime64("2015-01-05"), np.datetime64("2022-10-31")
_CODES = ("I219", "I252", "I251", "I420", "I422", "I429", "I48", "I500", "E119", "I401", "I272", "J180", "K519", "M545")


def write_example(folder: Path, kind: str, n_subjects: int, seed: int) -> list[Path]:
    """Write example tables and ECGs of as many subjects.

    Args:
        folder: New or empty folder.
        kind: "ukb", "mimic", or "own" for a hospital's files and labels (`write_own_example`).
        n_subjects: Number of subjects.
        seed: Seed of everything drawn.

    Returns:
        The files.

    Raises:
        ValueError: An unknown kind.
        FileExistsError: The folder is not empty.
    """
    if kind not in KINDS:
        raise ValueError(f"--kind {kind}: there are examples of {', '.join(KINDS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(0x1AB,))))
    if kind == "own":
        return write_own_example(folder, n_subjects, rng)
    subjects = np.array([f"P{number:04d}" for number in range(n_subjects)])
    tables, items = (_ukb if kind == "ukb" else _mimic)(subjects, rng)
    files = []
    for name, table in tables.items():
        separator, suffix = ("\t", ".txt") if name.startswith("hesin") else (",", ".csv")
        files.append(folder / f"{name}{suffix}")
        table.to_csv(files[-1], sep=separator, index=False, lineterminator="\n")
    (folder / "ecg").mkdir()
    files.append(folder / "ecg" / "example.npz")
    np.savez(files[-1], ecg=_ecgs(len(items), rng), scale=0.001, fs=100, ecg_id=items)
    return files


def _diagnoses(subjects: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Coded stays (subject, code, day), none to four for each subject, most of them of no interest."""
    counts = rng.integers(0, 5, len(subjects))
    owner = np.repeat(subjects, counts)
    days = np.datetime64("2009-01-01") + rng.integers(0, 365 * 13, len(owner)).astype("timedelta64[D]")
    return pd.DataFrame({"subject": owner, "code": rng.choice(_CODES, len(owner)), "day": days})


def _ukb(subjects: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    n = len(subjects)
    visit = _FIRST_VISIT + rng.integers(0, 1500, n).astype("timedelta64[D]")
    birth_year, sex = rng.integers(1940, 1970, n), rng.integers(0, 2, n)
    died = rng.random(n) < 0.05
    main = pd.DataFrame({"eid": subjects, "31-0.0": sex, "34-0.0": birth_year, "52-0.0": rng.integers(1, 13, n)})
    main["53-2.0"] = visit.astype(str)
    main["54-2.0"] = rng.choice([11025, 11026, 11027], n)
    main["21003-2.0"] = visit.astype("datetime64[Y]").astype(int) + 1970 - birth_year
    death = np.minimum(visit + rng.integers(30, 1500, n).astype("timedelta64[D]"), _LAST_DAY)
    main["40000-0.0"] = np.where(died, death.astype(str), "")
    size = rng.normal(0, 1, n)
    for field, mean, spread in ((24100, 150, 30), (24101, 62, 18), (24103, 59, 6), (24105, 90, 20)):
        main[f"{field}-2.0"] = np.round(mean + spread * (0.8 * size + 0.6 * rng.normal(0, 1, n)), 2)
    main.loc[0, "24103-2.0"] = 0.59  # one ejection fraction as a fraction: set aside, and counted
    first = np.full(n, "", dtype=object)
    first[rng.random(n) < 0.06] = "1900-01-01"  # diabetes at a time that nobody noted
    main["130708-0.0"] = first
    stays = _diagnoses(subjects, rng)
    alive = (
        stays["day"].to_numpy() <= pd.Series(np.where(died, death, _LAST_DAY), subjects)[stays["subject"]].to_numpy()
    )
    stays = stays[alive].reset_index(drop=True)
    stays["ins_index"] = stays.groupby("subject").cumcount()
    written = stays["day"].dt.strftime("%d/%m/%Y")
    hesin = pd.DataFrame(
        {"eid": stays["subject"], "ins_index": stays["ins_index"], "epistart": written, "admidate": written}
    )
    diag = pd.DataFrame({"eid": stays["subject"], "ins_index": stays["ins_index"], "arr_index": 0, "level": 1})
    diag["diag_icd9"], diag["diag_icd10"] = "", stays["code"]
    return {"main": main, "hesin": hesin, "hesin_diag": diag}, subjects


def _mimic(subjects: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    n, shift = len(subjects), np.timedelta64(150 * 365, "D")  # MIMIC shifts every date into the future
    stays = _diagnoses(subjects, rng)
    stays["hadm_id"] = np.arange(len(stays)) + 20000
    start = (
        stays["day"].to_numpy().astype("datetime64[s]")
        + shift
        + rng.integers(0, 86400, len(stays)).astype("timedelta64[s]")
    )
    end = start + rng.integers(86400, 12 * 86400, len(stays)).astype("timedelta64[s]")
    stamp = "%Y-%m-%d %H:%M:%S"
    admissions = pd.DataFrame({"subject_id": stays["subject"], "hadm_id": stays["hadm_id"]})
    admissions["admittime"] = pd.Series(start).dt.strftime(stamp)
    admissions["dischtime"] = pd.Series(end).dt.strftime(stamp)
    old = rng.random(len(stays)) < 0.4
    icd9 = {"I219": "41001", "I252": "412", "I48": "42731", "I500": "4280", "E119": "25000", "I422": "42518"}
    code = np.where(old, stays["code"].map(icd9).fillna("4011"), stays["code"])
    diag = pd.DataFrame({"subject_id": stays["subject"], "hadm_id": stays["hadm_id"], "seq_num": 1, "icd_code": code})
    diag["icd_version"] = np.where(old, 9, 10)
    patients = pd.DataFrame(
        {"subject_id": subjects, "gender": rng.choice(["F", "M"], n), "anchor_age": rng.integers(30, 90, n)}
    )
    patients["anchor_year"], patients["dod"] = 2164, ""
    when = np.datetime64("2012-01-01", "s") + shift + rng.integers(0, 6 * 365 * 86400, n).astype("timedelta64[s]")
    items = np.arange(n) + 40000
    records = pd.DataFrame({"subject_id": subjects, "study_id": items, "ecg_time": pd.Series(when).dt.strftime(stamp)})
    tables = {"record_list": records, "admissions": admissions, "diagnoses_icd": diag, "patients": patients}
    return tables, items


def _ecgs(count: int, rng: np.random.Generator) -> np.ndarray:
    """ECGs (n, 12, 1000) at 100 Hz [uV]: beats that obey Einthoven and Goldberger, for a file that ingest can read."""
    rates = rng.uniform(55, 90, count)
    phase = (np.arange(1000)[None] / 100.0 * rates[:, None] / 60.0) % 1.0
    waves = ((0.25, 0.03, 0.12), (0.40, 0.012, 1.0), (0.43, 0.012, -0.2), (0.68, 0.05, 0.3))
    beat = sum(height * np.exp(-0.5 * ((phase - at) / width) ** 2) for at, width, height in waves)
    one, two = 700.0 * beat, 1000.0 * beat
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [gain * beat for gain in (-400.0, 500.0, 900.0, 1300.0, 1200.0, 900.0)]
    signals = np.stack([*limb, *chest], axis=1) + rng.normal(0, 8, (count, 12, 1000))
    return np.rint(signals).astype(np.int16)
