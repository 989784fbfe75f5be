"""Recordings through an encoder in a stream: read and prepared in threads, batched by lead set, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.inputs import EcgItem
from ecgcmr.hub.windows import Cutter, Short, Window, Windows

if TYPE_CHECKING:
    from ecgcmr.hub.covariates import CovariatesLike

Aggregate = Literal["mean", "none"]
Compute = Callable[[Tensor, tuple[str, ...], list[EcgItem]], Tensor]
Progress = Callable[[int, int], None]

_WINDOWS_AHEAD = 64  # what a thread prepares of one recording; the rest of a long one is cut when its turn comes


class StreamKeywords(TypedDict, total=False):
    """The keywords of `StreamOptions`, for signatures."""

    windows: Windows
    aggregate: Aggregate
    short: Short
    only_leads: Iterable[str] | None
    workers: int | None
    progress: Progress | bool
    covariates: CovariatesLike | None


@dataclass(frozen=True)
class StreamOptions:
    """How recordings are cut, batched and put together.

    Attributes:
        batch_size: Windows computed at a time.
        windows: "first", "all", or how many windows from the start of a recording.
        aggregate: "mean" averages the outputs of a recording's windows (embeddings; predictions in their units and
            as probabilities); "none" gives each window a row.
        short: "refuse", "pad" (zeros at the end) or "repeat" for recordings shorter than the model's input.
        only_leads: Use no other leads than these.
        workers: Threads that read and prepare; None for one for each core, at most 8.
        progress: Called with (done, total) recordings; True draws a bar on a terminal.
        covariates: What a head that reads more than the ECG must know; see `ecgcmr.hub.covariates.Covariates`.
    """

    batch_size: int = 64
    windows: Windows = "first"
    aggregate: Aggregate = "mean"
    short: Short = "refuse"
    only_leads: Iterable[str] | None = None
    workers: int | None = None
    progress: Progress | bool = False
    covariates: CovariatesLike | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in ("mean", "none"):
            raise ValueError(f"aggregate is {self.aggregate!r}, expected 'mean' or 'none'")
        if self.batch_size < 1 or (self.workers is not None and self.workers < 1):
            raise ValueError(f"batch_size {self.batch_size} and workers {self.workers} must be at least 1")

    @property
    def threads(self) -> int:
        """Number of threads."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.workers or min(cores, 8)


@dataclass(frozen=True)
class Row:
    """One output.

    Attributes:
        item: Whose.
        values: (K,) float32.
        leads: Leads that every one of its windows had.
        n_windows: Windows that were averaged.
        window: Number of the window; 0 for an average.
        start_s: Start of the (first) window in the recording [s].
    """

    item: EcgItem
    values: NDArray[np.float32]
    leads: tuple[str, ...]
    n_windows: int
    window: int
    start_s: float


@dataclass(frozen=True)
class Failed:
    """An item without output, and the error that says why."""

    item: EcgItem
    error: Exception


@dataclass
class _Gathered:
    """What has been computed of one item."""

    item: EcgItem
    windows: list[tuple[tuple[str, ...], float]] = field(default_factory=list)
    values: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    total: NDArray[np.float64] | None = None
    error: Exception | None = None

    def add(self, window: int, values: NDArray[np.float32], keep: bool) -> None:
        if not np.isfinite(values).all():
            self.error = ValueError("the model's output is not finite: look at the samples of this recording")
        elif keep:
            self.values[window] = values
        else:
            self.total = values.astype(np.float64) if self.total is None else self.total + values

    def rows(self) -> list[Row | Failed]:
        if self.error is not None:
            return [Failed(self.item, self.error)]
        if self.total is None:
            return [Row(self.item, self.values[i], leads, 1, i, start) for i, (leads, start) in enumerate(self.windows)]
        n = len(self.windows)
        common = tuple(lead for lead in LEADS if all(lead in leads for leads, _ in self.windows))
        return [Row(self.item, (self.total / n).astype(np.float32), common, n, 0, self.windows[0][1])]


def stream(
    items: Iterable[EcgItem], cut: Cutter, compute: Compute, options: StreamOptions, chunk: int
) -> Iterator[list[Row | Failed]]:
    """Give the outputs of chunks of items, in the order of the items.

    In memory are one recording for each thread and one more, their next windows, and the outputs of one chunk.

    Args:
        items: What to read.
        cut: Makes windows of a recording.
        compute: Windows (B, 12, T) that have the same leads, these leads, and whose they are, to outputs (B, K).
        options: Batch size, aggregation, threads.
        chunk: Items of a chunk.
    """
    todo = iter(items)
    with ThreadPoolExecutor(options.threads) as pool:
        while part := list(islice(todo, chunk)):
            yield _chunk(part, cut, compute, options, pool)


def _chunk(
    part: list[EcgItem], cut: Cutter, compute: Compute, options: StreamOptions, pool: ThreadPoolExecutor
) -> list[Row | Failed]:
    gathered = [_Gathered(item) for item in part]
    waiting: dict[tuple[str, ...], list[tuple[_Gathered, int, Window]]] = {}
    keep = options.aggregate == "none"

    def flush(leads: tuple[str, ...]) -> None:
        batch = waiting.pop(leads)
        samples = torch.from_numpy(np.stack([window.samples for _, _, window in batch]))
        found = compute(samples, leads, [one.item for one, _, _ in batch])
        for (one, number, _), values in zip(batch, found.cpu().numpy(), strict=True):
            one.add(number, values, keep)

    for one, windows in zip(gathered, _prepared(part, cut, options, pool), strict=True):
        try:
            for window in windows:
                queue = waiting.setdefault(window.leads, [])
                queue.append((one, len(one.windows), window))
                one.windows.append((window.leads, window.start_s))
                if len(queue) >= options.batch_size:
                    flush(window.leads)
        except _ReadError as error:
            one.error = error.cause
    for leads in list(waiting):
        flush(leads)
    return [row for one in gathered for row in one.rows()]


class _ReadError(Exception):
    """Wraps what reading or preparing raised, so that an error of the model is never taken for one of a file."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _prepared(
    part: list[EcgItem], cut: Cutter, options: StreamOptions, pool: ThreadPoolExecutor
) -> Iterator[Iterator[Window]]:
    """The windows of each item, in order; no more items are ahead than keep the threads busy."""
    waiting: deque[Future[Iterator[Window]]] = deque()
    for item in part:
        waiting.append(pool.submit(_begin, item, cut))
        if len(waiting) > options.threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _begin(item: EcgItem, cut: Cutter) -> Iterator[Window]:
    """Read an item and prepare its first windows; errors come out where the windows are taken."""
    windows = _guarded(item, cut)
    try:
        first = list(islice(windows, _WINDOWS_AHEAD))
    except _ReadError as error:
        return _failing(error)
    return chain(first, windows)


def _guarded(item: EcgItem, cut: Cutter) -> Iterator[Window]:
    try:
        yield from cut(item.read())
    except Exception as error:  # whatever a file provokes belongs to this file and must not stop a long run
        raise _ReadError(error) from error


def _failing(error: _ReadError) -> Iterator[Window]:
    raise error
    yield  # makes this a generator, so that it raises where its windows are taken
