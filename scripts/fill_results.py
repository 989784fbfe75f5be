"""Put measured numbers into the pages: trim results.json files into docs/results/ and write the tables made of them.

python scripts/fill_results.py [--demo runs/demo/results.json] [--real runs/real_ecg/results.json]
                               [--released runs/release/study/*/results.json]
                               [--alignment runs/alignment_study/results.json]

Without arguments the tables are written anew from docs/results/. A test holds the pages to those files.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr.evaluation.results import read_results, write_results
from ecgcmr.study.config import load_study
from ecgcmr.study.table import study_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
METRICS = ("r2", "auroc", "auprc", "recall_at_10", "median_rank", "r2_diff", "auroc_diff")
DEMO_ARMS = {
    "scratch": "Supervised from scratch",
    "ecg_mae": "ECG MAE",
    "aligned": "Aligned without MAE",
    "mae_aligned": "**MAE + aligned**",
    "cmr": "CMR encoder itself (ceiling)",
}
REAL_ARMS = {
    "scratch": "from scratch",
    "mae_real": "MAE on real ECGs",
    "mae_simulated": "MAE on simulated ECGs",
    "aligned_simulated": "MAE + aligned, simulated",
    "mae_simulated_then_real": "MAE on simulated, then on real ECGs",
}
PROTOCOLS = {"probe": "logistic probe", "finetune": "fine-tuned"}
RELEASED_COUNTS = (50, 200, None)
_COUNT_TITLES = ("50 labels", "200 labels", "all labels")
REAL_LABELS = ("MI", "STTC", "CD", "NORM")


def trim(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows that pages show: means over seeds of the main metrics."""
    chosen = table[table["seed"].isna() & table["metric"].isin(METRICS)]
    rows = chosen.round({"value": 4, "lo": 4, "hi": 4}).astype(object)
    return rows.where(rows.notna(), None).to_dict("records")  # type: ignore[return-value]


def cell(table: pd.DataFrame, **where: object) -> str:
    """`value [lo, hi]` of the one row that fits, or a dash."""
    chosen = table
    for column, value in where.items():
        chosen = chosen[chosen[column].isna() if value is None else chosen[column] == value]
    if chosen.empty and (where.get("protocol") == "retrieval" or where.get("target") == "macro"):
        return "–"  # an encoder without a partner cannot retrieve; not every encoder was studied with all labels
    assert len(chosen) == 1, where
    row = chosen.iloc[0]
    sign = "+" if str(row["metric"]).endswith("_diff") else ""
    return f"{row['value']:{sign}.2f} [{row['lo']:.2f}, {row['hi']:.2f}]".replace("-", "−")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def demo_table(table: pd.DataFrame) -> str:
    """R2 of LVEDV and LVM at the fewest and at all labels, and recall at 10."""
    counts = sorted(int(count) for count in table["n_labels"].dropna().unique())
    wanted = [(target, count) for count in (counts[0], counts[-1]) for target in ("LVEDV", "LVM")]
    head = ["arm", *(f"{target} R², {count:,} labels" for target, count in wanted), "R@10, ECG → CMR"]
    rows = []
    for arm, title in DEMO_ARMS.items():
        protocol = "finetune" if arm == "scratch" else "probe"
        values = [
            cell(table, arm=arm, protocol=protocol, target=target, n_labels=count, metric="r2", compared_to=None)
            for target, count in wanted
        ]
        found = cell(table, arm=arm, protocol="retrieval", target="ecg_to_cmr", metric="recall_at_10")
        rows.append([title, *values, found])
    return markdown(head, rows)


def real_table(table: pd.DataFrame) -> str:
    """AUROC of every arm and protocol on fold 8."""
    rows = []
    for protocol in ("finetune", "probe"):
        arms = {arm: title for arm, title in REAL_ARMS.items() if (arm, protocol) != ("scratch", "probe")}
        for arm, title in arms.items():
            values = [cell(table, arm=arm, protocol=protocol, target=name, metric="auroc") for name in REAL_LABELS]
            rows.append([PROTOCOLS[protocol], title, *values])
    return markdown(["protocol", "encoder", *REAL_LABELS], rows)


def real_differences(table: pd.DataFrame) -> str:
    """Paired differences of AUROC, fine-tuned, to training from scratch."""
    rows = [
        [
            title,
            *(cell(table, arm=arm, target=name, metric="auroc_diff", compared_to="scratch") for name in REAL_LABELS),
        ]
        for arm, title in REAL_ARMS.items()
        if arm != "scratch"
    ]
    return markdown(["fine-tuned, minus from scratch", *REAL_LABELS], rows)


def released_table(table: pd.DataFrame) -> str:
    """Macro AUROC of the released encoders and of the same networks from scratch, by number of labels."""
    rows = []
    for arm in _released(table):
        for name, title in ((arm, f"`{arm}`"), (f"scratch:{arm}", "the same network, random")):
            for protocol, words in PROTOCOLS.items():
                values = [
                    cell(table, arm=name, protocol=protocol, target="macro", metric="auroc", n_labels=count)
                    for count in RELEASED_COUNTS
                ]
                rows.append([title, words, *values])
    return markdown(["encoder", "protocol", *_COUNT_TITLES], rows)


def released_differences(table: pd.DataFrame) -> str:
    """Paired differences of macro AUROC of the released encoders to the same networks from scratch."""
    rows = []
    for arm in _released(table):
        scratch = f"scratch:{arm}"
        for protocol, against, words in (
            ("probe", scratch, "probe − probe of the untrained network"),
            ("probe", f"{scratch} fine-tuned", "probe − network trained from scratch"),
            ("finetune", scratch, "fine-tuned − network trained from scratch"),
        ):
            values = [
                cell(
                    table, arm=arm, protocol=protocol, target="macro", metric="auroc_diff", n_labels=count,
                    compared_to=against,
                )
                for count in RELEASED_COUNTS
            ]  # fmt: skip
            rows.append([f"`{arm}`", words, *values])
    return markdown(["encoder", "difference", *_COUNT_TITLES], rows)


def released_models(_: pd.DataFrame) -> str:
    """Rows of the released encoders with two numbers of their cards."""
    rows = []
    for size, network in (("nano", "ViT 96/4/4"), ("tiny", "ViT 384/3/6")):
        for stage, words in (
            ("mae", "masked modelling, 21,000 simulated hearts"),
            ("aligned", "then aligned with simulated CMR"),
            ("zscored", "then 1,080 real subjects without labels"),
        ):
            name = f"ecg_{size}_{stage}"
            card = json.loads((ROOT / "weights" / name / "config.json").read_text())
            found = {metric["name"]: metric for metric in card["metrics"]}
            lvm = found.get("R² of LVM (head)", found.get("R² of LVM (probe of the embedding)"))
            rows.append([f"`{name}`", network, words, _of_card(lvm), _of_card(found.get("recall at 10, ECG → CMR"))])
    head = ["released", "network", "trained on", "R² of LV mass from the ECG", "ECG → CMR, recall at 10 of 200"]
    return markdown(head, rows)


def _of_card(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return "–"
    return f"{metric['value']:.2f} [{metric['lo']:.2f}, {metric['hi']:.2f}]"


def _released(table: pd.DataFrame) -> list[str]:
    return [arm for arm in dict.fromkeys(table["arm"]) if not arm.startswith("scratch:")]


def alignment_table(table: pd.DataFrame, measures: Sequence[str]) -> str:
    """Ways to align by some measures, with differences to one of them."""
    study = load_study(ROOT / "configs" / "study" / "alignment.yaml")
    titles = {arm: spec.title for arm, spec in study.arms.items() if (table["arm"] == arm).any()}
    return markdown(*study_table(table, titles, study.compare_to, measures))


def alignment_size(table: pd.DataFrame) -> str:
    """How much the study behind the tables had to go by."""
    probes = table[table["protocol"] == "probe"]
    held_out = int(probes["n_subjects"].max())
    counts = " and ".join(f"{int(count):,}" for count in sorted(probes["n_labels"].dropna().unique()))
    text = f"{held_out:,} held-out simulated subjects; probes of {counts} labelled ones; means of three trainings."
    if held_out < 100:
        text += " **Too few to tell methods apart: this is a trial of the machinery, not a result.**"
    return text


PLACES: tuple[tuple[str, str, str, Callable[[pd.DataFrame], str]], ...] = (
    ("README.md", "demo-table", "demo_standard.json", demo_table),
    ("docs/real_ecg.md", "real-table", "real_ecg.json", real_table),
    ("docs/real_ecg.md", "real-differences", "real_ecg.json", real_differences),
    ("README.md", "released-models", "released.json", released_models),
    ("README.md", "released-differences", "released.json", released_differences),
    ("docs/released_weights.md", "released-table", "released.json", released_table),
    ("docs/released_weights.md", "released-differences", "released.json", released_differences),
    ("docs/alignments.md", "alignment-size", "alignment_study.json", alignment_size),
    ("docs/alignments.md", "alignment-r2", "alignment_study.json", lambda table: alignment_table(table, ["r2"])),
    ("docs/alignments.md", "alignment-auroc", "alignment_study.json", lambda table: alignment_table(table, ["auroc"])),
    (
        "docs/alignments.md", "alignment-retrieval", "alignment_study.json",
        lambda table: alignment_table(table, ["retrieval"]),
    ),
)  # fmt: skip
"""Page, marker, results file, table."""


def filled(text: str, marker: str, content: str) -> str:
    """The text with `content` between the marker's two comments.

    Raises:
        ValueError: If the markers are not there.
    """
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(\n?<!-- /{marker} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no '<!-- {marker} -->' ... '<!-- /{marker} -->' in the page")
    return pattern.sub(lambda found: f"{found[1]}{content}\n<!-- /{marker} -->", text)


def main() -> None:
    """Trim what is given, then write every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="results.json of a standard demo")
    parser.add_argument("--real", type=Path, help="results.json of the study on real ECGs")
    parser.add_argument("--released", type=Path, nargs="+", help="results.json of the studies of released encoders")
    parser.add_argument("--alignment", type=Path, help="results.json of the study of ways to align")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    given_files = (
        (arguments.demo, "demo_standard.json"),
        (arguments.real, "real_ecg.json"),
    )
    for given, name in given_files:
        if given is not None:
            write_results(RESULTS / name, trim(read_results(given)))
    if arguments.alignment is not None:
        everything = trim(read_results(arguments.alignment))
        kept = [row for row in everything if row["target"] == "macro" or row["protocol"] == "retrieval"]
        write_results(RESULTS / "alignment_study.json", kept)
    if arguments.released:
        studies = [row for path in arguments.released for row in trim(read_results(path))]
        write_results(RESULTS / "released.json", [row for row in studies if row["target"] == "macro"])
    for page, marker, name, make in PLACES:
        path = ROOT / page
        path.write_text(filled(path.read_text(), marker, make(read_results(RESULTS / name))))


if __name__ == "__main__":
    main()
