"""Many UK-Biobank-like XML files: rate and memory of an ingest, and whether a killed one ends in the same bytes.

    python benchmarks/ingest_at_scale.py --files 100000 --kills 3 --workers 2 --out results.json

Writes FOLDER/data with hard links of a few distinct files, ingests it by configs/data/ukb.yaml with the command that
users have, does it again with SIGKILL to the whole process group at random moments, repeats the command until it ends,
and compares every byte of the two cohorts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ecgcmr.ecg.leads import LEADS

ROOT = Path(__file__).parents[1]
DISTINCT = 16
SECOND_VISITS = 5  # every fifth subject has one


def cardiosoft_xml(seed: int, n_samples: int, rate_hz: float) -> str:
    """A resting ECG as CardioSoft writes it: twelve leads in steps of 5 uV, a date, and no person."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / rate_hz
    beat = np.exp(-0.5 * ((t % 0.85 - 0.3) / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((t % 0.85 - 0.56) / 0.04) ** 2)
    eight = np.rint((rng.uniform(0.4, 1.4, (8, 1)) * beat + rng.normal(0, 0.01, (8, n_samples))) / 0.01) * 2
    one, two = eight[0], eight[1]
    rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight[2:]]
    waves = "".join(
        f'<WaveformData lead="{lead}">{",".join(str(int(value)) for value in row)}</WaveformData>\n'
        for lead, row in zip(LEADS, rows, strict=True)
    )
    day, month, year = 1 + seed % 28, 1 + seed % 12, 2014 + seed % 6
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<CardiologyXML><ObservationType>RestECG</ObservationType>\n'
        f"<ObservationDateTime><Hour>9</Hour><Minute>0</Minute><Second>0</Second><Day>{day}</Day><Month>{month}</Month>"
        f"<Year>{year}</Year></ObservationDateTime>\n<StripData><NumberOfLeads>12</NumberOfLeads>"
        f'<SampleRate units="Hz">{rate_hz:g}</SampleRate><ChannelSampleCountTotal>{n_samples}</ChannelSampleCountTotal>'
        f'<Resolution units="uVperLsb">5</Resolution>\n{waves}</StripData></CardiologyXML>\n'
    )


def write_files(folder: Path, n: int, n_samples: int, rate_hz: float) -> None:
    """Write n files in folders of a thousand, as hard links of a few; some are broken."""
    source = folder.parents[1] / "source"
    source.mkdir(parents=True)
    texts = [cardiosoft_xml(seed, n_samples, rate_hz) for seed in range(DISTINCT)]
    texts += [texts[0][: len(texts[0]) // 2], texts[1].replace("uVperLsb", "mVperLsb"), ""]
    for number, text in enumerate(texts):
        (source / f"{number}.xml").write_text(text, encoding="latin-1")
    subject, visit = 10**6, 2
    for k in range(n):
        place = folder / f"{k // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        kind = DISTINCT + (k // 997) % 3 if k % 997 == 0 else k % DISTINCT
        os.link(source / f"{kind}.xml", place / f"{subject}_20205_{visit}_0.xml")
        if visit == 2 and subject % SECOND_VISITS == 0:
            visit = 3
        else:
            subject, visit = subject + 1, 2


Use = dict[int, tuple[float, float]]
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def use(group: int) -> dict[int, tuple[float, float]]:
    """Largest resident memory [MB] and processor time [s] of each process of a group so far."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                lines = (folder / "status").read_text().splitlines()
                peak = next(line for line in lines if line.startswith("VmHWM"))
                ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                found[int(folder.name)] = int(peak.split()[1]) / 1024, sum(map(int, ticks)) * TICK_S
        except (OSError, StopIteration):
            continue
    return found


def run(
    command: list[str], kill_after_s: float | None, log: Path
) -> tuple[bool, float, dict[int, tuple[float, float]]]:
    """Run a command in a group of its own; returns whether it ended by itself, its time, and `use` of its group."""
    begin, used = time.perf_counter(), Use()
    with log.open("a") as stream:
        process = subprocess.Popen(
            command, start_new_session=True, stdout=stream, stderr=stream, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        while process.poll() is None:
            used |= use(process.pid)
            if kill_after_s is not None and time.perf_counter() - begin > kill_after_s:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False, time.perf_counter() - begin, used
            time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; see {log}")
    return True, time.perf_counter() - begin, used


def digest(folder: Path) -> str:
    """sha256 over names and bytes of all files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            total.update(f"{path.relative_to(folder)}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--rate-hz", type=float, default=100.0)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder, removed at the end")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    place = arguments.folder or Path(tempfile.mkdtemp(prefix="ecgcmr-scale-"))
    place.mkdir(parents=True, exist_ok=True)
    write_files(place / "data" / "ecg", arguments.files, arguments.samples, arguments.rate_hz)
    command = [sys.executable, "-m", "ecgcmr.cli.main", "ingest", "--recipe", str(ROOT / "configs/data/ukb.yaml")]
    command += ["--root", str(place / "data"), "--workers", str(arguments.workers), "--out"]
    ended, seconds, used = run([*command, str(place / "whole" / "cohort")], None, place / "log.txt")
    peaks = {process: peak for process, (peak, _) in used.items()}
    cpu_s = sum(cpu for _, cpu in used.values())
    found: dict[str, object] = {
        "files": arguments.files,
        "workers": arguments.workers,
        "seconds": round(seconds, 1),
        "files_per_s": round(arguments.files / seconds, 1),
        "cpu_ms_per_file": round(1e3 * cpu_s / arguments.files, 2),
        "peak_mb_of_the_run": round(peaks.pop(min(peaks))),
        "peak_mb_of_a_worker": round(max(peaks.values(), default=0.0)),
        "killed_after_s": [],
    }
    print(json.dumps(found), flush=True)
    rng, ended = random.Random(arguments.seed), False
    killed: list[float] = []
    while not ended:
        wait = rng.uniform(0.05, 0.6) * seconds if len(killed) < arguments.kills else None
        ended, took, _ = run([*command, str(place / "killed" / "cohort")], wait, place / "log.txt")
        if not ended:
            killed.append(round(took, 1))
        elif len(killed) < arguments.kills:  # it was faster than the kill: begin again
            shutil.rmtree(place / "killed")
            killed, ended = [], False
    found["killed_after_s"] = killed
    found["same_bytes"] = digest(place / "whole" / "cohort") == digest(place / "killed" / "cohort")
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.folder is None:
        shutil.rmtree(place)
    if not found["same_bytes"]:
        raise SystemExit("the killed and resumed ingest differs from the undisturbed one")


if __name__ == "__main__":
    main()
