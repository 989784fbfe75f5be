"""Data sets of several views: each view is what a data set of it alone gives; studies without a partner drop out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ecgcmr.cmr.preprocessing import named_pipeline
from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.several_views import ViewsDataset, paired_dataset, partner_rows
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline

CMR = named_pipeline("three_frames", size=16)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort.open(simulate_cohort(tmp_path_factory.mktemp("views") / "mid", 6, seed=5, cine="mid"))


def test_simulate_cohort__mid_holds_the_middle_slice_of_the_full_stack_and_four_chambers(
    cohort: Cohort, tmp_path: Path
) -> None:
    full = Cohort.open(simulate_cohort(tmp_path / "full", 1, seed=5, cine="full"))
    assert sorted(cohort.studies["view"].unique()) == ["4ch", "sax"]
    whole, mid = full.cine(0), cohort.cine(0)
    assert mid.pixels.shape == (1, *whole.pixels.shape[1:])
    np.testing.assert_array_equal(mid.pixels[0], whole.pixels[whole.pixels.shape[0] // 2])
    np.testing.assert_array_equal(full.cine(1).pixels, cohort.cine(1).pixels)


def test_views_dataset__stacks_what_each_view_gives_alone(cohort: Cohort) -> None:
    both = ViewsDataset(["sax", "4ch"], cohort, np.arange(6), ecg_pipeline("highpass"), CMR)
    assert both.cmr_shape == (2, 3, 16, 16)
    batch = both.batch([4, 1])
    for k, view in enumerate(("sax", "4ch")):
        alone = PairedDataset(cohort, np.arange(6), ecg_pipeline("highpass"), CMR, options=DatasetOptions(view=view))
        one = alone.batch([4, 1])
        assert torch.equal(batch["cmr"][:, k], one["cmr"])
        assert torch.equal(batch["ecg"], one["ecg"])
        assert torch.equal(batch["subject"], one["subject"])
    assert not torch.equal(batch["cmr"][:, 0], batch["cmr"][:, 1])
    smaller = both.subset([4])
    assert torch.equal(smaller.batch([0])["cmr"], batch["cmr"][:1])
    assert isinstance(paired_dataset(("sax",), cohort, np.arange(6), (None, CMR), (), DatasetOptions()), PairedDataset)


def test_views_dataset__a_study_without_its_partner_is_none_and_says_why(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = cohort.studies.copy()
    lost = studies.index[(studies["subject"] == 2) & (studies["view"] == "4ch")]
    other = Cohort.open(cohort.path)
    monkeypatch.setattr(type(other), "studies", property(lambda _: studies.assign(view=studies["view"].where(
        ~studies.index.isin(lost), "3ch"))))  # fmt: skip
    found = ViewsDataset(["sax", "4ch"], other, np.arange(6), ecg_pipeline("highpass"), CMR)
    assert len(found) == 6
    batch = found.batch(np.arange(6))
    assert batch["has_cmr"].tolist() == [True, True, False, True, True, True]
    assert batch["cmr"][2].abs().max() == 0
    assert [(item.subject, item.reason) for item in found.dropped] == [(2, "no usable 4ch study of the same visit")]


def test_partner_rows__are_of_the_same_visit_and_not_refused() -> None:
    studies = pd.DataFrame(
        {
            "subject": [1, 1, 1, 2, 2, 3],
            "visit_days": [0.0, 0.0, 700.0, np.nan, np.nan, 0.0],
            "view": ["sax", "4ch", "4ch", "4ch", "sax", "sax"],
        }
    )
    rows = np.array([0, 4, 5, -1])
    assert partner_rows(studies, rows, "4ch", {}).tolist() == [1, 3, -1, -1]
    assert partner_rows(studies, rows, "4ch", {1: "broken"}).tolist() == [-1, 3, -1, -1]


def test_views_dataset__refuses_views_that_cannot_be_stacked(cohort: Cohort) -> None:
    with pytest.raises(ValueError, match=r"\['sax', 'sax'\]"):
        ViewsDataset(["sax", "sax"], cohort, [0], None, CMR)
    with pytest.raises(ValueError, match=r"'cine' keeps slices apart.*three_frames"):
        ViewsDataset(["sax", "4ch"], cohort, [0], None, named_pipeline("cine"))
