from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ecgcmr.cohort.label_building.build import BuildOptions, build_labels
from ecgcmr.cohort.label_building.definition_files import checked, read_yaml
from ecgcmr.cohort.label_building.statements import StatementDefinitions, parse_likelihoods

CONFIGS = Path(__file__).parents[2] / "configs" / "labels"
SNOMED, SCP = CONFIGS / "physionet2021.yaml", CONFIGS / "ptbxl.yaml"


def snomed(tmp_path: Path, rows: list[tuple[str, str]]) -> pd.DataFrame:
    file = tmp_path / "labels.csv"
    pd.DataFrame(rows, columns=["record", "dx_snomed"]).to_csv(file, index=False)
    return build_labels(SNOMED, [str(file)]).table.set_index("item")


def scp(tmp_path: Path, cells: list[str], **changes) -> pd.DataFrame:
    table = pd.DataFrame({"scp_codes": cells})
    table["filename_hr"] = [f"records500/00000/{k:05d}_hr" for k in range(len(cells))]
    table["patient_id"], table["age"], table["sex"], table["site"], table["strat_fold"] = "7.0", "300.0", "1", "2", "3"
    table.to_csv(tmp_path / "ptbxl_database.csv", index=False)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(read_yaml(SCP) | changes))
    return build_labels(file, [str(tmp_path / "ptbxl_database.csv")]).table


def test_snomed__thirty_scored_codes_in_twenty_six_classes():
    rules = checked(StatementDefinitions, read_yaml(SNOMED), SNOMED)
    codes = [code for item in rules.classes for code in item.codes]
    assert (len(rules.classes), len(codes), len(set(codes))) == (26, 30, 30)
    assert not set(codes) & set(rules.known)
    assert len(rules.known) == 103


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("RBBB", ("713427006", "59118001")),
        ("PAC", ("284470004", "63593006")),
        ("PVC", ("427172004", "17338001")),
        ("LBBB", ("733534002", "164909002")),
    ],
)
def test_snomed__codes_scored_as_the_same_give_one_class(tmp_path, name, pair):
    rows = snomed(tmp_path, [("JS00001", pair[0]), ("JS00002", pair[1]), ("JS00003", "426783006")])
    assert rows[name].tolist() == [1, 1, 0]


def test_snomed__a_class_that_a_source_never_uses_is_missing_there(tmp_path):
    rows = snomed(tmp_path, [("A0001", "426783006"), ("Q0001", "426783006"), ("strange", "426783006"), ("E00001", "")])
    assert np.isnan(rows.loc["A0001", "PVC"])  # CPSC writes "ventricular ectopics"
    assert rows.loc["A0001", "AF"] == 0
    assert rows.loc["Q0001", "PVC"] == 0
    assert rows.loc["strange", "PVC"] == 0  # no pattern fits: every class may have been used
    assert rows.loc["E00001", ["AF", "NSR"]].isna().all()  # nothing annotated


def test_snomed__code_of_no_class_is_told(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("record,dx_snomed\nE00001,426783006;12345\n")
    assert build_labels(SNOMED, [str(file)]).counts["code '12345' is in no class and not listed as known"] == 1
    file.write_text("record,dx_snomed\nE00001,12345\n")
    with pytest.raises(ValueError, match="no code of the recordings is in 'physionet2021'"):
        build_labels(SNOMED, [str(file)])
    with pytest.raises(ValueError, match="no options and no follow-up"):
        build_labels(SNOMED, [str(file)], BuildOptions(include=("mi:old_mi",)))


def test_snomed__headers_are_read_with_sex_and_age(tmp_path):
    head = "{0} 12 500 5000\n#Age: {1}\n#Sex: {2}\n#Dx: {3}\n#Rx: Unknown\n"
    texts = {
        "E00001": ("83", "Female", "59118001,164889003"),
        "E00002": ("NaN", "Male", "Unknown"),
        "E00003": ("-1", "x", "426783006"),
    }
    for name, values in texts.items():
        (tmp_path / f"{name}.hea").write_text(head.format(name, *values))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "E00004.hea").write_text("E00004 12 500 5000\n# Dx: 164889003\n")
    rows = build_labels(SNOMED, [str(tmp_path)]).table.set_index("item")
    assert rows.loc["E00001", ["RBBB", "AF", "NSR"]].tolist() == [1, 1, 0]
    assert rows.loc["E00001", ["sex", "age_years"]].tolist() == ["female", "83"]
    assert rows.loc["E00002", "AF":].isna().all()
    assert rows.loc[["E00002", "E00003"], "age_years"].tolist() == ["", ""]
    assert rows.loc["E00004", "AF"] == 1
    (tmp_path / "deep" / "E00001.hea").write_text("E00001 12 500 5000\n")
    with pytest.raises(ValueError, match="1 headers have the name of another one"):
        build_labels(SNOMED, [str(tmp_path)])


def test_scp__all_71_statements_in_the_published_numbers():
    rules = checked(StatementDefinitions, read_yaml(SCP), SCP)
    codes = {
        group: {code for item in rules.classes if item.group == group for code in item.codes}
        for group in ("superclass", "subclass", "form", "rhythm")
    }
    assert {group: len(found) for group, found in codes.items()} == {
        "superclass": 44,
        "subclass": 44,
        "form": 19,
        "rhythm": 12,
    }
    assert len(set().union(*codes.values())) == 71
    assert codes["superclass"] == codes["subclass"]
    for group, number in (("superclass", 5), ("subclass", 23)):
        listed = [item for item in rules.classes if item.group == group]
        assert len(listed) == number
        assert sum(len(item.codes) for item in listed) == 44  # no statement is in two classes


def test_scp__statements_become_classes_and_silence_is_missing(tmp_path):
    rows = scp(tmp_path, ["{'NORM': 100.0, 'SR': 0.0}", "{'ASMI': 15.0, 'ABQRS': 0.0}", "{'AFIB': 0.0}", "{}"])
    assert rows.loc[0, ["NORM", "MI", "rhythm_SR", "form_ABQRS"]].tolist() == [1, 0, 1, 0]
    assert rows.loc[1, ["MI", "sub_AMI", "form_ABQRS", "NORM"]].tolist() == [1, 1, 1, 0]
    assert np.isnan(rows.loc[1, "rhythm_SR"])
    assert rows.loc[2, ["NORM", "MI", "sub_AMI"]].isna().all()
    assert rows.loc[2, ["rhythm_AFIB", "rhythm_SR"]].tolist() == [1, 0]
    assert rows.loc[3, [name for name in rows if name.startswith(("NORM", "sub_", "form_", "rhythm_"))]].isna().all()
    assert rows.loc[0, ["subject", "age_years", "sex", "strat_fold"]].tolist() == ["7", "90", "female", "3"]
    assert rows.loc[0, "item"] == "records500/00000/00000_hr"


def test_scp__less_likely_than_asked_is_unknown_not_absent(tmp_path):
    cells = ["{'IMI': 15.0, 'NORM': 80.0}", "{'IMI': 15.0, 'ASMI': 100.0}", "{'IMI': 0.0}"]
    rows = scp(tmp_path, cells, min_likelihood=50)
    assert np.isnan(rows.loc[0, "MI"])
    assert rows["MI"].tolist()[1:] == [1, 1]  # another infarction is certain; no likelihood was stated
    assert rows.loc[0, "NORM"] == 1


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("__import__('os').system('x')", "expected statements such as"),
        ("['NORM']", "expected a dictionary"),
        ("{'NORM': 'much'}", "expected a dictionary"),
        ("{'NORM': 400}", "likelihood 400 is no percentage"),
        ("{'NORM': ", "data row 2: expected statements"),
        ("{" * 5000, "expected statements such as"),
    ],
)
def test_scp__a_cell_is_data_and_never_run(tmp_path, cell, message):
    with pytest.raises(ValueError, match=message):
        scp(tmp_path, ["{'NORM': 100.0}", cell])


def test_likelihoods__nothing_is_nothing():
    assert parse_likelihoods("", "here") == {} == parse_likelihoods(" None ", "here")


@pytest.mark.shared
def test_snomed__headers_and_table_of_real_records_agree(shared_data):
    folder = shared_data / "cinc2021"
    from_headers = build_labels(SNOMED, [str(folder / "records")])
    from_table = build_labels(SNOMED, [str(folder / "labels.csv")])
    names = [spec.name for spec in from_table.columns.specs]
    one, two = (built.table.set_index("item")[names].sort_index() for built in (from_headers, from_table))
    pd.testing.assert_frame_equal(one, two)
    assert len(one) == 33
    assert not any("in no class" in what for what in from_headers.counts)
    same = {"CLBBB": "LBBB", "CRBBB": "RBBB", "SVPB": "PAC", "VPB": "PVC"}
    with (folder / "labels.csv").open() as stream:
        for row in csv.DictReader(stream):  # its own abbreviations, independent of our codes
            said = {same.get(name, name) for name in row["dx"].split(";")}
            assert {name for name in names if one.loc[row["record"], name] == 1} == said & set(names)


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["ptbxl_zscored", "ptbxl_raw_100hz"])
def test_scp__subclasses_of_real_records_lead_to_their_superclasses(shared_data, folder):
    rules = checked(StatementDefinitions, read_yaml(SCP), SCP)
    superclass = {code: item.name for item in rules.classes if item.group == "superclass" for code in item.codes}
    of_subclass = {
        item.description.split()[1].strip("_"): superclass[item.codes[0]]
        for item in rules.classes
        if item.group == "subclass"
    }
    checked_rows = 0
    with (shared_data / folder / "labels.csv").open() as stream:
        for row in csv.DictReader(stream):
            named = {of_subclass[name] for name in row["sub_class"].replace(";", " ").replace(",", " ").split()}
            assert named == {name for name in ("NORM", "MI", "STTC", "CD", "HYP") if row[name] == "1"}
            checked_rows += bool(named)
    assert checked_rows > 50
