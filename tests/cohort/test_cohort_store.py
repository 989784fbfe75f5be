from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_standin import label_values, make_cine, make_ecg

from ecgcmr.cohort.packing import pack_ecg, pack_pixels, unpack_ecg, unpack_pixels
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256
from ecgcmr.cohort.validate import validate_cohort


def test_open__gives_back_what_was_written(standin):
    cohort = Cohort.open(standin)
    assert len(cohort) == 10
    for subject in (0, 3, 9):
        stored = cohort.recording(subject)
        np.testing.assert_allclose(stored.samples, make_ecg(subject).samples, atol=1e-6)
        assert (stored.rate_hz, stored.unit, stored.leads[3]) == (100.0, "mV", "aVR")
        row = int(cohort.studies.query("subject == @subject and view == 'sax'")["study"].iloc[0])
        cine, expected = cohort.cine(row), make_cine(subject)
        np.testing.assert_array_equal(cine.pixels, expected.pixels)
        np.testing.assert_array_equal(cine.masks, expected.masks)
        np.testing.assert_array_equal(cine.affine, expected.affine)
        np.testing.assert_array_equal(cine.frame_times_ms, expected.frame_times_ms)
        assert (cine.spacing_mm, cine.slice_spacing_mm, cine.mask_labels) == ((1.8, 1.8), 10.0, {1: "lv_cavity"})
        labels = cohort.labels.loc[subject]
        known = label_values(subject)
        assert labels[list(known)].to_dict() == pytest.approx(known, nan_ok=True)
        for code, value in enumerate(("SR", "AF")):
            assert labels[f"rhythm={value}"] == pytest.approx(float(known["rhythm"] == code), nan_ok=True)
    assert cohort.truth.loc[2, "activation_ms"].tolist() == [1.0, 2.0]
    assert cohort.label_specs["LVEDV"].ukb_field == 24100
    assert cohort.cine(0, masks=False).masks is None


@pytest.mark.parametrize("ragged", [False, True])
def test_ecg_block__equals_single_recordings(new_cohort, ragged):
    cohort = Cohort.open(new_cohort(ragged=ragged))
    rows = np.array([8, 0, 2, 2])
    block = cohort.ecg_block(rows)
    assert block.dtype == np.float32
    for position, row in enumerate(rows):
        np.testing.assert_array_equal(block[position], cohort.recording(row).samples)


def test_ecg_block__names_recording_of_other_length(new_cohort):
    cohort = Cohort.open(new_cohort(ragged=True))
    with pytest.raises(ValueError, match=r"recording 3 has shape \(12, 700\), recording 2 has \(12, 500\)"):
        cohort.ecg_block(np.array([2, 3]))


def test_open__truncated_array_is_refused(new_cohort):
    path = new_cohort()
    file = path / "arrays" / "ecg.bin"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"ecg\.bin has 119998 bytes, cohort\.json says 120000"):
        Cohort.open(path)


def test_open__points_to_the_unfinished_run(tmp_path):
    (tmp_path / "c.partial").mkdir()
    with pytest.raises(FileNotFoundError, match=r"c\.partial is an unfinished run"):
        Cohort.open(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="ecgcmr simulate"):
        Cohort.open(tmp_path / "other")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format_version": 1', '"format_version": 99', "format_version is 99, this ecgcmr reads 1"),
        ('"provenance"', '"provenence"', r"missing fields \['provenance'\], unknown fields \['provenence'\]"),
        ('"kind": "binary"', '"kind": "yesno"', "kind must be one of"),
        ("{", "", "not valid JSON"),
    ],
)
def test_open__broken_schema_is_named(new_cohort, old, new, message):
    file = new_cohort() / "cohort.json"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        Cohort.open(file.parent)


def test_open__works_after_a_move(new_cohort, tmp_path):
    moved = shutil.move(new_cohort(), tmp_path / "elsewhere")
    assert len(Cohort.open(Path(moved)).recordings) == 10


def test_pack_ecg__is_exact_to_half_a_step_and_never_clips():
    rng = np.random.default_rng(0)
    small = rng.normal(size=(12, 100)).astype(np.float32)
    small[3, 10:20] = np.nan
    codes, step = pack_ecg(small)
    assert step == 1e-3
    np.testing.assert_allclose(unpack_ecg(codes, step), small, atol=0.5e-3 + 1e-6)
    large = small * 100
    codes, step = pack_ecg(large)
    np.testing.assert_allclose(unpack_ecg(codes, step), large, atol=step * 0.51)
    assert step == pytest.approx(np.nanmax(np.abs(large)) / 32767)
    with pytest.raises(ValueError, match="row 1, sample 2 is infinite"):
        pack_ecg(np.where((np.arange(12)[:, None] == 1) & (np.arange(100) == 2), np.inf, small).astype(np.float32))


def test_pack_pixels__keeps_whole_numbers_and_scales_the_rest():
    whole = np.array([[0, 4095]], dtype=np.int16)
    codes, scale, offset = pack_pixels(whole, "uint16")
    assert (scale, offset) == (1.0, 0.0)
    np.testing.assert_array_equal(unpack_pixels(codes, scale, offset), whole)
    for values in (np.linspace(-1024.0, 3071.5, 99), np.full(5, 0.25), np.full(5, -3.0)):
        codes, scale, offset = pack_pixels(values, "uint16")
        np.testing.assert_allclose(unpack_pixels(codes, scale, offset), values, atol=max(scale, 1e-4))
    with pytest.raises(ValueError, match="not finite"):
        pack_pixels(np.array([np.nan]), "uint16")


def test_cohort__written_before_flags_were_added_opens_and_is_valid(new_cohort):
    path = new_cohort()
    schema = json.loads((path / "cohort.json").read_text())
    for name in ("recordings", "studies", "ledger"):
        file = path / f"{name}.parquet"
        pd.read_parquet(file).drop(columns="flags").to_parquet(file, index=False)
        schema["files"][file.name] = sha256(file)
    (path / "cohort.json").write_text(json.dumps(schema))
    cohort = Cohort.open(path)
    for table in (cohort.recordings, cohort.studies, cohort.ledger):
        assert len(table)
        assert "flags" not in table
    assert validate_cohort(path) == []
