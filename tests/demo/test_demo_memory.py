"""Memory of a job is that of all its processes at their largest, and is seen after it has been given back."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from ecgcmr.demo.memory import MemoryWatch, memory_mib

CHILD = (
    "import time; x = bytearray(200 * 2**20); x[::4096] = b'1' * len(x[::4096]); print(1, flush=True); time.sleep(60)"
)


def test_memory_watch__sees_a_peak_that_is_over() -> None:
    before = memory_mib()
    with MemoryWatch(every_s=0.01) as watch:
        block = np.ones(300 * 2**17)  # 300 MiB of float64
        time.sleep(0.3)
        del block
    assert 280 < watch.peak_mib - before < 600


def test_memory__counts_children() -> None:
    before = memory_mib()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        with_child = memory_mib()
        child.kill()
    assert 190 < with_child - before < 300
    assert memory_mib() < before + 50
