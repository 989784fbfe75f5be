"""Everything that a user may hand over, item by item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.inputs import Declared, EcgInputs
from ecgcmr.hub.model import LoadedModel, load_model

SAID = Declared(500.0, LEADS, "mV")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two arrays that state nothing, a file of three recordings, a table, and what is no recording."""
    samples = synthetic_recording().samples
    root = tmp_path / "files"
    (root / "b").mkdir(parents=True)
    np.save(root / "one.npy", samples)
    np.savez(root / "b" / "many.npz", ecg=np.stack([samples] * 3), ecg_id=[71, 72, 73])
    (root / "b" / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
    (root / "labels.csv").write_text("a,b\n1,2\n")
    (root / "notes.pdf").write_text("no recording")
    return root


@pytest.fixture
def model(weights_folder: Path) -> LoadedModel:
    return load_model(weights_folder, device="cpu")


def test_inputs__folder_is_read_in_order_and_says_what_it_passes_over(folder: Path) -> None:
    inputs = EcgInputs(str(folder), SAID)
    names = [item.name for item in inputs]
    assert names == [f"{folder}/b/bad.npz", *(f"{folder}/b/many.npz#{row}" for row in range(3)), f"{folder}/one.npy"]
    assert inputs.ignored == {".csv": 1, ".pdf": 1}
    assert inputs.total == 5
    assert not inputs.single


def test_inputs__names_never_come_from_inside_a_file(folder: Path) -> None:
    assert not any("71" in item.name.removeprefix(str(folder)) for item in EcgInputs(folder, SAID))


def test_inputs__single_recordings_of_any_kind(folder: Path) -> None:
    samples = synthetic_recording().samples
    for one in (synthetic_recording(), samples, samples[None], folder / "one.npy", str(folder / "one.npy")):
        inputs = EcgInputs(one, SAID)
        assert inputs.single
        (item,) = inputs
        assert np.allclose(item.read().samples, samples, atol=1e-6)
    assert not EcgInputs(folder / "b" / "many.npz", SAID).single
    assert not EcgInputs([synthetic_recording()]).single


def test_inputs__a_list_of_everything(folder: Path, tiny_cohort: Path) -> None:
    samples = synthetic_recording().samples
    cohort = Cohort.open(tiny_cohort)
    inputs = EcgInputs([synthetic_recording(), samples, samples[None].repeat(2, 0), folder / "one.npy", cohort], SAID)
    items = list(inputs)
    assert [item.name for item in items[:5]] == ["0", "1", "2#0", "2#1", str(folder / "one.npy")]
    assert len(items) == inputs.total == 5 + len(cohort.recordings)
    assert items[5].about == {"recording": 0, "subject": int(cohort.recordings["subject"][0])}
    assert np.array_equal(items[6].read().samples, cohort.recording(1).samples)


def test_inputs__what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no recordings in this folder \(it is empty\)"):
        EcgInputs(tmp_path / "empty")
    with pytest.raises(ValueError, match="cannot read an ECG from dict"):
        EcgInputs({"ecg": 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bad\.npz is not a readable"):
        EcgInputs(folder / "b" / "bad.npz", SAID)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        EcgInputs(folder / "nowhere.npz", SAID)
    with pytest.raises(ValueError, match="declared as mV but"):
        EcgInputs(synthetic_recording().samples * 1000, SAID)


def test_embed__unit_rate_and_leads_reach_the_readers(model: LoadedModel, folder: Path) -> None:
    with pytest.raises(ValueError, match="states no sampling rate"):
        model.embed(folder / "one.npy")
    found = model.embed(folder / "one.npy", 500, LEADS, "mV")
    assert np.allclose(found, model.embed(synthetic_recording()), atol=1e-5)
    np.save(folder / "microvolt.npy", synthetic_recording().samples * 1000)
    assert np.allclose(model.embed(folder / "microvolt.npy", 500, LEADS, "uV"), found, atol=1e-4)


def test_embed__a_bad_file_never_stops_the_others(model: LoadedModel, folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"1 of 5 recordings gave no output, the first is .*bad\.npz"):
        table = model.embed_table(folder, 500, LEADS, "mV")
    assert len(table) == 4
    (failed,) = table.attrs["failed"]
    assert failed["item"] == f"{folder}/b/bad.npz"
    assert failed["reason"] == "unreadable"
    assert table.attrs["ignored"] == {".csv": 1, ".pdf": 1}
    with pytest.warns(UserWarning, match="1 of 3"):
        array = model.embed([folder / "one.npy", folder / "nowhere.npy", synthetic_recording()], 500, LEADS, "mV")
    assert np.isnan(array).all(axis=1).tolist() == [False, True, False]


def test_embed__one_bad_file_alone_raises_and_so_do_many_without_a_good_one(model: LoadedModel, folder: Path) -> None:
    short = EcgRecording(synthetic_recording().samples[:, :100], 500.0, LEADS)
    with pytest.raises(ValueError, match=r"lasts 0\.2 s, the model reads 2 s"):
        model.embed(short)
    with pytest.raises(ValueError, match=r"none of 2 recordings could be used; 0: the recording lasts"):
        model.embed_table([short, short])


def test_embed__a_cohort_keeps_its_numbers(model: LoadedModel, tiny_cohort: Path) -> None:
    cohort = Cohort.open(tiny_cohort)
    table = model.embed_table(cohort)
    assert table["subject"].tolist() == cohort.recordings["subject"].tolist()
    assert np.allclose(table.filter(regex=r"^e\d").to_numpy()[3], model.embed(cohort.recording(3))[0], atol=1e-5)
    assert np.array_equal(model.embed(tiny_cohort), model.embed(cohort))


def test_embed__progress_is_told(model: LoadedModel) -> None:
    told: list[tuple[int, int]] = []
    model.embed([synthetic_recording()] * 10, batch_size=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]
