"""Write the tables of docs/performance.md and docs/scaling.md from the numbers in docs/results/.

python benchmarks/targets.py --out docs/results/performance.json     measures speed, on an idle machine
python scripts/fill_performance.py [--count] [--check]               writes the tables

`--count` counts operations and bytes of the presets anew (a minute), `--check` measures three of them on this machine
(two minutes, idle). Both go to docs/results/scaling.json. A test holds the pages to those files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fill_results import filled, markdown

from ecgcmr.training.bench.scaling import GIB, Cluster, Work, hours, largest_batch, plan_step, what_breaks

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
Table = Callable[[Mapping[str, Any]], str]

COUNTED = (("tiny", "reference"), ("small", "small"), ("base", "base"))
"""Title and preset: all with the reference's image tower, ResNet-50."""

UTILIZATION = {"tiny": 0.15, "small": 0.2, "base": 0.35}
BATCH = {"mae": 512, "align": 256}
COHORTS = (("40 thousand", 40_000, 400), ("1 million", 1_000_000, 100), ("10 million", 10_000_000, 20))
"""Title, recordings, epochs."""

GPUS = (1, 8, 64)
CHECKED = ("tiny", "small", "base")
CHECK_BATCH = 8


def times(spread: Mapping[str, float]) -> str:
    """`2.10 [2.00, 2.20]`."""
    return f"{spread['median']:.2f} [{spread['min']:.2f}, {spread['max']:.2f}]"


def rate(spread: Mapping[str, float]) -> str:
    """A rate with three digits."""
    value = spread["median"]
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def targets_table(found: Mapping[str, Any]) -> str:
    """Rates, ratios with smallest and largest, targets, and whether they are met."""
    head = [
        "part", "reference, samples/s", "with the allocator setting", "ours", "times as shipped", "must",
        "times with the setting", "must", "aim", "met",
    ]  # fmt: skip
    rows = []
    for row in found["rows"].values():
        wanted = [f"{value:g}" if value is not None else "–" for value in (row["must_malloc"], row["aim"])]
        rows.append(
            [
                row["title"], rate(row["reference"]), rate(row["reference_malloc"]), rate(row["ours"]),
                times(row["times_shipped"]), f"{row['must_shipped']:g}", times(row["times_malloc"]), *wanted,
                "yes" if row["met"] else "**no**",
            ]
        )  # fmt: skip
    return markdown(head, rows)


def agreement_table(found: Mapping[str, Any]) -> str:
    """How far both sides agree, before anything was timed."""
    rows = []
    for row in found["rows"].values():
        check = row.get("agreement", {})
        if "loss" in check:
            rows.append([row["title"], f"loss {check['loss']:.1e}, gradient {check['gradient']:.1e}"])
        elif check:
            rows.append([row["title"], f"cosine {check['cosine']:.7f}, largest difference {check['difference']:.1e}"])
    return markdown(["part", "relative difference of ours to the reference's arithmetic"], rows)


def shares_table(found: Mapping[str, Any]) -> str:
    """Part of the matrix peak."""
    rows = [
        [row["title"], f"{100 * row['share']:.0f} %", "–" if row["must"] is None else f"{100 * row['must']:.0f} %"]
        for row in found["shares"]
    ]
    return markdown(["part", "share of the peak in that precision", "must"], rows)


def memory_table(found: Mapping[str, Any]) -> str:
    """Peak memory of the alignment at batch 256, extrapolated."""
    rows = []
    for side, about in found["memory"].items():
        sizes = sorted((key for key in about if key.startswith("mib_at_")), key=lambda key: int(key[7:]))
        measured = ", ".join(f"{about[key] / 1024:.1f} GiB at {key[7:]}" for key in sizes)
        pieces = about.get("gib_at_256_in_16_pieces")
        rows.append([side, measured, f"{about['gib_at_256']:.1f}", "–" if pieces is None else f"{pieces:.1f}"])
    return markdown(["side", "measured", "batch 256 [GiB], extrapolated", "with train.micro_batches=16"], rows)


def opening_table(found: Mapping[str, Any]) -> str:
    """Opening the data."""
    about = found["opening"]
    rows = [
        [
            "reference: tensor files",
            f"{1e3 * about['reference_seconds']:,.0f} ms",
            f"{about['reference_mib']:,.0f} MiB",
        ],
        ["ours: a cohort", f"{1e3 * about['ours_seconds']:.1f} ms", f"{about['ours_mib']:.1f} MiB"],
    ]
    return markdown([f"opening {about['subjects']:,} subjects", "time", "memory"], rows)


def profile_table(found: Mapping[str, Any]) -> str:
    """Operators of a step of the masked autoencoder by their own time."""
    both = found["profile"]
    rows = []
    for low, full in zip(both["bf16"], both["fp32"], strict=True):
        cells = [[f"`{op['operator'][:48]}`", f"{100 * op['share']:.0f} %"] for op in (low, full)]
        rows.append([*cells[0], *cells[1]])
    return markdown(["bf16: operator", "own time", "fp32: operator", "own time"], rows)


def machine_line(found: Mapping[str, Any]) -> str:
    """Where it was measured, and whether it was quiet there."""
    machine, peak = found["machine"], found["peak_gflops"]
    before, after = machine["load_average"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}; matrix peak of two threads "
        f"{peak['float32']:.0f} GFLOP/s in float32 and {peak['bfloat16']:.0f} in bfloat16; load average {before:.1f} "
        f"before and {after:.1f} after."
    )


def works(found: Mapping[str, Any]) -> dict[str, Work]:
    """Counted work by title and stage."""
    return {name: Work(**about) for name, about in found["works"].items()}


def cluster(name: str, gpus: int) -> Cluster:
    """The assumed cluster at the assumed utilization of a model."""
    return Cluster(gpus, utilization=UTILIZATION[name.partition(",")[0]])


def batch_of(name: str) -> int:
    """Samples of a GPU."""
    return BATCH[name.partition(", ")[2]]


def work_table(found: Mapping[str, Any]) -> str:
    """What a sample costs."""
    rows = [
        [
            name, f"{work.flops / 1e9:.2f}", f"{work.parameters / 1e6:.1f}", f"{work.saved_bytes / 2**20:.0f}",
            f"{work.read_bytes / 1e3:.0f}",
        ]
        for name, work in works(found).items()
    ]  # fmt: skip
    return markdown(
        ["", "GFLOP a sample", "parameters [10⁶]", "kept for backward [MiB a sample]", "read [kB a sample]"], rows
    )


def hours_table(found: Mapping[str, Any]) -> str:
    """Hours of whole runs."""
    head = ["", *(f"{title}, {epochs} epochs: {' / '.join(map(str, GPUS))} GPUs [h]" for title, _, epochs in COHORTS)]
    rows = []
    for name, work in works(found).items():
        cells = []
        for _, n, epochs in COHORTS:
            took = [hours(work, cluster(name, gpus), batch_of(name), n * epochs) for gpus in GPUS]
            cells.append(" / ".join(f"{h:,.1f}" if h < 100 else f"{h:,.0f}" for h in took))
        rows.append([name, *cells])
    return markdown(head, rows)


def step_table(found: Mapping[str, Any]) -> str:
    """Memory and communication of a step on 8 and on 64 GPUs."""
    rows = []
    for name, work in works(found).items():
        for gpus in GPUS[1:]:
            where = cluster(name, gpus)
            plan = plan_step(work, where, batch_of(name))
            rows.append(
                [
                    name, str(gpus), f"{1e3 * plan.compute_s:.0f}", f"{1e3 * plan.exposed_s:.1f}",
                    f"{plan.traffic.ddp / 2**20:,.0f}", f"{plan.traffic.fsdp / 2**20:,.0f}",
                    f"{plan.traffic.gather / 2**20:,.1f}", f"{plan.memory / GIB:.1f}", f"{plan.memory_fsdp / GIB:.1f}",
                    f"{plan.read / 1e6:,.0f}", f"{largest_batch(work, where):,}",
                ]
            )  # fmt: skip
    head = [
        "", "GPUs", "compute [ms]", "exposed [ms]", "DDP all-reduce [MiB]", "FSDP [MiB]", "projections [MiB]",
        "memory, DDP [GiB]", "FSDP [GiB]", "a node reads [MB/s]", "largest batch of a GPU",
    ]  # fmt: skip
    return markdown(head, rows)


def breaks_table(found: Mapping[str, Any]) -> str:
    """What breaks first as batch, processes and cohort grow."""
    every, rows = works(found), []
    for name in ("tiny, align", "base, align"):
        for gpus, batch in ((8, 256), (64, 256), (64, 1024), (512, 1024), (512, 4096)):
            where = cluster(name, gpus)
            plan = plan_step(every[name], where, batch)
            over = what_breaks(every[name], where, batch, 40_000)
            rows.append(
                [
                    name, str(gpus), f"{batch:,}", f"{gpus * batch:,}", f"{plan.logits / GIB:.2f}",
                    f"{plan.logits_whole / GIB:,.1f}", f"{1e3 * plan.traffic.gather / where.bandwidth:.1f}",
                    ", ".join(over) or "nothing",
                ]
            )  # fmt: skip
    head = [
        "", "GPUs", "batch of a GPU", "global batch", "own rows of the logits [GiB]", "whole matrix [GiB]",
        "all-gather [ms]", "over its limit, worst first",
    ]  # fmt: skip
    return markdown(head, rows)


def data_table(found: Mapping[str, Any]) -> str:
    """Size of the data, and what a node of eight GPUs reads."""
    rows = []
    for title, n, _ in COHORTS:
        for name, work in works(found).items():
            if not name.startswith("tiny"):
                continue
            where = cluster(name, 8)
            plan, over = plan_step(work, where, batch_of(name)), what_breaks(work, where, batch_of(name), n)
            fits = "memory" if n * work.read_bytes <= where.host_memory else "disk"
            said = ", ".join(name for name in over if name in ("page cache", "disk")) or "nothing"
            each = plan.batch / plan.seconds
            rows.append(
                [
                    title,
                    name,
                    f"{n * work.read_bytes / 1e9:,.0f}",
                    fits,
                    f"{each:,.0f}",
                    f"{plan.read / 1e6:,.0f}",
                    said,
                ]
            )
    head = [
        "recordings", "", "prepared data [GB]", "second epoch reads from", "samples a second of a GPU",
        "8 GPUs read [MB/s]", "over its limit",
    ]  # fmt: skip
    return markdown(head, rows)


def check_table(found: Mapping[str, Any]) -> str:
    """Rates on the CPU, predicted from one of them by counted operations alone."""
    check = found["check"]
    anchor = check[CHECKED[0]]
    rows = []
    for name, about in check.items():
        predicted = anchor["samples_per_second"] * anchor["gflops_per_sample"] / about["gflops_per_sample"]
        rows.append(
            [
                name, f"{about['gflops_per_sample']:.2f}", f"{about['samples_per_second']:.2f}", f"{predicted:.2f}",
                f"{about['samples_per_second'] / predicted:.2f}",
            ]
        )  # fmt: skip
    return markdown(
        ["MAE step, float32", "GFLOP a sample", "measured [samples/s]", "predicted", "measured / predicted"], rows
    )


PLACES: tuple[tuple[str, str, str, Table], ...] = (
    ("docs/performance.md", "machine", "performance.json", machine_line),
    ("docs/performance.md", "targets", "performance.json", targets_table),
    ("docs/performance.md", "agreement", "performance.json", agreement_table),
    ("docs/performance.md", "shares", "performance.json", shares_table),
    ("docs/performance.md", "memory", "performance.json", memory_table),
    ("docs/performance.md", "opening", "performance.json", opening_table),
    ("docs/performance.md", "profile", "performance.json", profile_table),
    ("docs/scaling.md", "work", "scaling.json", work_table),
    ("docs/scaling.md", "hours", "scaling.json", hours_table),
    ("docs/scaling.md", "step", "scaling.json", step_table),
    ("docs/scaling.md", "breaks", "scaling.json", breaks_table),
    ("docs/scaling.md", "data", "scaling.json", data_table),
    ("docs/scaling.md", "check", "scaling.json", check_table),
)
"""Page, marker, results file, table."""


def table_of(make: Table, path: Path) -> str:
    """A table, or a line that says that its numbers are not there: a part may be measured later than others."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    try:
        return make(found)
    except KeyError as missing:
        return f"Not measured yet ({missing.args[0]})."


def count() -> dict[str, Any]:
    """Count operations and bytes of all presets."""
    from ecgcmr.training.bench.cohort import write_noise_cohort
    from ecgcmr.training.bench.count import count_work

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_noise_cohort(Path(folder) / "cohort", 16)
        for title, preset in COUNTED:
            for stage in BATCH:
                name = f"{title}, {stage}"
                found[name] = asdict(replace(count_work(preset, stage, cohort), name=name))
    return found


def check() -> dict[str, Any]:
    """Measure the MAE step of three sizes on this machine, one round after the other; medians."""
    from ecgcmr.training.bench.options import BenchOptions
    from ecgcmr.training.bench.run import run_bench

    found: dict[str, Any] = {}
    for name in CHECKED:
        preset = dict(COUNTED)[name]
        options = BenchOptions(preset, ("mae",), 8.0, precisions=("fp32",), batch_size=CHECK_BATCH)
        (result,) = run_bench(options).stages
        rates = result.samples_per_second
        found[name] = {"samples_per_second": rates.median, "gflops_per_sample": result.gflops_per_sample}
    return found


def main() -> None:
    """Measure what is asked, then write every table whose numbers are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    path = RESULTS / "scaling.json"
    scaling = json.loads(path.read_text()) if path.is_file() else {}
    if arguments.count:
        scaling["works"] = count()
    if arguments.check:
        scaling["check"] = check()
    if arguments.count or arguments.check:
        path.write_text(json.dumps(scaling, indent=1) + "\n")
    for page, marker, name, make in PLACES:
        target = ROOT / page
        target.write_text(filled(target.read_text(), marker, table_of(make, RESULTS / name)))


if __name__ == "__main__":
    main()
