"""Memory of a job is that of all its processes at their largest, and is seen after it has been given back.

Each test runs in a fresh process: what this one holds is shared with other test workers, which come and go.
"""

from __future__ import annotations

import subprocess
import sys

PEAK = """
import time
from ecgcmr.study.memory import MemoryWatch, memory_mib

before = memory_mib()
with MemoryWatch(every_s=0.01) as watch:
    block = bytearray(300 * 2**20)
    for start in range(0, len(block), 4096):
        block[start] = 1
    until = time.monotonic() + 60
    while watch.peak_mib < before + 295 and time.monotonic() < until:
        time.sleep(0.01)
    del block
print(watch.peak_mib - before, memory_mib() - before)
"""
CHILD = "x = bytearray(b'1') * (200 * 2**20); print(1, flush=True); input()"
CHILDREN = f"""
import subprocess, sys
from ecgcmr.study.memory import memory_mib

before = memory_mib()
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
with_child = memory_mib()
child.communicate("end")
print(with_child - before, memory_mib() - before)
"""


def measured(program: str) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    return float(first), float(second)


def test_memory_watch__sees_a_peak_that_is_over() -> None:
    peak, after = measured(PEAK)
    assert 295 <= peak < 330
    assert after < 30


def test_memory__counts_children() -> None:
    with_child, after = measured(CHILDREN)
    assert 195 < with_child < 260
    assert abs(after) < 30
