"""`run_bench` on small sizes: the schema, planted shares, and counts that agree with the known ones."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ecgcmr.training.bench import run as bench_run
from ecgcmr.training.bench.cohort import write_noise_cohort
from ecgcmr.training.bench.flops import count_flops
from ecgcmr.training.bench.machine import PeakMemory, peak_gflops
from ecgcmr.training.bench.options import BenchOptions, parse_precisions
from ecgcmr.training.bench.presets import STAGES, run_config
from ecgcmr.training.bench.report import BenchReport, Spread
from ecgcmr.training.bench.run import run_bench
from ecgcmr.training.bench.stages import Embedding, build, flops_of_embedding, flops_of_step, time_steps

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_cohort(tmp_path_factory.mktemp("bench") / "noise", 24)


@pytest.fixture(scope="module")
def report(noise: Path) -> BenchReport:
    torch.set_num_threads(1)
    options = BenchOptions(
        "nano", seconds=0.01, batch_size=4, threads=1, precisions=("fp32",), cohort=noise, labels=("label_0",)
    )
    return run_bench(options)


def test_report__has_every_stage_and_survives_json(report: BenchReport, tmp_path: Path) -> None:
    report.write(tmp_path / "deep" / "bench.json")
    assert BenchReport.read(tmp_path / "deep" / "bench.json") == report
    assert [found.stage for found in report.stages] == list(STAGES)
    assert report.machine.threads == 1
    for found in report.stages:
        rate = found.samples_per_second
        assert rate.min <= rate.median <= rate.max
        assert found.repeats >= 3
        assert 50 < found.peak_memory_mib < 20_000
        assert (found.share_waited is None) == (found.stage in ("embed", "load"))
        if found.stage == "load":
            assert found.gflops_per_sample is None
            continue
        assert found.gflops_per_second == pytest.approx(rate.median * found.gflops_per_sample)
        assert found.share_of_peak == pytest.approx(found.gflops_per_second / report.peak_gflops["fp32"])
        assert 0 < found.share_of_peak < 1.2


def test_schema__is_the_one_that_others_may_rely_on(report: BenchReport) -> None:
    written = json.loads(report.model_dump_json())
    assert sorted(written) == ["format_version", "left_out", "machine", "peak_gflops", "preset", "stages"]
    assert sorted(written["stages"][0]) == [
        "batch_size",
        "gflops_per_sample",
        "gflops_per_second",
        "peak_memory_mib",
        "precision",
        "repeats",
        "samples_per_second",
        "share_of_peak",
        "share_waited",
        "stage",
    ]
    assert sorted(written["machine"]) == [
        "cores",
        "device",
        "keeps_freed_memory",
        "load_average",
        "processor",
        "threads",
        "torch",
    ]
    for key in written:
        with pytest.raises(ValidationError):
            BenchReport.model_validate({**written, key: "wrong"} if key != "preset" else {**written, key: 3})
    with pytest.raises(ValidationError):
        BenchReport.model_validate({**written, "more": 1})


def test_counted_operations__are_those_of_a_product_and_its_gradient() -> None:
    layer = nn.Linear(30, 50, bias=False)
    x = torch.randn(7, 30, requires_grad=True)
    assert count_flops(lambda: layer(x).sum(), backward=False) == 2 * 7 * 30 * 50
    assert count_flops(lambda: layer(x).sum()) == 3 * 2 * 7 * 30 * 50


def test_counted_operations__include_fused_attention() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 8)
    counted = count_flops(lambda: nn.functional.scaled_dot_product_attention(q, k, v).sum(), backward=False)
    assert counted == 2 * (2 * 2 * 4 * 9 * 9 * 8)


def test_counted_operations__are_the_known_ones_of_the_published_sizes(noise: Path) -> None:
    """5.45 G for a step of the masked autoencoder and 3.64 G for an embedding; 24 + 11 G for an alignment step."""
    masked, paired = (run_config("reference", stage, noise, 4) for stage in ("mae", "align"))
    mae, data = build(masked)
    assert flops_of_step(mae, masked, data, CPU) / 1e9 == pytest.approx(5.45, rel=0.02)
    align, pairs = build(paired)
    embedding = Embedding(align, CPU, low=False)
    assert flops_of_embedding(embedding, pairs) / 1e9 == pytest.approx(3.64, rel=0.02)
    counted = flops_of_step(align, paired, pairs, CPU) / 1e9
    assert counted == pytest.approx(24 + 11, rel=0.03)


def test_share_waited__is_what_a_slow_loader_costs(noise: Path) -> None:
    _, data = build(run_config("nano", "mae", noise, 4))

    class Slow:
        def __len__(self) -> int:
            return len(data)

        def batch(self, indices: object) -> object:
            time.sleep(0.06)
            return data.batch(np.asarray(indices))

    def step(batch: object) -> None:
        time.sleep(0.02)

    timing = time_steps(step, Slow(), 4, CPU, 0.5)  # type: ignore[arg-type]
    assert timing.share_waited == pytest.approx(2 / 3, abs=0.12)  # one batch is loaded while a step computes
    assert time_steps(lambda batch: time.sleep(0.02), data, 4, CPU, 0.2).share_waited < 0.3


def test_peak_memory__sees_what_is_held_for_a_moment() -> None:
    with PeakMemory(CPU) as before:
        pass
    with PeakMemory(CPU) as memory:
        held = np.ones(100 * 2**17)  # 100 MiB
        time.sleep(0.05)
        del held
    assert memory.peak_mib - before.peak_mib == pytest.approx(100, abs=25)


def test_peak__grows_not_with_the_number_of_repeats() -> None:
    assert peak_gflops(CPU, torch.float32, 0.01, side=64) > 0
    assert Spread.over([3.0, 1.0, 2.0]) == Spread(median=2.0, min=1.0, max=3.0)


def test_emulated_bfloat16__is_left_out_and_said(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        speedup = 0.04

    monkeypatch.setattr(bench_run, "choose_precision", lambda module, device: Slow())
    options = BenchOptions("nano", ("embed", "supervised"), 0.01, batch_size=2, threads=1, cohort=noise)
    found = run_bench(options)
    assert [(r.stage, r.precision) for r in found.stages] == [("embed", "fp32")]
    assert "emulates" in found.left_out["bf16"]
    assert "--labels" in found.left_out["supervised"]
    with pytest.raises(ValueError, match="measure fp32"):
        run_bench(BenchOptions("nano", ("embed",), 0.01, precisions=("bf16",), cohort=noise))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "huge"}, "nano, tiny, reference"),
        ({"stages": ("mae", "walk")}, "walk; choose among mae"),
        ({"stages": ()}, "no stage"),
        ({"seconds": 0.0}, "above 0"),
        ({"batch_size": 1}, "at least 2"),
        ({"threads": 0}, "at least 1"),
        ({"precisions": ()}, "fp32, bf16"),
    ],
)
def test_options__refuse_by_name(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchOptions(**wrong)  # type: ignore[arg-type]


def test_device_that_is_not_there__is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="--device is 'tpu'"):
        run_bench(BenchOptions("nano", ("embed",), 0.01, device="tpu"))
    with pytest.raises(ValueError, match="choose fp32, bf16"):
        parse_precisions(("fp16",))
