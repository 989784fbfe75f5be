"""Order of samples: a pure function of (seed, epoch), the same for any number of processes, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Order = Callable[[int, int], NDArray[np.int64]]
"""(seed, epoch) to the samples of an epoch (n,); `ecgcmr.cohort.orders` has others than a permutation."""

_PURPOSE_ORDER = 0x0E9C  # keeps the stream of this purpose apart from other draws with the same seed


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits `n` samples.

    Philox is counter-based and its stream is fixed by NumPy's compatibility policy for bit generators.

    Args:
        n: Number of samples.
        seed: Seed of the run.
        epoch: Epoch, from 0.

    Returns:
        Permutation of 0 ... n-1 (n,).
    """
    if n < 0 or seed < 0 or epoch < 0:
        raise ValueError(f"n, seed and epoch must not be negative, got n={n}, seed={seed}, epoch={epoch}")
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(_PURPOSE_ORDER, epoch))
    keys = np.random.Philox(sequence).random_raw(n)
    return np.argsort(keys, kind="stable").astype(np.int64)


class BatchSampler:
    """Yields index arrays of one rank; all ranks together walk through `epoch_order`, or another order.

    Global step s takes order[s*P*B : (s+1)*P*B]; rank r its contiguous slice of B. The last partial global batch is
    dropped, except when it is the only one: then each rank takes n // P samples.

    The state is (epoch, position), position counted in samples of the global order, so that a run can be resumed with
    another number of processes as long as the global batch stays the same. A batch counts as done once handed out.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, order: Order | None = None
    ) -> None:
        if n < 1 or batch_size < 1:
            raise ValueError(f"need at least one sample and a positive batch size, got n={n}, batch_size={batch_size}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must lie in 0 ... {world - 1}, got {rank}")
        if n < world:
            raise ValueError(f"{n} samples cannot feed {world} processes; use more data or fewer processes")
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self._epoch, self._position = 0, 0
        self._order: Order = order or (lambda seed, epoch: epoch_order(n, seed, epoch))

    @property
    def rows_per_rank(self) -> int:
        """Samples of one rank in one step."""
        return min(self.batch_size, self.n // self.world)

    @property
    def epoch(self) -> int:
        """The epoch of the batch handed out last (or of the first one to come)."""
        return self._epoch

    def __len__(self) -> int:
        """Steps in a whole epoch."""
        return max(1, self.n // (self.batch_size * self.world))

    @property
    def steps_left(self) -> int:
        """Steps left in this epoch."""
        return len(self) - self._position // (self.rows_per_rank * self.world)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Batches that are left in this epoch; afterwards the sampler stands at the start of the next one."""
        self._roll()
        order = self._order(self.seed, self._epoch)
        step = self.rows_per_rank * self.world
        while self.steps_left > 0:
            start = self._position + self.rank * self.rows_per_rank
            self._position += step
            yield order[start : start + self.rows_per_rank]
        self._roll()

    def _roll(self) -> None:
        if self.steps_left <= 0:
            self._epoch, self._position = self._epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the run stands; a finished epoch reads as the start of the next one."""
        if self.steps_left <= 0:
            return {"epoch": self._epoch + 1, "position": 0, "n": self.n, "seed": self.seed}
        return {"epoch": self._epoch, "position": self._position, "n": self.n, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state.

        Raises:
            ValueError: The state belongs to another data set size, seed or global batch.
        """
        for name, mine in (("n", self.n), ("seed", self.seed)):
            if name in state and state[name] != mine:
                raise ValueError(
                    f"sampler state: {name} is {state[name]} in the checkpoint but {mine} now; "
                    "resume with the same data and seed"
                )
        step = self.rows_per_rank * self.world
        if state["position"] % step:
            raise ValueError(
                f"sampler state: position {state['position']} is no multiple of the global batch {step}; "
                "resume with the same batch_size x processes"
            )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])


def sequential_batches(n: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Indices 0 ... n-1 in order, in batches; the last one may be smaller. For evaluation."""
    for start in range(0, n, batch_size):
        yield np.arange(start, min(start + batch_size, n), dtype=np.int64)
