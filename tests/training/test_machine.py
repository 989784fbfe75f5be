"""What depends on the machine: memory, precision, number of processes, random streams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import accelerate.tracking
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ecgcmr.training.distributed import check_processes, check_trackers
from ecgcmr.training.precision import WORTH_IT, agree_on_precision, choose_precision
from ecgcmr.training.randomness import derive_seed, torch_generator

ROOT = Path(__file__).parents[2]

FAULTS = """
import resource, sys, numpy as np
from ecgcmr.training.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def use():
    x = np.empty(2**23); x[::512] = 1.0
use(); use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): use()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_keep_freed_memory__large_blocks_are_not_faulted_in_again() -> None:
    found = {}
    for how in ("keep", "leave"):
        program = [sys.executable, "-c", FAULTS, how]
        out = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        found[how] = (int(out[0]), int(out[1]))
    if not found["keep"][0]:
        pytest.skip("no glibc here")
    assert found["keep"][1] * 10 < found["leave"][1]


def test_choose_precision__follows_its_measurement() -> None:
    choice = choose_precision(nn.Sequential(nn.Linear(8, 16), nn.Linear(32, 64)), torch.device("cpu"))
    assert choice.width == (32, 64)
    assert choice.precision == ("bf16" if choice.speedup >= WORTH_IT else "no")
    assert f"{choice.speedup:.1f} times" in str(choice)


def test_agree_on_precision__what_is_asked_is_not_measured() -> None:
    for asked in ("bf16", "no"):
        assert agree_on_precision(asked, nn.Identity(), torch.device("cpu")) == asked
    assert agree_on_precision("auto", nn.Linear(8, 8), torch.device("cpu")) in ("bf16", "no")


def test_check_processes__asked_and_started_must_agree() -> None:
    check_processes(None, 1, {})
    check_processes(2, 2, {})
    with pytest.raises(ValueError, match=r"train.processes is 2, but 1 process has started.*cpu_2\.yaml"):
        check_processes(2, 1, {})
    with pytest.raises(ValueError, match="2 processes have started"):
        check_processes(1, 2, {})


def test_check_processes__knows_the_trap_of_accelerate() -> None:
    trapped = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}
    with pytest.raises(ValueError, match=r"one plain process.*cpu_2\.yaml"):
        check_processes(None, 1, trapped)
    check_processes(None, 1, {"ACCELERATE_MIXED_PRECISION": "no"})
    check_processes(None, 1, trapped | {"WORLD_SIZE": "1"})


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**31), min_size=1, max_size=3))
def test_derive_seed__each_purpose_and_index_has_its_own(seed: int, indices: list[int]) -> None:
    own = derive_seed(seed, "step", *indices)
    assert 0 <= own < 2**63
    assert own == derive_seed(seed, "step", *indices)
    others = {
        derive_seed(seed, "evaluation", *indices),
        derive_seed(seed + 1, "step", *indices),
        derive_seed(seed, "step", *indices[:-1], indices[-1] + 1),
    }
    assert own not in others
    assert len(others) == 3


def test_torch_generator__same_numbers_again() -> None:
    first, second = (torch.rand(3, generator=torch_generator("cpu", 1, "x", 2)) for _ in range(2))
    assert torch.equal(first, second)


def test_check_trackers__a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["wandb"])
    check_trackers(["wandb"])
    with pytest.raises(ValueError, match=r"train\.trackers: the package of 'tensorboard' is not installed.*wandb"):
        check_trackers(["wandb", "tensorboard"])
    with pytest.raises(ValueError, match=r"train\.trackers: 'tensorbord' is unknown; .*tensorboard"):
        check_trackers(["tensorbord"])
