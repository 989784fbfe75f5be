from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from cohort_standin import make_ecg, write_cohort

from ecgcmr.cohort.locks import FolderLock
from ecgcmr.cohort.schema import CohortSchema
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.writer import CohortWriter


def digest(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_some(writer: CohortWriter, indices) -> None:
    for index in indices:
        with writer.chunk(index) as rows:
            for subject in (2 * index, 2 * index + 1):
                rows.add_subject(subject, {"sex": "F"})
                rows.add_recording(make_ecg(subject), subject)


def finish(writer: CohortWriter) -> Path:
    writer.merge_ready()
    return writer.finish(writer.collect(), CohortSchema("c", "generated", "0"), [])


def test_writer__writes_exactly(standin):
    files = {name for name in digest(standin) if not name.startswith("cache/")}
    tables = {f"{name}.parquet" for name in ("subjects", "recordings", "studies", "labels", "truth", "ledger")}
    arrays = {"arrays/ecg.bin", "arrays/cine.bin", "arrays/masks.bin"}
    assert files == tables | arrays | {"cohort.json", "splits/default.json"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_writer__order_of_chunks_does_not_change_a_byte(tmp_path, order):
    with CohortWriter(tmp_path / "a", {}, 3) as writer:
        for index in order:
            write_some(writer, [index])
            writer.merge_ready()
        out = finish(writer)
    with CohortWriter(tmp_path / "b" / "c", {}, 3) as writer:
        write_some(writer, range(3))
        reference = finish(writer)
    assert digest(out) == digest(reference)
    assert Cohort.open(out).recordings["subject"].tolist() == list(range(6))
    np.testing.assert_allclose(Cohort.open(out).recording(5).samples, make_ecg(5).samples, atol=1e-6)


def test_writer__interrupted_append_is_cut_off_and_done_again(tmp_path):
    with CohortWriter(tmp_path / "a", {"seed": 1}, 2) as writer:
        write_some(writer, [0])
        writer.merge_ready()
    ecg = tmp_path / "a.partial" / "arrays" / "ecg.bin"
    whole = ecg.read_bytes()
    ecg.write_bytes(whole + b"half a chunk that a killed run appended")
    assert not (tmp_path / "a").exists()
    with CohortWriter(tmp_path / "a", {"seed": 1}, 2) as writer:
        assert writer.missing() == [1]
        assert ecg.read_bytes() == whole
        write_some(writer, writer.missing())
        out = finish(writer)
    with CohortWriter(tmp_path / "b", {"seed": 1}, 2) as writer:
        write_some(writer, range(2))
        assert digest(out) == digest(finish(writer))
    assert not (tmp_path / "a.partial").exists()


def test_writer__error_in_a_chunk_leaves_no_chunk(tmp_path):
    with CohortWriter(tmp_path / "a", {}, 1) as writer:
        rows = writer.chunk(0).__enter__()
        rows.add_recording(make_ecg(0), 0)
        error = OSError("disk full")
        rows.__exit__(OSError, error, None)
        assert writer.missing() == [0]
        assert list((writer.partial / "chunks").iterdir()) == []


def test_writer__other_arguments_are_refused_and_named(tmp_path):
    with CohortWriter(tmp_path / "a", {"seed": 1, "n": 3}, 2) as writer:
        write_some(writer, [0])
    with pytest.raises(ValueError, match=r"a\.partial is an unfinished run with other arguments \(seed differ\)"):
        CohortWriter(tmp_path / "a", {"seed": 2, "n": 3}, 2).__enter__()
    with CohortWriter(tmp_path / "a", {"seed": 2, "n": 3}, 2, force=True) as writer:
        assert writer.missing() == [0, 1]


def test_writer__finished_cohort_is_kept_unless_forced(new_cohort, tmp_path):
    path = new_cohort()
    before = digest(path)
    with pytest.raises(FileExistsError, match="use --force"):
        CohortWriter(path, {}, 1)
    assert digest(path) == before
    with CohortWriter(path, {}, 1, force=True) as writer:
        assert digest(path) == before  # until the new one is whole
        write_some(writer, [0])
        finish(writer)
    assert len(Cohort.open(path)) == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == ["cohort"]


def test_writer__folder_that_is_no_cohort_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is no cohort; it will not be touched"):
        CohortWriter(tmp_path, {}, 1, force=True)
    (tmp_path / "empty").mkdir()
    with CohortWriter(tmp_path / "empty", {}, 1) as writer:
        write_some(writer, [0])
        finish(writer)
    assert len(Cohort.open(tmp_path / "empty")) == 2


def test_writer__second_process_is_turned_away(tmp_path):
    with CohortWriter(tmp_path / "a", {}, 1), pytest.raises(BlockingIOError, match="being written by another process"):
        CohortWriter(tmp_path / "a", {}, 1).__enter__()


def _hold(path: Path, ready, done) -> None:
    lock = FolderLock(path)
    lock.acquire()
    ready.set()
    done.wait(20)
    os._exit(9)  # without releasing


def test_lock__is_free_again_when_its_holder_dies(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", ready, done))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(BlockingIOError, match="busy"):
        FolderLock(tmp_path / "lock").acquire("busy")
    done.set()
    holder.join(20)
    lock = FolderLock(tmp_path / "lock")
    lock.acquire("busy")
    lock.release()


def test_format_page__names_every_column_and_field(standin):
    text = (Path(__file__).parents[2] / "docs" / "cohort_format.md").read_text()
    cohort = Cohort.open(standin)
    for name in ("subjects", "recordings", "studies", "ledger"):
        assert f"`{name}.parquet`" in text
        from ecgcmr.cohort.schema import TABLES

        missing = [column for column in TABLES[name] if f"`{column}`" not in text]
        assert not missing, f"docs/cohort_format.md does not explain {missing} of {name}"
        assert list(getattr(cohort, name).columns)[: len(TABLES[name])] == list(TABLES[name])
    schema = json.loads((standin / "cohort.json").read_text())
    assert [key for key in schema if f"`{key}`" not in text] == []
    assert [key for key in schema["labels"][0] if f"`{key}`" not in text] == []
    assert [key for key in schema["arrays"]["ecg"] if f"`{key}`" not in text] == []
    from ecgcmr.cohort.ledger import EXPLANATIONS, Reason

    assert [reason for reason in Reason if f"`{reason.value}`" not in text] == []
    assert set(EXPLANATIONS) == set(Reason)


def test_cohort__same_rows_give_the_same_bytes(tmp_path):
    first = write_cohort(tmp_path / "x" / "cohort", n=5, chunk=2)
    second = write_cohort(tmp_path / "y" / "cohort", n=5, chunk=5)
    assert digest(first) == digest(second)
