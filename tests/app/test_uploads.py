import shutil

import numpy as np
import pytest
import wfdb

from ecgcmr.app.uploads import read_upload
from ecgcmr.ecg.leads import LEADS


def test_upload__is_read_and_gone(ecg_file, hearts):
    found = read_upload([ecg_file])
    np.testing.assert_allclose(found.samples, hearts.cohort.recording(0).samples, atol=1e-6)
    assert not ecg_file.exists()


def test_upload__header_and_data_come_together_from_different_folders(tmp_path):
    values = np.random.default_rng(0).normal(size=(1000, 12)) * 0.3
    wfdb.wrsamp("one", 500, ["mV"] * 12, list(LEADS), values, fmt=["16"] * 12, write_dir=str(tmp_path))
    apart = []
    for suffix in (".dat", ".hea"):
        (tmp_path / suffix[1:]).mkdir()
        apart.append(shutil.move(tmp_path / f"one{suffix}", tmp_path / suffix[1:] / f"one{suffix}"))
    found = read_upload(apart)
    np.testing.assert_allclose(found.samples.T, values, atol=1e-3)
    assert not [*(tmp_path / "dat").iterdir(), *(tmp_path / "hea").iterdir()]


def test_upload__a_file_that_cannot_be_read_is_gone_too_and_named_without_its_folder(tmp_path):
    path = tmp_path / "broken.xml"
    path.write_text("<nothing/>")
    with pytest.raises(ValueError, match=r"broken\.xml") as caught:
        read_upload([path])
    assert str(tmp_path) not in str(caught.value)
    assert "ecgcmr-" not in str(caught.value)
    assert not path.exists()


def test_upload__nothing_or_two_recordings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_upload([])
    paths = [tmp_path / "a.xml", tmp_path / "b.xml"]
    for path in paths:
        path.write_text("<a/>")
    with pytest.raises(ValueError, match="2 recordings"):
        read_upload(paths)
    assert not any(path.exists() for path in paths)
