"""The sbatch files against stand-ins of srun and scontrol: processes start, SIGTERM requeues, the next job goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Batch = Callable[..., subprocess.Popen[str]]
ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "slurm").glob("*.sbatch"))

# Starts SLURM_NTASKS processes with their ranks, passes SIGTERM on as SLURM does, gives the largest exit code.
SRUN = """#!{python}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--kill")]
ranks = range(int(os.environ["SLURM_NTASKS"]))
tasks = [subprocess.Popen(words, env=os.environ | {{"SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)}}) for r in ranks]
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
open(os.environ["SRUN_PID"], "w").write(str(os.getpid()))
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """#!{python}
import os, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1")
else:
    open(os.environ["REQUEUED"], "a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_sbatch__is_valid_shell_and_asks_slurm_for_what_resuming_needs(file: Path) -> None:
    subprocess.run(["bash", "-n", str(file)], check=True)
    text = file.read_text()
    for words in ("--requeue", "--open-mode=append", "--signal=TERM@", "set -euo pipefail", '"$code" -eq 75'):
        assert words in text
    assert all(line.startswith("#") for line in text[: text.index("set -euo")].splitlines())  # or SLURM stops reading


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which srun and scontrol are stand-ins."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(program.format(python=sys.executable))
        (tools / name).chmod(0o755)
    python = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{tools}:{python}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "SLURM_JOB_ID": str(10_000 + os.getpid() % 9_000),
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_NTASKS": "1",
        "SLURM_ARRAY_JOB_ID": "7",
        "SRUN_PID": str(tmp_path / "srun.pid"),
        "REQUEUED": str(tmp_path / "requeued"),
    }


def words(cohort: Path, out: Path, *more: str) -> list[str]:
    small = ["model.ecg.width=16", "model.ecg.depth=1", "model.ecg.heads=2", "objective.decoder.width=16"]
    run = ["train.batch_size=4", "train.epochs=400", "train.precision=no", "train.eval_every=1000", f"out={out}"]
    return ["configs/pretrain/ecg_mae.yaml", f"data.cohort={cohort}", *small, *run, *more]


@pytest.fixture
def batch() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an sbatch file; whatever is left of it at the end of the test is killed."""
    jobs: list[subprocess.Popen[str]] = []

    def start(file: str, *arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
        command = ["bash", str(ROOT / "configs" / "slurm" / file), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        job = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()


def wait_for(job: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait until something has happened, at most three minutes; a job that ends before is a failure with its words."""
    deadline = time.monotonic() + 180
    while not happened():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [1, 2])
def test_preempted_job__is_requeued_and_goes_on(
    processes: int, cluster: dict[str, str], batch: Batch, tiny_cohort: Path, tmp_path: Path
) -> None:
    cluster["SLURM_NTASKS"] = str(processes)
    folder, srun = tmp_path / "run", Path(cluster["SRUN_PID"])
    arguments = words(tiny_cohort, folder, "train.log_every=1")
    metrics, log = folder / "metrics.jsonl", folder / "train.log"
    job = batch("run.sbatch", *arguments, environment=cluster)
    wait_for(job, lambda: metrics.is_file() and metrics.stat().st_size > 0)
    os.kill(int(srun.read_text()), signal.SIGTERM)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert Path(cluster["REQUEUED"]).read_text() == f"requeue {cluster['SLURM_JOB_ID']}\n"
    done = json.loads((folder / "checkpoints" / "last" / "meta.json").read_text())
    assert done["world_size"] == processes
    srun.unlink()
    job = batch("run.sbatch", *arguments, environment=cluster)
    wait_for(job, lambda: f"continues at step {done['position']['step']} of" in log.read_text())
    rows = metrics.read_bytes().count(b"\n")
    wait_for(job, lambda: metrics.read_bytes().count(b"\n") > rows)
    os.kill(int(srun.read_text()), signal.SIGTERM)
    job.communicate(timeout=120)
    again = json.loads((folder / "checkpoints" / "last" / "meta.json").read_text())
    assert again["position"]["step"] > done["position"]["step"]


@pytest.mark.slow
def test_sweep__takes_its_line_and_fails_with_the_programs_code(
    cluster: dict[str, str], batch: Batch, tiny_cohort: Path, tmp_path: Path
) -> None:
    recipe, *changes = words(tiny_cohort, tmp_path / "not this one", "train.max_steps=1")
    lines = tmp_path / "sweep.txt"
    lines.write_text(f"out={tmp_path / 'a'} optim.lr=1e-3\nout={tmp_path / 'b'} optim.lr=2e-3\nno.such.key=1\n")
    for line, code in (("2", 0), ("3", 2), ("4", 2)):
        job = batch("sweep.sbatch", str(lines), recipe, *changes, environment=cluster | {"SLURM_ARRAY_TASK_ID": line})
        said, _ = job.communicate(timeout=120)
        assert job.returncode == code, said
    assert "lr: 0.002" in (tmp_path / "b" / "config.yaml").read_text()
    assert not (tmp_path / "a").exists()
    assert not Path(cluster["REQUEUED"]).exists()
