"""Workers: each job once and after what it needs; a failure names the job and stops the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import study_work

from ecgcmr.study.workers import run_jobs


@pytest.mark.slow
def test_run_jobs__each_once_after_what_it_needs(tmp_path: Path) -> None:
    jobs = [study_work.job(tmp_path, "a"), study_work.job(tmp_path, "b", ("a",)), study_work.job(tmp_path, "c", ("b",))]
    jobs += [study_work.job(tmp_path, f"free{k}") for k in range(3)]
    shares: list[float] = []
    run_jobs(jobs, study_work.note, 2, shares.append)
    lines = [line.split() for line in (tmp_path / "order.txt").read_text().splitlines()]
    order = [key for key, _ in lines]
    assert sorted(order) == sorted(job.key for job in jobs)
    assert order.index("a") < order.index("b") < order.index("c")
    assert len({pid for _, pid in lines}) == 2
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    run_jobs(jobs, study_work.fail, 2, shares.append)  # nothing is left to do
    assert len((tmp_path / "order.txt").read_text().splitlines()) == len(jobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "words"), [(study_work.fail, "bad stopped: ValueError: no such thing"), (study_work.die, "bad: worker")]
)
def test_run_jobs__a_failure_names_the_job(tmp_path: Path, work: object, words: str) -> None:
    jobs = [study_work.job(tmp_path, "good"), study_work.job(tmp_path, "bad"), study_work.job(tmp_path, "n", ("bad",))]
    with pytest.raises(RuntimeError, match=words):
        run_jobs(jobs, work, 1, lambda _: None)  # type: ignore[arg-type]
    assert (tmp_path / "good/done.json").exists()
    assert not (tmp_path / "n").exists()
