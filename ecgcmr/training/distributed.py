"""Processes of a run: start accelerate, assert how many there are, and reduce what all must agree on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

from ecgcmr.models.distributed import sum_over_processes

log = logging.getLogger(__name__)

TWO_PROCESSES = "accelerate launch --config_file configs/accelerate/cpu_2.yaml"


def start_processes(timeout_seconds: float | None = None) -> PartialState:
    """Join the other processes of the run, over gloo where there is no accelerator; may be called again.

    accelerate looks for several processes on the CPU only if it is told to use the CPU.

    Args:
        timeout_seconds: How long any of them waits for the others [s]; None keeps the backend's own limit. The first
            call in a process decides.
    """
    wants_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    limit = {} if timeout_seconds is None else {"timeout": timedelta(seconds=timeout_seconds)}
    return PartialState(cpu=wants_cpu or not torch.accelerator.is_available(), **limit)


def start_accelerator(precision: str, trackers: tuple[str, ...], folder: Path) -> Accelerator:
    """Start accelerate for one run; several runs may follow each other in one process.

    Args:
        precision: "bf16" or "no".
        trackers: Names for `log_with`.
        folder: Where trackers that write files put them.
    """
    AcceleratorState._reset_state()  # it refuses another precision than that of the run before
    # All processes hold the same buffers (gathered batch statistics): sending them at each step only costs time.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Accelerator(
        cpu=start_processes().device.type == "cpu",
        mixed_precision=precision,
        log_with=list(trackers) or None,
        project_dir=str(folder) if trackers else None,
        kwargs_handlers=[ddp],
    )


class ProcessLostError(RuntimeError):
    """Another process of the run ended or does not answer; this one cannot go on alone."""


@contextmanager
def name_lost_processes(folder: Path, n_processes: int) -> Iterator[None]:
    """Say what it means when a collective fails: an exception of the backend names a socket and nothing else.

    Args:
        folder: The run folder, for the advice.
        n_processes: World size; one process is never lost.

    Raises:
        ProcessLostError: Instead of the backend's error.
    """
    try:
        yield
    except RuntimeError as error:
        if n_processes == 1 or not _is_of_a_collective(error):
            raise
        raise ProcessLostError(
            f"another of the {n_processes} processes ended or did not answer within train.timeout_seconds, so this one "
            f"ends too; its own message, or the launcher's, has the reason (a process killed without a message often "
            f"had too little memory); continue {folder} with --resume from its last checkpoint. The backend said: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


def _is_of_a_collective(error: RuntimeError) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error)
    return any(sign in text for sign in ("closed by peer", "Connection reset", "Timed out waiting", "gloo", "NCCL"))


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate does not know or whose package is missing: it would log nothing and not say so.

    Raises:
        ValueError: The message names the tracker and what is there.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known, installed = sorted(LOGGER_TYPE_TO_CLASS), [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ValueError(f"train.trackers: {name!r} is unknown; accelerate knows {', '.join(known)}")
        if name not in installed:
            raise ValueError(
                f"train.trackers: the package of {name!r} is not installed (installed: {', '.join(installed) or 'none'}"
                f"); install it, for instance pip install {name}, or leave it out: metrics.jsonl is always written"
            )


def check_processes(asked: int | None, started: int, environment: Mapping[str, str] | None = None) -> None:
    """Refuse a run that has not as many processes as were asked for.

    `accelerate launch --cpu --num_processes 2` starts one plain process (accelerate 1.15): such a run would train, at
    half the batch, and nobody would notice.

    Args:
        asked: `train.processes`; None if the run file does not say.
        started: World size.
        environment: Environment variables, for tests.

    Raises:
        ValueError: If the numbers differ.
    """
    environment = os.environ if environment is None else environment
    if asked is not None and asked != started:
        raise ValueError(
            f"train.processes is {asked}, but {started} {'process has' if started == 1 else 'processes have'} started; "
            f"on the CPU launch with: {TWO_PROCESSES} (set num_processes in that file), "
            "or remove train.processes to accept any number"
        )
    # accelerate sets an address for several processes and then, in this case, starts one that was never told its rank.
    one_of_many = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_PORT" in environment
    if started == 1 and one_of_many and "WORLD_SIZE" not in environment:
        raise ValueError(
            "accelerate was asked for several processes but started one plain process, as it does for --cpu "
            f"--num_processes; launch with: {TWO_PROCESSES}"
        )


def agree(values: Tensor) -> list[float]:
    """Sum a small vector over all processes and give plain numbers.

    Args:
        values: (N,) float64, alike in meaning on every process.

    Returns:
        N sums, equal on every process.
    """
    numbers: list[float] = sum_over_processes(values).tolist()
    return numbers


def close_accelerator(accelerator: Accelerator) -> None:
    """End the trackers and forget the run, so that another one with other settings may follow in this process."""
    for tracker in accelerator.trackers:
        tracker.finish()
    if accelerator.device.type != "cpu":  # a full garbage collection, which a run of seconds on the CPU would feel
        accelerator.free_memory()
    AcceleratorState._reset_state()
