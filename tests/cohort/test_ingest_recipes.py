"""Every recipe of configs/data on folders of the layout that it is for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ingest_files import FIRST, beats, write_code15, write_mimic, write_ptbxl, write_wfdb

from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.recipe import load_recipe
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort

RECIPES = Path(__file__).parents[2] / "configs" / "data"
sys.path += [str(Path(__file__).parents[1] / room) for room in ("ecg", "cmr")]  # their writers of files


def run(tmp_path: Path, name: str, *changes: str, **kwargs):
    recipe = load_recipe(RECIPES / f"{name}.yaml", changes)
    report = ingest(IngestOptions(out=tmp_path / "out", recipe=recipe, root=tmp_path / "data", **kwargs))
    assert report.out is not None, report
    assert validate_cohort(report.out, deep=True) == []
    return Cohort.open(report.out), report


def test_every_recipe__is_tested_here_and_valid():
    names = {path.stem for path in RECIPES.glob("*.yaml")}
    tested = {"ukb", "mimic_iv_ecg", "ptbxl", "physionet2021", "code15", "acdc", "mnms", "mnms2", "folder"}
    assert names == tested
    for name in names:
        assert load_recipe(RECIPES / f"{name}.yaml").name == name


def test_ptbxl__subjects_labels_folds_and_days(tmp_path):
    write_ptbxl(tmp_path / "data")
    cohort, report = run(tmp_path, "ptbxl")
    assert report.kept == {"ecg": 4}
    assert cohort.recordings["subject"].tolist() == [0, 0, 1, 2]
    # 9 Nov 1985 to 9 Nov 1986
    assert cohort.recordings["visit_days"].tolist() == [0, 365, 0, 0]
    assert cohort.subjects["sex"].tolist() == ["male", "female", "female"]
    np.testing.assert_array_equal(cohort.subjects["age_years"], [50, np.nan, 70])
    assert cohort.recording_labels.astype(int).to_numpy().tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
    ]
    assert list(cohort.labels) == ["NORM", "MI", "STTC", "CD", "HYP"]
    split = open_split(cohort)
    assert [part.tolist() for part in split.parts().values()] == [[0], [1], [2]]
    unwanted = cohort.ledger[cohort.ledger["reason"] == "not_wanted"]["item"]
    assert sorted(unwanted) == ["ptbxl_database.csv", *(f"records100/00000/{k:05d}_lr.hea" for k in range(1, 5))]
    assert cohort.schema.provenance.startswith("PTB-XL")


def test_ptbxl__lower_rate_by_key_and_value(tmp_path):
    write_ptbxl(tmp_path / "data")
    cohort, _ = run(tmp_path, "ptbxl", "ecg.files=['records100/**/*.hea']", "table.item=filename_lr")
    kept = cohort.ledger[cohort.ledger["status"] == "kept"]["item"]
    assert all(item.startswith("records100/") for item in kept)


def test_ptbxl__leaking_folds_are_told_by_rows(tmp_path):
    write_ptbxl(tmp_path / "data")
    path = tmp_path / "data" / "ptbxl_database.csv"
    table = pd.read_csv(path)
    table.loc[1, "strat_fold"] = 10
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"subject 0 has recordings in test and train \(data rows 1 and 2\)"):
        run(tmp_path, "ptbxl")
    assert not (tmp_path / "out").exists()


def test_mimic__a_study_number_is_not_taken_for_a_subject(tmp_path):
    subjects = write_mimic(tmp_path / "data")
    cohort, _ = run(tmp_path, "mimic_iv_ecg", keep_map=tmp_path / "map.csv")
    assert cohort.recordings["visit_days"].tolist() == [1, 0, 0]  # sorted by path, so by study
    assert cohort.recordings["subject"].tolist() == [0, 0, 1]
    mapping = pd.read_csv(tmp_path / "map.csv")
    assert mapping["key"].tolist() == [subjects[0], subjects[0], subjects[1]]
    # aVF stands before aVL in these files: taken by name
    np.testing.assert_allclose(cohort.recording(0).samples[4], np.rint(beats(seed=1)[5]) / 1000, atol=6e-4)


def test_physionet2021__site_from_the_folder(tmp_path):
    for source, name in (("georgia", "E00001"), ("ptb-xl", "HR00001"), ("cpsc_2018_extra", "Q0001")):
        write_wfdb(tmp_path / "data" / "training" / source / "g1" / name)
    cohort, _ = run(tmp_path, "physionet2021")
    assert cohort.subjects["site"].tolist() == ["cpsc_2018_extra", "georgia", "ptb-xl"]
    assert cohort.schema.group_columns == ("site",)


def test_code15__padding_dummies_and_subjects_over_parts(tmp_path):
    write_code15(tmp_path / "data")
    cohort, report = run(tmp_path, "code15")
    assert cohort.recordings["n_samples"].tolist() == [2800, 4000, 2800, 4000]
    assert cohort.recordings["subject"].tolist() == [0, 1, 0, 1]
    assert sum(report.dropped["ecg"].values()) == 2, report.examples
    assert cohort.subjects["sex"].tolist() == ["female", "male"]
    assert cohort.recording_labels["RBBB"].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(cohort.recording(0).samples, beats(n_samples=2800, seed=0) / 1000 + 0.01, atol=6e-4)


def test_ukb__visits_pair_and_no_date_or_number_is_stored(tmp_path):
    from ecg_format_writers import ecg_mv, write_ukb_xml
    from test_cohort_ingest import write_dicom

    data = tmp_path / "data"
    (data / "bulk").mkdir(parents=True)
    for subject, visit in ((FIRST + 1, 2), (FIRST + 1, 3), (FIRST + 2, 2)):
        write_ukb_xml(data / "bulk" / f"{subject}_20205_{visit}_0.xml", ecg_mv(3000, seed=visit))
    write_dicom(tmp_path / "series")
    for visit in (2, 3):
        shutil.make_archive(str(data / "bulk" / f"{FIRST + 1}_20209_{visit}_0"), "zip", tmp_path / "series")
    pd.DataFrame(
        {"eid": [FIRST + 1, FIRST + 2], "p53_i2": ["2016-05-01", "2016-06-01"], "p53_i3": ["2019-05-01", ""]}
    ).to_csv(data / "visits.csv", index=False)
    cohort, report = run(tmp_path, "ukb", pair_days=30.0)
    assert cohort.recordings["subject"].tolist() == [0, 0, 1]
    assert cohort.recordings["visit_days"].tolist() == [0, 1095, 0]
    assert cohort.studies["visit_days"].tolist() == [0, 1095]
    assert cohort.pairs[["recording", "study", "days_apart", "rank"]].to_numpy().tolist() == [
        [0, 0, 0, 0],
        [1, 1, 0, 0],
    ]
    assert report.pairs.unpaired == {"subject has no study": 1}
    stored = b"".join(path.read_bytes() for path in report.out.rglob("*") if path.is_file())
    stored += "".join(getattr(cohort, name).to_csv() for name in ("recordings", "studies", "ledger")).encode()
    for word in (str(FIRST + 1), str(FIRST + 2), "2016-05-01", "2019"):
        assert word.encode() not in stored


def test_ukb__dates_of_the_files_without_a_table(tmp_path):
    from ecg_format_writers import ecg_mv, write_ukb_xml

    data = tmp_path / "data"
    data.mkdir()
    for visit, year in ((2, 2016), (3, 2018)):
        path = write_ukb_xml(data / f"{FIRST + 1}_20205_{visit}_0.xml", ecg_mv(3000, seed=visit))
        path.write_text(path.read_text(encoding="latin-1").replace("<Year>2016<", f"<Year>{year}<"), encoding="latin-1")
    cohort, _ = run(tmp_path, "ukb")
    assert cohort.recordings["visit_days"].tolist() == [0, 730]


def test_acdc__masks_official_folders_and_groups(tmp_path):
    from cmr_layouts import write_acdc

    for part, name in (("training", "patient001"), ("testing", "patient101")):
        write_acdc(tmp_path / "data" / part / name)
    cohort, _ = run(tmp_path, "acdc")
    assert len(cohort.studies) == 2
    assert (cohort.studies["mask_offset"] >= 0).all()
    assert cohort.schema.labels[0].name == "Group"
    split = open_split(cohort)
    # sorted by path: testing comes first
    assert [part.tolist() for part in split.parts().values()] == [[1], [], [0]]


def test_mnms__parts_from_the_folders_and_the_table(tmp_path):
    from cmr_layouts import write_mnms

    root = tmp_path / "data"
    write_mnms(root)
    shutil.copytree(root / "Training" / "Labeled" / "A1B2C3", root / "Testing" / "X9Y9Z9")
    for path in (root / "Testing" / "X9Y9Z9").iterdir():
        path.rename(path.with_name(path.name.replace("A1B2C3", "X9Y9Z9")))
    table = root / "information.csv"
    frame = pd.read_csv(table).assign(Sex="F", Pathology=["NOR", "HCM"])
    frame.loc[0, ["ED", "ES"]] = frame.loc[1, ["ED", "ES"]]
    frame.to_csv(table, index=False)
    cohort, _ = run(tmp_path, "mnms", "table.labels=[ED]")
    assert cohort.subjects["Vendor"].tolist() == ["D", "A"]
    assert cohort.subjects["site"].tolist() == ["5", "1"]
    assert [part.tolist() for part in open_split(cohort).parts().values()] == [[1], [], [0]]


def test_mnms2__ranges_of_codes_are_parts(tmp_path):
    from cmr_layouts import write_mnms2

    root = tmp_path / "data"
    for code in ("001", "200", "360"):
        write_mnms2(root / "dataset" / code)
        for path in (root / "dataset" / code).iterdir():
            path.rename(path.with_name(f"{code}_{path.name.split('_', 1)[1]}"))
    pd.DataFrame(
        {"SUBJECT_CODE": [1, 200, 360], "DISEASE": ["NOR", "NOR", "LV"], "VENDOR": "S", "SCANNER": "X", "FIELD": 1.5}
    ).to_csv(root / "dataset_information.csv", index=False)
    cohort, _ = run(tmp_path, "mnms2", "table.labels=null")
    assert [part.tolist() for part in open_split(cohort).parts().values()] == [[0], [1], [2]]
    assert cohort.subjects["FIELD"].tolist() == ["1.5"] * 3


def test_folder__as_a_recipe_and_as_options_is_the_same_cohort(tmp_path):
    for name in ("a", "b"):
        write_wfdb(tmp_path / "data" / "ecg" / name, beats(seed=ord(name)))
    (tmp_path / "data" / "labels.csv").write_text("item,MI\na,1\nb,0\n")
    cohort, _ = run(tmp_path, "folder")
    data = tmp_path / "data"
    other = Cohort.open(ingest(IngestOptions(tmp_path / "other", ecg=data / "ecg", labels=data / "labels.csv")).out)
    for name in ("subjects", "recordings", "labels", "ledger"):
        pd.testing.assert_frame_equal(getattr(cohort, name), getattr(other, name))
    assert cohort.labels["MI"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: x\necg: {}\ntable: {file: a.csv, itm: b}",
            "unknown key 'table.itm'; the nearest valid name is 'table.item'",
        ),
        ("name: x", "nothing to ingest: give a section ecg, cmr, or both"),
        ("name: x\necg: {rate_hz: fast}", "ecg.rate_hz is 'fast'"),
        ("name: x\necg: {}\npath: '('", "path is no regular expression"),
        ("name: x\necg: {}\nsplit: {train: [1]}", "belong together"),
        ("name: x\necg: {}\nvisits: {file: v.csv, subject: s, columns: {}}", "needs a group named 'visit'"),
        ("[1, 2]", "expected the keys of a recipe, got list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_load_recipe__says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"r\.yaml") as caught:
        load_recipe(tmp_path / "r.yaml")
    assert message in str(caught.value)


def test_load_recipe__missing_file_names_its_neighbours():
    with pytest.raises(FileNotFoundError, match="ptbxl"):
        load_recipe(RECIPES / "ptbxk.yaml")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("other,patient_id\n1,2\n", ValueError, r"no column 'filename_hr'; it has other, patient_id"),
        ("", ValueError, "not a readable CSV table"),
        (None, FileNotFoundError, r"table\.file: there is no file ptbxl_database\.csv below"),
    ],
)
def test_tables__unreadable_missing_or_without_columns(tmp_path, content, error, message):
    write_ptbxl(tmp_path / "data")
    table = tmp_path / "data" / "ptbxl_database.csv"
    table.unlink() if content is None else table.write_text(content)
    with pytest.raises(error, match=message):
        run(tmp_path, "ptbxl")


def test_tables__strangers_are_told_and_no_match_is_an_error(tmp_path):
    data = tmp_path / "data"
    for name in ("a1", "a2"):
        write_wfdb(data / "ecg" / name, beats(seed=len(name)))
    (data / "labels.csv").write_text("item,MI\na1,1\nzz,0\n")
    _, report = run(tmp_path, "folder")
    assert "1 of 2 items have no row in the labels table" in report.statements
    assert "1 of 2 rows of the labels table know no file (data rows 2)" in report.statements
    (data / "labels.csv").write_text("item,MI\n7123,1\n")
    with pytest.raises(ValueError, match=r"none of the 2 items is in column 'item': files are called 'a0\.hea'"):
        run(tmp_path, "folder", force=True)


def test_unit__wrong_declaration_is_a_reason(tmp_path):
    folder = tmp_path / "data" / "ecg"
    folder.mkdir(parents=True)
    np.savez(folder / "x.npz", ecg=np.stack([beats(seed=k) for k in range(2)]), fs=100)  # microvolts
    report = ingest(IngestOptions(tmp_path / "out", ecg=folder, unit="mV"))
    assert report.out is None
    assert report.dropped == {"ecg": {"implausible_amplitude": 2}}
    assert report.examples[0][0] == "x.npz row 0"


@pytest.mark.shared
def test_real_files__of_many_formats_by_the_folder_recipe(tmp_path, shared_data):
    """Every real file is kept or refused with a reason; the invalid Sierra files are refused by name."""
    (tmp_path / "data").mkdir()
    for name in ("ecg_formats", "cinc2021", "sph"):
        shutil.copytree(shared_data / name, tmp_path / "data" / "ecg" / name)
    shutil.copytree(shared_data / "cmr_cine_dicom", tmp_path / "data" / "cmr")
    cohort, report = run(tmp_path, "folder", "ecg.unit=mV", "ecg.rate_hz=500")
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.name[0] != "."]
    # the README of a folder of DICOM zips is no study
    assert len(cohort.ledger["item"].unique()) >= len({path.name for path in files}) - 1
    assert set(cohort.recordings["source"]) >= {"wfdb"}
    assert report.kept["ecg"] >= 33
    assert report.kept["cmr"] >= 10
    dropped = cohort.ledger[cohort.ledger["status"] == "dropped"]
    assert (dropped["reason"] != "").all()
    assert dropped["item"].str.contains("sierra").sum() >= 2, dropped
