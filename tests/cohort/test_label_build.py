from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from label_tables import DIAGNOSES, MI, SPELLINGS, VISITS, hospital_tables, main_table, write

from ecgcmr.cohort.label_building import source_tables
from ecgcmr.cohort.label_building.build import BuildOptions, build_labels, with_options
from ecgcmr.cohort.label_building.concepts import PhenotypeSet
from ecgcmr.cohort.label_building.definition_files import checked, read_yaml
from ecgcmr.cohort.label_building.definitions import OutcomeDefinitions
from ecgcmr.cohort.label_building.example import write_example
from ecgcmr.cohort.label_building.listing import list_definitions, markdown
from ecgcmr.cohort.label_building.statements import StatementDefinitions
from ecgcmr.simulation.phenotypes import PHENOTYPES

CONFIGS = Path(__file__).parents[2] / "configs" / "labels"
UKB = CONFIGS / "ukb.yaml"
CENSOR = BuildOptions(censor_date=date(2022, 10, 31))


def check_truth(built) -> None:
    table = built.table.set_index("subject")
    assert sorted(table.index) == sorted(MI)  # a5 never came to the visit
    for subject, (prevalent, event, stop) in MI.items():
        row = table.loc[subject]
        assert row["mi"] == prevalent
        if event is None:
            assert math.isnan(row["mi_event"])
            assert math.isnan(row["mi_time_years"])
        else:
            days = (date.fromisoformat(stop) - date.fromisoformat(VISITS[subject])).days
            assert (row["mi_event"], row["mi_time_years"]) == (event, pytest.approx(days / 365.25))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_arrays__give_the_truth_in_every_spelling(tmp_path, spelling):
    built = build_labels(UKB, write(tmp_path, main=main_table(spelling)), CENSOR)
    check_truth(built)
    assert built.table.set_index("subject").loc["a1", ["sex", "age_years", "site"]].tolist() == [
        "female",
        "65",
        "11025",
    ]


def test_record_level__gives_the_truth(tmp_path):
    hesin, diag = hospital_tables()
    check_truth(
        build_labels(UKB, write(tmp_path, main=main_table("showcase", False), hesin=hesin, hesin_diag=diag), CENSOR)
    )


@pytest.mark.parametrize("written", ["{0}|{1}", '["{0}","{1}"]', "['{0}', '{1}']"])
def test_platform_lists__give_the_truth(tmp_path, written):
    """The research analysis platform writes all codes of a subject into one cell, and each date into its own column."""
    table = main_table("showcase")
    pairs = zip(table.pop("41270-0.0"), table.pop("41270-0.1"), strict=True)
    table["p41270"] = [written.format(*pair) if pair[1] else pair[0] for pair in pairs]
    table = table.rename(columns={"41280-0.0": "p41280_a0", "41280-0.1": "p41280_a1"})
    check_truth(build_labels(UKB, write(tmp_path, main=table), CENSOR))


def test_parquet_and_split_files__give_the_truth(tmp_path):
    table = main_table("showcase")
    front = [name for name in table if not name.startswith(("41270", "41280"))]
    table[front].to_parquet(tmp_path / "one.parquet")
    table[["eid", *[name for name in table if name not in front]]].to_csv(tmp_path / "two.csv.gz", index=False)
    check_truth(build_labels(UKB, [f"main={tmp_path / 'one.parquet'}", f"main={tmp_path / 'two.csv.gz'}"], CENSOR))


def test_row_order__does_not_matter(tmp_path):
    one = build_labels(UKB, write(tmp_path / "1", main=main_table()), CENSOR).table
    two = build_labels(UKB, write(tmp_path / "2", main=main_table().iloc[::-1]), CENSOR).table
    pd.testing.assert_frame_equal(one, two)


def test_phenotypes__have_spec_and_range_and_nothing_is_silent(tmp_path):
    built = build_labels(UKB, write(tmp_path, main=main_table()), CENSOR)
    spec = {spec.name: spec for spec in built.columns.specs}["LVEDV"]
    assert (spec.unit, spec.ukb_field, spec.low, spec.high, spec.kind) == ("ml", 24100, 20, 600, "regression")
    values = built.table.set_index("subject")["LVEDV"]
    np.testing.assert_array_equal(values[["a1", "a2", "a3", "a4", "a6"]], [150.5, np.nan, np.nan, 88, 100])
    assert built.counts["LVEDV: outside 20 to 600 ml, set to missing"] == 1
    assert built.ledger.to_dict("records") == [
        {"subject": "a3", "label": "LVEDV", "value": "9000", "reason": "outside 20 to 600 ml"}
    ]


def test_phenotypes__in_another_unit_are_refused(tmp_path):
    table = pd.concat([main_table(wide_diagnoses=False)] * 6, ignore_index=True)
    table["eid"] = [f"s{k}" for k in range(len(table))]
    table["53-2.0"] = "2016-01-01"
    table["24103-2.0"] = "0.6"
    table["41270-0.0"] = table["41280-0.0"] = ""
    with pytest.raises(ValueError, match=r"LVEF \(field 24103\): 36 of 36 values lie outside .* median is 0\.6"):
        build_labels(UKB, write(tmp_path, main=table), CENSOR)


@pytest.mark.parametrize(
    "special", ["1900-01-01", "1901-01-01", "1902-02-02", "1903-03-03", "1909-09-09", "2037-07-07"]
)
def test_special_dates__are_unknown_and_counted_by_name(tmp_path, special):
    table = main_table()
    table["131350-0.0"] = ["", "", special, "", "", "2017-01-01"]  # atrial fibrillation
    built = build_labels(UKB, write(tmp_path, main=table), CENSOR)
    rows = built.table.set_index("subject")
    assert rows.loc["a3", ["af", "af_event"]].isna().all()
    assert rows.loc["a6", "af"] == 1
    assert rows.loc["a1", "af"] == 0
    assert any(f"{special} means " in what and count == 1 for what, count in built.counts.items())


def test_first_occurrence__cannot_tell_a_subtype(tmp_path):
    table = main_table()
    table["131338-0.0"] = ["2012-01-01", "", "", "", "", ""]  # I42, no more is said
    rows = build_labels(UKB, write(tmp_path, main=table), CENSOR).table.set_index("subject")
    assert rows.loc["a1", "cardiomyopathy"] == 1
    assert rows.loc["a1", ["dcm", "hcm", "cm_other"]].isna().all()
    assert rows.loc["a6", ["cardiomyopathy", "dcm"]].tolist() == [1, 1]
    assert math.isnan(rows.loc["a6", "hcm"])  # another subtype is no control


def test_date_before_birth__is_named_counted_and_never_believed(tmp_path):
    table = main_table()
    table.loc[table["eid"] == "a6", ["41270-0.1", "41280-0.1"]] = ["I48", "1950-05-31"]  # born in June 1950
    words = write(tmp_path, main=table)
    built = build_labels(UKB, words, CENSOR)
    assert built.counts["diagnosis dated before birth, date taken as unknown"] == 1
    assert math.isnan(built.table.set_index("subject").loc["a6", "af"])
    listed = built.ledger[built.ledger["reason"] == "dated before birth"]
    assert listed.to_numpy().tolist() == [["a6", "icd10 I48", "1950-05-31", "dated before birth"]]
    with pytest.raises(
        ValueError, match=r"1 diagnoses are dated before birth and 0 after death \(1 in field 41270"
    ) as told:
        build_labels(UKB, words, BuildOptions(censor_date=CENSOR.censor_date, strict=True))
    assert "a6" not in str(told.value).replace("a62", "")  # the message names no subject


def test_date_in_the_month_of_birth__is_believed(tmp_path):
    table = main_table()
    table.loc[table["eid"] == "a6", ["41270-0.1", "41280-0.1"]] = ["I48", "1950-06-01"]
    assert build_labels(UKB, write(tmp_path, main=table), CENSOR).table.set_index("subject").loc["a6", "af"] == 1


def test_many_dates_before_birth__stop_the_build(tmp_path):
    table = main_table()
    table["34-0.0"] = "2020"
    with pytest.raises(ValueError, match=r"cannot be chance\. Are day and month exchanged"):
        build_labels(UKB, write(tmp_path, main=table), CENSOR)


def test_date_after_death__is_unknown(tmp_path):
    table = main_table()
    table.loc[table["eid"] == "a4", ["41270-0.1", "41280-0.1"]] = ["I48", "2020-02-03"]
    built = build_labels(UKB, write(tmp_path, main=table), CENSOR)
    assert built.counts["diagnosis dated after death, date taken as unknown"] == 1
    assert math.isnan(built.table.set_index("subject").loc["a4", "af"])


def test_dates_in_no_known_format__are_refused_by_their_look(tmp_path):
    table = main_table()
    table["41280-0.0"] = [day and f"{day[5:7]}.{day[8:]}.{day[2:4]}" for day in table["41280-0.0"]]
    with pytest.raises(ValueError, match=r"field 41280: 5 of \d dates look like 99\.99\.99 and fit none"):
        build_labels(UKB, write(tmp_path, main=table), CENSOR)


def test_subjects_of_another_application__are_refused_without_naming_one(tmp_path):
    hesin, diag = hospital_tables()
    hesin["eid"], diag["eid"] = "x" + hesin["eid"], "x" + diag["eid"]
    words = write(tmp_path, main=main_table(wide_diagnoses=False), hesin=hesin, hesin_diag=diag)
    with pytest.raises(ValueError, match="no subject of the recordings is in table 'hesin_diag'") as told:
        build_labels(UKB, words, CENSOR)
    assert not any(subject in str(told.value) for subject in ("a1", "xa1"))


def test_missing_tables_and_options__say_what_to_add(tmp_path):
    words = write(tmp_path, main=main_table(wide_diagnoses=False))
    with pytest.raises(ValueError, match="none of the sources of diagnoses is in the tables"):
        build_labels(UKB, words, CENSOR)
    with pytest.raises(ValueError, match="give --censor-date YYYY-MM-DD"):
        build_labels(UKB, words)
    with pytest.raises(ValueError, match=r"table 'main' is needed for the recordings: add --tables main=FILE"):
        build_labels(UKB, [f"other={tmp_path / 'main.csv'}"], CENSOR)
    with pytest.raises(ValueError, match="--include mi:all: no such option; there are mi:old_mi, mi:complications"):
        build_labels(UKB, words, BuildOptions(CENSOR.censor_date, ("mi:all",)))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        build_labels(UKB, ["nowhere.csv"], CENSOR)
    hesin, diag = hospital_tables()
    lost = write(tmp_path / "lost", main=main_table(wide_diagnoses=False), hesin_diag=diag)
    with pytest.raises(ValueError, match=r"table 'hesin' is needed for the dates of 'hesin_diag'"):
        build_labels(UKB, lost, CENSOR)
    twice = write(tmp_path / "twice", main=pd.concat([main_table()] * 2))
    with pytest.raises(ValueError, match=r"main\.csv: 6 rows hold a subject that the table already has"):
        build_labels(UKB, twice, CENSOR)
    assert len(hesin) == len(DIAGNOSES)


def test_withdrawn_subjects__are_left_out(tmp_path):
    (tmp_path / "gone.txt").write_text("a1\n\na3\n")
    words = write(tmp_path / "t", main=main_table())
    built = build_labels(UKB, words, BuildOptions(CENSOR.censor_date, withdrawn=tmp_path / "gone.txt"))
    assert set(built.table["subject"]) == {"a2", "a4", "a6"}
    assert built.counts["recordings of withdrawn subjects, left out"] == 2


def test_two_visits__give_one_item_each_and_each_its_own_view(tmp_path):
    second = main_table(visit=3)[["53-3.0", "21003-3.0", "54-3.0", "24100-3.0", "24103-3.0"]]
    table = pd.concat([main_table(), second.assign(**{"53-3.0": ["", "", "2019-01-01", "", "", ""]})], axis=1)
    data = read_yaml(UKB)
    data["recordings"] |= {"instances": [2, 3], "item": "{subject}_20205_{instance}_0"}
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(data))
    rows = build_labels(file, write(tmp_path / "t", main=table), CENSOR).table.set_index("item")
    assert rows.loc["a3_20205_2_0", "mi"] == 0
    assert rows.loc["a3_20205_3_0", "mi"] == 1  # the infarction of 2018 lies between the visits
    assert len(rows) == 6


def test_mimic__codes_of_both_versions_admissions_and_unknown_health(tmp_path):
    def stamps(*days: str) -> list[str]:
        return [f"{day} 07:00:00" for day in days]

    records = pd.DataFrame({"subject_id": [1, 1, 2, 3, 4], "study_id": [11, 12, 21, 31, 41]})
    records["ecg_time"] = stamps("2150-01-02", "2152-01-01", "2150-01-01", "2150-01-01", "2150-01-01")
    admissions = pd.DataFrame({"subject_id": [1, 2, 2, 3], "hadm_id": [101, 201, 202, 301]})
    admissions["admittime"] = stamps("2150-01-01", "2149-01-01", "2151-01-01", "2149-06-01")
    admissions["dischtime"] = stamps("2150-01-10", "2149-01-02", "2151-01-05", "2150-07-01")
    diagnoses = pd.DataFrame({"subject_id": [1, 2, 2, 3], "hadm_id": [101, 201, 202, 301]})
    diagnoses["icd_code"], diagnoses["icd_version"] = ["4280", "4019", "I5021", "E1010"], [9, 9, 10, 9]
    people = pd.DataFrame({"subject_id": [1, 2, 3, 4], "gender": ["F", "M", "F", "M"], "anchor_age": 60})
    people["anchor_year"], people["dod"] = 2149, ""
    words = write(tmp_path, record_list=records, admissions=admissions, diagnoses_icd=diagnoses, patients=people)
    built = build_labels(CONFIGS / "mimic.yaml", words)
    rows = built.table.set_index("item")
    assert rows["hf"].tolist()[:4] == [1, 1, 0, 0]  # the stay of the ECG, a past one, a later one, none
    assert math.isnan(rows.loc["41", "hf"])  # never admitted: unknown, not healthy
    assert rows.loc["21", ["hf_event", "hf_time_years"]].tolist() == [1, pytest.approx(1.0, abs=0.002)]
    assert rows.loc["31", "dm"] == 0  # E1010 of version 9 is an accident, no diabetes
    assert rows.loc["12", "age_years"] == "63"
    assert rows.loc["31", "hf_time_years"] == pytest.approx(181 / 365.25)  # followed to the last discharge
    assert built.counts["recordings of subjects without any linked diagnosis or visit: diseases unknown"] == 1


def test_known_mistakes__are_avoided():
    """The reference codes count I25 as infarction, take phenotypes by position, and mix prevalent with incident."""
    definitions = checked(OutcomeDefinitions, read_yaml(UKB), UKB)
    diseases = {disease.name: disease for disease in definitions.diseases.diseases}
    chronic = pd.Series([f"I25{k}" for k in range(10)])
    for name, expected in (("mi", 0), ("cad", 10)):
        assert diseases[name].codes.code_set().matches("icd10", chronic).sum() == expected
    acute = pd.Series(["I210", "I219", "I220", "I229"])
    assert diseases["mi"].codes.code_set().matches("icd10", acute).all()
    assert not any(option.include for disease in diseases.values() for option in disease.options.values())
    chosen = with_options(definitions, BuildOptions(include=("mi:old_mi",)))
    assert chosen.diseases.diseases[0].options["old_mi"].include
    assert not chosen.diseases.diseases[0].options["complications"].include


def test_subtypes__partition_the_codes_of_cardiomyopathy():
    definitions = checked(OutcomeDefinitions, read_yaml(UKB), UKB)
    diseases = {disease.name: disease.codes.code_set() for disease in definitions.diseases.diseases}
    codes = pd.Series([f"I42{k}" for k in range(10)])
    hits = sum(diseases[name].matches("icd10", codes).astype(int) for name in ("dcm", "hcm", "rcm", "cm_other"))
    np.testing.assert_array_equal(hits, 1)
    assert diseases["cardiomyopathy"].matches("icd10", codes).all()


def test_phenotype_definitions__are_the_82_fields_under_the_names_of_the_simulation():
    phenotypes = checked(PhenotypeSet, read_yaml(CONFIGS / "ukb_cmr_phenotypes.yaml"), CONFIGS)
    assert [item.field for item in phenotypes.fields] == list(range(24100, 24182))
    mine = {item.field: (item.name, item.unit) for item in phenotypes.fields}
    for item in PHENOTYPES:
        if item.ukb_field is not None:
            assert mine[item.ukb_field] == (item.name, item.unit)
    assert all(item.unverified for item in phenotypes.fields)  # drop a mark only after reading the owner's page


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_definition_files__are_whole_and_name_their_sources(path):
    data = read_yaml(path)
    if data.get("kind") == "statements":
        assert checked(StatementDefinitions, data, path).sources
    elif data.get("kind") == "outcomes":
        outcomes = checked(OutcomeDefinitions, data, path)
        assert all(disease.source and disease.controls for disease in outcomes.diseases.diseases)
    else:
        assert data["sources"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(colour="red"), r"mine\.yaml: colour: Extra inputs are not permitted"),
        (lambda data: data["recordings"].pop("table"), r"recordings\.table: Field required"),
        (lambda data: data["diseases"]["diseases"][0]["codes"].update(icd9=[410]), r"quote codes: '410'"),
        (lambda data: data["diseases"]["diseases"][0]["codes"].update(icd10=["I2"]), r"'I2' is no icd10 code"),
        (lambda data: data["diseases"]["diseases"].append(data["diseases"]["diseases"][0]), "'mi' is defined twice"),
        (lambda data: data["diagnoses"][0].update(kind="guess"), "diagnoses.0"),
        (lambda data: data["phenotypes"]["fields"][0].update(low=700), "low 700.0 is not below high 600.0"),
    ],
)
def test_definition_file__mistakes_are_named_by_field(tmp_path, change, message):
    data = read_yaml(UKB)
    change(data)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match=message):
        build_labels(file, write(tmp_path / "t", main=main_table()), CENSOR)


def test_example__is_fixed_by_its_seed_and_builds(tmp_path):
    for kind in ("ukb", "mimic"):
        write_example(tmp_path / kind, kind, 40, 1)
        write_example(tmp_path / f"{kind}2", kind, 40, 1)
        for file in sorted((tmp_path / kind).glob("*.*")):
            assert file.read_bytes() == (tmp_path / f"{kind}2" / file.name).read_bytes()
        options = CENSOR if kind == "ukb" else BuildOptions()
        built = build_labels(CONFIGS / f"{kind}.yaml", [str(tmp_path / kind)], options)
        assert len(built.table) == 40
        assert built.table["mi"].isin([0, 1]).sum() > 20
    with pytest.raises(FileExistsError, match="is not empty"):
        write_example(tmp_path / "ukb", "ukb", 4, 1)


def test_page__holds_every_definition_as_the_files_have_it():
    page = (CONFIGS.parents[1] / "docs" / "labels.md").read_text()
    listed = page.split("<!-- definitions -->\n")[1].split("<!-- end of definitions -->")[0]
    tables = [f"### {title}\n\n{markdown(rows)}\n" for title, rows in list_definitions(UKB).items()]
    assert listed == "".join(tables), "write the table again: ecgcmr labels show configs/labels/ukb.yaml --markdown"


def test_pieces__in_which_tables_are_read_change_nothing(tmp_path, monkeypatch):
    write_example(tmp_path / "t", "ukb", 2500, 4)
    whole = build_labels(UKB, [str(tmp_path / "t")], CENSOR)
    monkeypatch.setattr(source_tables, "CHUNK_CELLS", 1)  # a thousand rows at a time
    pieces = build_labels(UKB, [str(tmp_path / "t")], CENSOR)
    pd.testing.assert_frame_equal(whole.table, pieces.table)
    assert whole.counts == pieces.counts


def test_table_of_recordings__is_read_twice_not_once_for_each_field(tmp_path, monkeypatch):
    words = write(tmp_path, main=main_table(wide_diagnoses=False).assign(**{"131298-0.0": ""}))
    read: list[str] = []
    chunks = source_tables.SourceTables.chunks
    monkeypatch.setattr(
        source_tables.SourceTables,
        "chunks",
        lambda self, path, columns: read.append(path.name) or chunks(self, path, columns),
    )
    build_labels(UKB, words, CENSOR)
    assert read == ["main.csv"] * 3  # dates of the visits, all values, first occurrences
