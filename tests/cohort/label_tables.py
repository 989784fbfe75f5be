"""Tables of one made-up biobank in each of the forms in which it may arrive; the truth is written beside them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

SUBJECTS = ["a1", "a2", "a3", "a4", "a5", "a6"]
VISITS = dict(zip(SUBJECTS, ["2015-06-01", "2015-06-02", "2016-01-10", "2017-03-03", "", "2018-01-01"], strict=True))
DIAGNOSES = [  # subject, ICD-10, day
    ("a1", "I219", "2010-02-03"),
    ("a1", "J180", "2012-02-03"),
    ("a2", "I214", "2015-06-02"),  # the day of the visit
    ("a3", "I21.9", "2018-05-06"),
    ("a3", "I500", "2019-05-06"),
    ("a4", "I251", "2012-01-01"),  # chronic ischaemic heart disease: no infarction
    ("a6", "I420", "2016-07-07"),
]
# prevalent infarction, event, and the day on which the clock stops, at visit 2, with the records ending on 2022-10-31
MI = {
    "a1": (1, None, None),
    "a2": (1, None, None),
    "a3": (0, 1, "2018-05-06"),
    "a4": (0, 0, "2020-02-02"),  # died
    "a6": (0, 0, "2022-10-31"),
}
SPELLINGS = {
    "showcase": "{field}-{instance}.{array}",
    "r": "f.{field}.{instance}.{array}",
    "rap": "p{field}_i{instance}_a{array}",
    "stata": "n_{field}_{instance}_{array}",
}


def main_table(spelling: str = "showcase", wide_diagnoses: bool = True, visit: int = 2) -> pd.DataFrame:
    """The main table with birth, visits, death, phenotypes, and diagnoses in arrays when asked for."""
    pattern = SPELLINGS[spelling]

    def name(field: int, instance: int = 0, array: int = 0) -> str:
        return pattern.format(field=field, instance=instance, array=array)

    table = pd.DataFrame({"f.eid" if spelling == "r" else "eid": SUBJECTS})
    table[name(31)] = ["0", "1", "0", "1", "0", "1"]
    table[name(34)], table[name(52)] = "1950", "6"
    table[name(53, visit)] = [VISITS[subject] for subject in SUBJECTS]
    table[name(21003, visit)] = ["65", "65", "66", "67", "", "68"]
    table[name(54, visit)] = "11025"
    table[name(40000)] = ["", "", "", "2020-02-02", "", ""]
    table[name(191)] = ""
    table[name(24100, visit)] = ["150.5", "", "9000", "88", "100", "1e2"]
    table[name(24103, visit)] = ["60", "55.5", "40", "NA", "61", "62"]
    if wide_diagnoses:
        mine = {subject: [row for row in DIAGNOSES if row[0] == subject] for subject in SUBJECTS}
        for array in range(2):
            rows = [mine[subject][array] if array < len(mine[subject]) else ("", "", "") for subject in SUBJECTS]
            table[name(41270, 0, array)] = [row[1].replace(".", "") for row in rows]
            table[name(41280, 0, array)] = [row[2] for row in rows]
    return table


def hospital_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same diagnoses at record level: hesin and hesin_diag, with the day first and one admission date alone."""
    hesin, diag = [], []
    for number, (subject, code, day) in enumerate(DIAGNOSES):
        written = "/".join(reversed(day.split("-")))
        started = "" if number % 2 else written
        hesin.append({"eid": subject, "ins_index": number, "epistart": started, "admidate": written})
        diag.append({"eid": subject, "ins_index": number, "arr_index": 0, "diag_icd9": "", "diag_icd10": code})
    return pd.DataFrame(hesin), pd.DataFrame(diag)


def write(folder: Path, **tables: pd.DataFrame) -> list[str]:
    """Write tables as files and give the words for --tables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        separator, suffix = ("\t", "txt") if name.startswith("hesin") else (",", "csv")
        table.to_csv(folder / f"{name}.{suffix}", sep=separator, index=False)
    return [str(folder)]
