"""The files in configs/accelerate: what accelerate reads in them, and the command that each begins with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from ecgcmr.training.sharding import sharding_asked

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs/accelerate").glob("*.yaml"))
KINDS = {
    "single": (DistributedType.NO, 1, 1),
    "cpu_2": (DistributedType.MULTI_GPU, 2, 1),
    "multi_gpu": (DistributedType.MULTI_GPU, 8, 1),
    "multi_node": (DistributedType.MULTI_GPU, 16, 2),
    "fsdp": (DistributedType.FSDP, 8, 1),
    "fsdp_cpu_2": (DistributedType.FSDP, 2, 1),
}
SLURM = ["--num_machines", "4", "--num_processes", "32", "--machine_rank", "3", "--main_process_ip", "10.0.0.7"]


def environment_of(name: str, *more: str) -> dict[str, str]:
    """What the launcher would give to the processes."""
    path = str(ROOT / f"configs/accelerate/{name}.yaml")
    arguments = launch_command_parser().parse_args(["--config_file", path, *more, "scripts/pretrain.py"])
    checked, _, _ = _validate_launch_command(arguments)
    return dict(prepare_multi_gpu_env(checked)) | {key: str(value) for key, value in vars(checked).items()}


def test_files__are_those_that_are_described_here() -> None:
    assert {path.stem for path in FILES} == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file__is_read_by_accelerate_and_begins_with_its_command(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type, config.num_processes, config.num_machines) == KINDS[path.stem]
    assert config.mixed_precision == "no", "train.precision decides"
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    command = " ".join(line.removeprefix("#").strip().removesuffix("\\") for line in head)
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in command
    assert "scripts/pretrain.py --config" in command
    assert path.read_text().startswith("#")


@pytest.mark.parametrize("name", ["fsdp", "fsdp_cpu_2"])
def test_fsdp_file__asks_for_what_sharding_supports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment_of(name)
    for key, value in found.items():
        if re.match(r"ACCELERATE_|FSDP_", key):
            monkeypatch.setenv(key, value)
    plugin = sharding_asked()
    assert plugin is not None
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    if name == "fsdp":
        assert plugin.min_num_params == 100_000
    else:
        assert plugin.transformer_cls_names_to_wrap == ["Block", "BasicBlock", "Bottleneck"]


@pytest.mark.parametrize("name", ["cpu_2", "multi_gpu", "multi_node"])
def test_file_without_fsdp__asks_for_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert environment_of(name, *(SLURM if name == "multi_node" else ())).get("ACCELERATE_USE_FSDP") != "true"


def test_multi_node__is_filled_in_by_slurm() -> None:
    """The command line of the file's head overrides what differs from job to job."""
    found = environment_of("multi_node", *SLURM)
    assert (found["nnodes"], found["nproc_per_node"], found["node_rank"]) == ("4", "8", "3")
    assert (found["rdzv_backend"], found["rdzv_endpoint"]) == ("static", "10.0.0.7:29500")
    options = re.findall(r"--(\w+) ", (ROOT / "configs/accelerate/multi_node.yaml").read_text())
    assert {option.lstrip("-") for option in SLURM[::2]} <= set(options)
