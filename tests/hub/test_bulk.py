"""From many files to one table on disk: whole or absent, in order, gone on with after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.bulk import BulkReport, write_table
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.inputs import Declared
from ecgcmr.hub.model import LoadedModel, load_model
from ecgcmr.hub.stream import StreamOptions

SAID = Declared(500.0, LEADS, "mV")


@pytest.fixture
def model(weights_folder: Path) -> LoadedModel:
    return load_model(weights_folder, device="cpu")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Seven recordings of one heart at growing amplitudes; the fourth is cut off."""
    samples = synthetic_recording().samples
    folder = tmp_path / "files"
    folder.mkdir()
    for i in range(7):
        np.save(folder / f"{i}.npy", samples * (1 + i / 5))
    (folder / "3.npy").write_bytes((folder / "3.npy").read_bytes()[:-1000])
    return sorted(folder.iterdir())


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("files", "weights"))


def values(table: pd.DataFrame) -> np.ndarray:
    return table.filter(regex=r"^e\d").to_numpy()


def run(model: LoadedModel, files: list[Path], out: Path, **more: object) -> BulkReport:
    return write_table(model, "embed", files, out, SAID, items_of_a_part=2, **more)  # type: ignore[arg-type]


def test_write_table__parquet_holds_what_the_api_gives(model: LoadedModel, files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.parquet"
    report = run(model, files, out)
    table = pd.read_parquet(out)
    with pytest.warns(UserWarning, match="1 of 7"):
        expected = model.embed_table([str(file) for file in files], 500, LEADS, "mV")
    assert list(table["item"]) == [str(file) for i, file in enumerate(files) if i != 3]
    assert np.allclose(values(table), values(expected), atol=1e-5)
    assert table.attrs["sha256"] == model.weights.config["sha256"]
    assert (report.rows, report.resumed, len(report.failed)) == (6, 0, 1)
    assert listing(out.parent) == ["x.parquet", "x.parquet.failed.csv"]
    failed = pd.read_csv(tmp_path / "new" / "x.parquet.failed.csv")
    assert failed["item"].tolist() == [str(files[3])]
    assert failed["reason"].tolist() == ["truncated"]


def test_write_table__csv_of_predictions_has_its_units_beside_it(
    model: LoadedModel, files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "y.csv"
    report = write_table(model, "predict", files[:2], out, SAID, StreamOptions(windows=3, aggregate="none"))
    table = pd.read_csv(out)
    assert list(table.columns) == ["item", "window", "start_s", "leads", "LVM", "mi"]
    assert list(table["start_s"]) == [0, 2, 4] * 2
    assert json.loads((tmp_path / "y.csv.about.json").read_text())["units"] == {"LVM": "g", "mi": "probability"}
    assert listing(tmp_path) == ["y.csv", "y.csv.about.json"]
    assert report.files == [out, tmp_path / "y.csv.about.json"]


def test_write_table__a_killed_run_goes_on_and_gives_the_same(
    model: LoadedModel, files: list[Path], tmp_path: Path
) -> None:
    out, whole = tmp_path / "x.parquet", tmp_path / "whole.parquet"
    run(model, files, whole)

    def killed(done: int, total: int) -> None:
        assert total == 7
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, files, out, progress=killed)
    assert not out.exists()
    seen: list[int] = []
    report = run(model, files, out, progress=lambda done, total: seen.append(done))
    assert report.resumed == 4
    assert seen == [6, 7]
    assert len(report.failed) == 1  # the part before the kill told of it
    pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(whole))
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


def test_write_table__parts_of_another_run_are_not_taken(model: LoadedModel, files: list[Path], tmp_path: Path) -> None:
    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, files, tmp_path / "x.parquet", progress=killed)
    np.save(files[0], synthetic_recording().samples * 3)  # the file has changed since
    assert run(model, files, tmp_path / "x.parquet").resumed == 0


def test_write_table__nothing_to_write_leaves_only_the_reasons(
    model: LoadedModel, files: list[Path], tmp_path: Path
) -> None:
    report = run(model, [files[3], tmp_path / "nowhere.npy"], tmp_path / "x.csv")
    assert report.rows == 0
    assert [row["reason"] for row in report.failed] == ["truncated", "missing_file"]
    assert listing(tmp_path) == ["x.csv.failed.csv"]
    run(model, files[:1], tmp_path / "x.csv")
    assert listing(tmp_path) == ["x.csv", "x.csv.about.json"]  # the old reasons are not about the new table


def test_write_table__refuses_before_it_writes(model: LoadedModel, files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    with pytest.raises(ValueError, match=r"\.parquet or \.csv"):
        run(model, files, tmp_path / "x.xlsx")
    with pytest.raises(ValueError, match="windows is 'some'"):
        run(model, files, out, options=StreamOptions(windows="some"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown lead"):
        run(model, files, out, options=StreamOptions(only_leads=["V9"]))
    assert listing(tmp_path) == []
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        run(model, files, out)
    assert out.read_text() == "mine"
    assert run(model, files, out, force=True).rows == 6


def test_write_table__cohort_and_files_in_one_table(
    model: LoadedModel, files: list[Path], tiny_cohort: Path, tmp_path: Path
) -> None:
    report = run(model, [files[0], tiny_cohort], tmp_path / "x.parquet")
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert report.rows == len(table) == 25
    assert table["subject"].isna().tolist() == [True] + [False] * 24
    assert list(table["recording"][1:]) == list(range(24))


def test_write_table__counts_reduced_rows(model: LoadedModel, tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", synthetic_recording().samples[[0, 1, 6]])
    said = Declared(500.0, ("I", "II", "V1"), "mV")
    report = write_table(model, "embed", [tmp_path / "three.npy"], tmp_path / "x.csv", said)
    assert (report.rows, report.reduced) == (1, 1)
    assert pd.read_csv(tmp_path / "x.csv")["leads"][0] == "I,II,III,aVR,aVL,aVF,V1"
