"""What the machine itself can do: matrix throughput, clocks that wait for the device, and memory at the peak."""

from __future__ import annotations

import gc
import os
import platform
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil
import torch

from ecgcmr.training.allocator import release_freed_memory

_SIDE = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices: large enough to reach the peak, small enough to be quick."""

_SAMPLE_SECONDS = 0.01
_MIB = 2**20


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked; the CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_gflops(device: torch.device, dtype: torch.dtype, seconds: float = 1.0, side: int | None = None) -> float:
    """Measure the throughput of a square matrix product: the best of several, because anything else only slows it.

    Args:
        device: Where.
        dtype: float32 or bfloat16.
        seconds: Time to spend [s]; at least three products are timed.
        side: Rows of the matrices; None for what suits the device.

    Returns:
        10^9 floating point operations a second, 2 n^3 for each product.
    """
    n = side or _SIDE.get(device.type, 4096)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    taken: list[float] = []
    torch.mm(a, b)  # the first call chooses its kernel
    begin = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - begin < seconds:
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return 2.0 * n**3 / min(taken) / 1e9


def processor_name() -> str:
    """Give the name of the processor as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name(device: torch.device) -> str:
    """Give the name of the GPU, or the type of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float:
    """Processes that wanted to run, mean over the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


class PeakMemory:
    """Largest memory while the `with` block runs: allocated by torch on a GPU, resident (sampled) on the CPU.

    Attributes:
        peak_mib: Largest value so far [MiB]; on the CPU all of the process counts, and peaks of less than 10 ms may be
            missed.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak_mib = 0.0
        self._device = device
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self.peak_mib = max(self.peak_mib, self._process.memory_info().rss / _MIB)

    def __enter__(self) -> PeakMemory:
        """Give back what earlier work left, and start."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            release_freed_memory()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the last sample and stop."""
        if self._device.type == "cuda":
            self.peak_mib = torch.cuda.max_memory_allocated(self._device) / _MIB
            return
        self._sample()
        self._stop.set()
        self._thread.join()
