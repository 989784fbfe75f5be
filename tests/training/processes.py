"""Gloo processes for tests: started once, they regroup into smaller worlds, under DDP or sharded."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

TRAINING = Path(__file__).parent
OBJECTIVES = TRAINING.parent / "objectives"
BLOCKS = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Block,BasicBlock,Bottleneck",
}
"""What accelerate's launcher puts into the environment for configs/accelerate/fsdp_cpu_2.yaml."""
LARGE = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP",
    "FSDP_MIN_NUM_PARAMS": "1000",
}
"""And for configs/accelerate/fsdp.yaml, at the size of the tests' models."""
UNSHARDED = {"ACCELERATE_USE_FSDP": "false"}


def free_ports(n: int) -> list[int]:
    """Different ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def spawn(worker: Callable[..., None], n: int, *arguments: Any) -> None:
    """Run worker(rank, *arguments) in n processes that find the tests' modules."""
    patch = pytest.MonkeyPatch()
    paths = [str(TRAINING), str(OBJECTIVES), str(TRAINING.parents[1]), os.environ.get("PYTHONPATH", "")]
    patch.setenv("PYTHONPATH", os.pathsep.join(paths))
    try:
        torch.multiprocessing.spawn(worker, arguments, nprocs=n)
    finally:
        patch.undo()


@contextmanager
def world_of(n: int, rank: int, port: int) -> Iterator[None]:
    """Be one of n processes; afterwards this process may join another world."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ |= where | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
