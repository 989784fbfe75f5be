from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from cohort_standin import label_values, write_cohort

from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.store import Cohort


@dataclass
class HalvingEcg:
    """A pipeline of which every number can be told: the first 100 samples, halved."""

    name: str = "halving"
    rate_hz: float = 100.0
    n_samples: int = 100
    requires_mv: bool = True
    calls: int = 0

    def __call__(self, recording):
        return recording.samples[:, :100] / 2

    def apply_batch(self, samples, rate_hz):
        self.calls += 1
        assert rate_hz == 100.0
        return samples[:, :, :100] / 2

    def to_dict(self):
        return {"name": self.name}

    def fingerprint(self):
        return "0123456789abcdef0123"


@dataclass
class FirstSlice:
    """Takes the first slice; refuses the subject whose pixel says 3."""

    shape: tuple[int, ...] = (3, 16, 16)
    refuse: int = -1

    def __call__(self, cine):
        if int(cine.pixels[0, 0, 0, 0]) == self.refuse:
            raise ValueError("no heart in sight")
        return cine.pixels[0]

    def to_dict(self):
        return {"name": "first"}

    def fingerprint(self):
        return f"fedcba9876543210{self.refuse}"


def test_batch__pairs_the_modalities_of_one_subject(new_cohort):
    cohort = Cohort.open(new_cohort())
    data = PairedDataset(cohort, [7, 2, 4], HalvingEcg(), FirstSlice(), ["MI", "LVEDV"])
    assert data.subjects.tolist() == [2, 4, 7]
    batch = data.batch([2, 0, 1])
    assert batch["subject"].tolist() == [7, 2, 4]
    for row, subject in enumerate([7, 2, 4]):
        torch.testing.assert_close(
            batch["ecg"][row, :, 0], (subject * 10 + torch.arange(12.0)) / 2000, atol=1e-5, rtol=1e-3
        )
        assert batch["cmr"][row, 0, 0, 0].item() == pytest.approx(subject / 255)
        assert batch["labels"][row, 0] == label_values(subject)["MI"]
    assert batch["label_mask"].tolist() == [[True, True], [True, True], [True, False]]
    assert batch["labels"][2, 1] == 0
    assert batch["labels"][0, 1] == 107
    assert (batch["ecg"].dtype, batch["cmr"].dtype, batch["labels"].dtype) == (torch.float32,) * 3
    assert batch["has_ecg"].all()
    assert batch["has_cmr"].all()


def test_prepared__is_built_once_and_mapped(new_cohort):
    cohort = Cohort.open(new_cohort())
    pipeline = HalvingEcg()
    first = PairedDataset(cohort, [0, 1], pipeline)
    calls = pipeline.calls
    second = PairedDataset(Cohort.open(cohort.path), [1, 2], pipeline)
    assert (calls, pipeline.calls) == (1, 1)
    torch.testing.assert_close(first.batch([1])["ecg"], second.batch([0])["ecg"])
    folders = sorted(path.name for path in (cohort.path / "cache").iterdir() if path.is_dir())
    assert folders == ["ecg-0123456789abcdef-float16"]
    assert not torch.equal(first.batch([0])["ecg"], first.batch([1])["ecg"])


def test_missing_modality__is_a_mask_and_never_a_missing_key(new_cohort):
    cohort = Cohort.open(new_cohort())
    ecg_only = PairedDataset(cohort, [0, 1], HalvingEcg()).batch([0, 1])
    assert ecg_only["cmr"].shape == (2, 1, 1, 1)
    assert not ecg_only["has_cmr"].any()
    cmr_only = PairedDataset(cohort, [0, 1], None, FirstSlice()).batch([0, 1])
    assert cmr_only["ecg"].shape == (2, 1, 1)
    assert not cmr_only["has_ecg"].any()
    assert cmr_only["has_cmr"].all()
    assert ecg_only.keys() == cmr_only.keys()


def test_refused__recording_with_an_empty_lead_is_left_out_and_listed(new_cohort):
    path = new_cohort()
    _blank_lead(path, recording=3, lead=7)
    data = PairedDataset(Cohort.open(path), range(10), HalvingEcg(), FirstSlice(refuse=5), ["MI"])
    assert [(item.kind, item.row, item.subject, item.reason) for item in data.dropped] == [
        ("ecg", 3, 3, "lead V2 holds no sample"),
        ("cmr", 11, 5, "no heart in sight"),
    ]
    batch = data.batch(np.arange(len(data)))
    assert batch["subject"][~batch["has_ecg"]].tolist() == [3]
    assert batch["subject"][~batch["has_cmr"]].tolist() == [5]
    assert batch["ecg"].isfinite().all()
    assert batch["ecg"][3].abs().sum() == 0
    both = PairedDataset(
        data.cohort, range(10), HalvingEcg(), FirstSlice(refuse=5), options=DatasetOptions(require="both")
    )
    assert both.subjects.tolist() == [0, 1, 2, 4, 6, 7, 8, 9]


def test_refused__voltage_free_cohort_for_a_pipeline_that_needs_mv(new_cohort):
    cohort = Cohort.open(new_cohort())
    cohort.recordings["unit"] = "z"
    with pytest.raises(ValueError, match=r"none of the 2 subjects .* unit is 'z' but pipeline 'halving' needs mV"):
        PairedDataset(cohort, [0, 1], HalvingEcg())


def test_several_recordings__each_is_an_item_with_the_same_study(tmp_path):
    cohort = Cohort.open(write_cohort(tmp_path / "c", n=3, recordings=2))
    data = PairedDataset(cohort, [0, 2], HalvingEcg(), FirstSlice(), ["LVEDV"])
    assert data.subjects.tolist() == [0, 0, 2, 2]
    assert data.unique_subjects.tolist() == [0, 2]
    batch = data.batch([2, 3])
    torch.testing.assert_close(batch["cmr"][0], batch["cmr"][1])
    assert not torch.equal(batch["ecg"][0], batch["ecg"][1])


def test_ragged__equals_one_by_one(tmp_path):
    cohort = Cohort.open(write_cohort(tmp_path / "c", n=6, ragged=True))
    batch = PairedDataset(cohort, range(6), HalvingEcg()).batch(range(6))
    expected = np.stack([cohort.recording(row).samples[:, :100] / 2 for row in range(6)])
    np.testing.assert_allclose(batch["ecg"].numpy(), expected, rtol=1e-3)


def test_read_only_cohort__uses_the_given_folder_or_memory(new_cohort, tmp_path, caplog):
    path = new_cohort()
    (path / "cache").write_text("a file where the cache should be: mkdir fails as on a read-only disk")
    options = DatasetOptions(cache_dir=tmp_path / "elsewhere")
    given_folder = PairedDataset(Cohort.open(path), [1], HalvingEcg(), options=options)
    assert len(list((tmp_path / "elsewhere").glob("*/ecg-*/data.npy"))) == 1
    with caplog.at_level(logging.WARNING):
        in_memory = PairedDataset(Cohort.open(path), [1], HalvingEcg())
    assert "prepared in memory" in caplog.text
    torch.testing.assert_close(given_folder.batch([0])["ecg"], in_memory.batch([0])["ecg"])


def test_label_statistics__leave_missing_out(new_cohort):
    data = PairedDataset(Cohort.open(new_cohort()), range(10), HalvingEcg(), labels=["LVEDV", "MI", "MI_event"])
    found = data.label_statistics([0, 1, 2, 3, 4])
    values = np.array([100.0, 101, 102, 103])
    assert (found["LVEDV"].mean, found["LVEDV"].std) == (values.mean(), values.std())
    assert (found["LVEDV"].n, found["LVEDV"].unit, np.isnan(found["LVEDV"].prevalence)) == (4, "ml", True)
    assert (found["MI"].prevalence, found["MI"].n) == (0.4, 5)
    assert found["MI_event"].prevalence == 0.4


def test_subset__shares_the_arrays_and_keeps_only_its_subjects(new_cohort):
    data = PairedDataset(Cohort.open(new_cohort()), range(8), HalvingEcg(), labels=["MI"])
    small = data.subset([5, 1])
    assert small.subjects.tolist() == [1, 5]
    assert len(data) == 8
    torch.testing.assert_close(small.batch([1])["ecg"], data.batch([5])["ecg"])
    with pytest.raises(ValueError, match="subject 9 has no item"):
        data.subset([9])


def test_group__codes_follow_the_sorted_values(new_cohort):
    cohort = Cohort.open(new_cohort())
    data = PairedDataset(cohort, range(4), HalvingEcg(), options=DatasetOptions(group="sex"))
    assert data.batch(range(4))["group"].tolist() == [0, 1, 0, 1]  # F, M by turns
    with pytest.raises(ValueError, match="no group column 'race'"):
        PairedDataset(cohort, range(4), HalvingEcg(), options=DatasetOptions(group="race"))


def test_arguments__unknown_names_are_refused(standin):
    cohort = Cohort.open(standin)
    with pytest.raises(ValueError, match="no label 'LVM'; this cohort has LVEDV, MI"):
        PairedDataset(cohort, [0], HalvingEcg(), labels=["LVM"])
    with pytest.raises(ValueError, match="there is no subject 99"):
        PairedDataset(cohort, [99], HalvingEcg(), options=DatasetOptions(cache_dir=Path(standin).parent / "cache"))
    with pytest.raises(ValueError, match="needs an ecg_pipeline"):
        PairedDataset(cohort, [0])


def _blank_lead(path: Path, recording: int, lead: int) -> None:
    codes = np.memmap(path / "arrays" / "ecg.bin", dtype="<i2", mode="r+").reshape(-1, 12, 500)
    codes[recording, lead] = -32768
    codes.flush()


def test_dataset__real_pipelines_on_simulated_subjects(tiny_cohort, tmp_path):
    from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
    from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline

    cohort = Cohort.open(tiny_cohort)
    ecg, cmr = ecg_pipeline("highpass"), cmr_pipeline("three_frames")
    options = DatasetOptions(require="both", cache_dir=tmp_path, ecg_dtype="float32")
    data = PairedDataset(cohort, range(24), ecg, cmr, ["LVEDV", "LVEF"], options)
    assert (len(data), data.dropped, data.ecg_shape, data.cmr_shape) == (24, [], (12, ecg.n_samples), cmr.shape)
    batch = data.batch([3, 20])
    for row, subject in enumerate([3, 20]):
        np.testing.assert_allclose(batch["ecg"][row].numpy(), ecg(cohort.recording(subject)), atol=1e-6)
        np.testing.assert_array_equal(batch["cmr"][row].mul(255).round().numpy(), cmr(cohort.cine(subject)))
        assert batch["labels"][row, 0].item() == pytest.approx(cohort.labels.loc[subject, "LVEDV"])
    assert batch["label_mask"].all()
