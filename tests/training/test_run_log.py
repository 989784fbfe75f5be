"""train.log of a failed run tells the error, and no home folder or identifier that its message holds."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ecgcmr.cohort.privacy_audit import audit
from ecgcmr.training.runfolder import run_log


def test_run_log__a_failure_is_told_without_home_and_identifiers(tmp_path: Path) -> None:
    number = str(3 * 10**6 + 141592)
    message = f"{Path.home()}/cohorts/one: subject {number} of 2016-11-05 holds 17 rows, expected 12"
    with pytest.raises(ValueError, match=number):
        _fail(tmp_path, message)
    text = (tmp_path / "train.log").read_text()
    assert "ValueError: ~/cohorts/one: subject 3*****2 of 2********5 holds 17 rows, expected 12" in text
    assert audit(tmp_path) == []


def _fail(folder: Path, message: str) -> None:
    with run_log(folder, main=True) as log:
        log.open()
        logging.getLogger("ecgcmr").info("begun")
        raise ValueError(message)
