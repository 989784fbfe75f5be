"""What int8 weights do to an ECG encoder: to its embeddings, and to what a probe or its head makes of them.

    python benchmarks/quantization.py [--weights SOURCE | --preset tiny] [--cohort FOLDER] [--out FILE.json]

The encoder is exported in float32 and in int8 (`ecgcmr weights export --int8`). A logistic probe for each diagnosis
and a ridge probe for each phenotype are fitted on float32 embeddings of one half of the subjects; the other half is
scored with float32 and with int8 embeddings, and once more with probes that were themselves fitted on int8. The rule
of this project: int8 is offered if the AUROC (mean over diagnoses) stays within .005; R2 and intervals of the paired
difference over subjects are told beside it. Where the weights have a head, its own outputs are compared as well.
Without --cohort, subjects are simulated into the temporary folder. Research software; the subjects are simulated.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.evaluation.bootstrap import Bootstrapped, bootstrap_metrics, draw_subjects
from ecgcmr.evaluation.probes import LogisticProbe, RidgeProbe
from ecgcmr.hub.onnx_export import export_onnx
from ecgcmr.hub.onnx_model import OnnxModel
from ecgcmr.hub.weights import load_weights, save_weights
from ecgcmr.models import create_ecg_encoder

ALLOWED = 0.005
MEASURED = ("LVM", "LVEDV", "LVESV", "LVEF", "RVEDV", "LAV_max", "WT_global", "Ecc_global")
FEWEST = 5  # cases in each half, else an AUROC says nothing
RANDOM = {"nano": ("highpass", 250), "tiny": ("highpass500", 2500)}
Array = NDArray[np.float64]


def random_weights(preset: str, folder: Path) -> Path:
    """Weights that know nothing: for the arithmetic, not for the labels."""
    torch.manual_seed(0)
    pipeline, n_samples = RANDOM[preset]
    card = {"name": f"random_{preset}", "stage": "random", "license": "MIT", "provenance": "simulated"}
    modules = {"ecg": create_ecg_encoder(preset, n_samples)}
    return save_weights(folder, modules, named_pipeline(pipeline), None, card | {"trained_on": "nothing"})


def prepared(cohort: Cohort, model: OnnxModel) -> tuple[PairedDataset, NDArray[np.float32]]:
    """All recordings of the cohort as the model reads them, (n, L, T)."""
    shape = model.spec.input_shape("ecg")
    assert shape is not None
    names = [name for name, spec in cohort.label_specs.items() if spec.kind == "binary" or name in MEASURED]
    dataset = PairedDataset(cohort, cohort.subjects["subject"], model.spec.ecg_pipeline, labels=names)
    blocks = [dataset.batch(range(i, min(i + 64, len(dataset))))["ecg"] for i in range(0, len(dataset), 64)]
    return dataset, torch.cat(blocks).float().numpy()[:, :, : shape[1]]


def observed(dataset: PairedDataset) -> Array:
    batch = dataset.batch(range(len(dataset)))
    return torch.where(batch["label_mask"], batch["labels"].double(), torch.nan).numpy()


def cosine(a: Array, b: Array) -> Array:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


class Scorer:
    """Scores columns of predictions on the test subjects and pairs them draw by draw."""

    def __init__(self, names: list[str], kinds: list[str], truth: Array, subjects: NDArray[np.int64]) -> None:
        self.names, self.kinds, self.truth, self.subjects = names, kinds, truth, subjects
        self.draws = draw_subjects(subjects, 1000, np.random.default_rng(0))

    def scores(self, predicted: Array) -> dict[str, Bootstrapped]:
        """AUROC or R2 of each label."""
        return {
            name: bootstrap_metrics([metric], (self.truth[:, k], predicted[:, k]), self.subjects, self.draws)[metric]
            for k, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True))
            for metric in ["auroc" if kind == "binary" else "r2"]
        }

    def compare(self, exact: Array, small: Array) -> dict[str, Any]:
        """Metric of both and the difference int8 - float32 of each label and of the mean over each kind."""
        a, b = self.scores(exact), self.scores(small)
        table: dict[str, Any] = {}
        for kind, metric in (("binary", "auroc"), ("regression", "r2")):
            names = [name for name, its in zip(self.names, self.kinds, strict=True) if its == kind]
            if not names:
                continue
            change = np.mean([b[name].draws - a[name].draws for name in names], axis=0)
            low, high = np.nanquantile(change, [0.025, 0.975])
            each = {name: [a[name].value, b[name].value] for name in names}
            moved = {name: pair[1] - pair[0] for name, pair in each.items()}
            worst = max(moved, key=lambda name: abs(moved[name]))
            table[metric] = {
                "labels": each,
                "mean": np.mean(list(each.values()), axis=0).tolist(),
                "difference": [float(np.mean(list(moved.values()))), float(low), float(high)],
                "largest": [worst, moved[worst]],
            }
        return table


def show(title: str, table: dict[str, Any]) -> None:
    print(f"\n{title}")
    for metric, found in table.items():
        for name, (exact, small) in found["labels"].items():
            print(f"  {metric:<6} {name:<16} float32 {exact:7.4f}   int8 {small:7.4f}   {small - exact:+.4f}")
        (exact, small), (change, low, high) = found["mean"], found["difference"]
        interval = f"{change:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"  {metric:<6} {'mean':<16} float32 {exact:7.4f}   int8 {small:7.4f}   {interval}")


def probes(x: Array, kinds: list[str], y: Array) -> tuple[LogisticProbe, RidgeProbe]:
    binary = np.array([kind == "binary" for kind in kinds])
    return LogisticProbe().fit(x, y[:, binary]), RidgeProbe().fit(x, y[:, ~binary])


def apply(fitted: tuple[LogisticProbe, RidgeProbe], kinds: list[str], x: Array) -> Array:
    binary = np.array([kind == "binary" for kind in kinds])
    out = np.empty((len(x), len(kinds)))
    out[:, binary], out[:, ~binary] = fitted[0].predict(x), fitted[1].predict(x)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="weights/ecg_nano_aligned", help="name, local-dir:PATH or path")
    parser.add_argument("--preset", choices=sorted(RANDOM), help="a random encoder of this size instead of --weights")
    parser.add_argument("--cohort", type=Path, help="folder of a cohort")
    parser.add_argument("--subjects", type=int, default=300, help="of the cohort to simulate")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    place = args.cohort or Path(tempfile.gettempdir()) / f"ecgcmr_quantization_{args.subjects}_{args.seed}"
    if not (place / "cohort.json").exists() and args.cohort is None:
        simulate_cohort(place, n_subjects=args.subjects, seed=args.seed, cine="mid3")
    with tempfile.TemporaryDirectory() as temporary:
        source = random_weights(args.preset, Path(temporary) / "weights") if args.preset else args.weights
        weights = load_weights(source)
        graphs = ["ecg", *(["predict"] if "head" in weights.modules else [])]
        folder = export_onnx(weights, Path(temporary) / "onnx", graphs, int8=True)
        exact, small = OnnxModel(folder), OnnxModel(folder, int8=True)
        dataset, ecg = prepared(Cohort.open(place), exact)
        a, b = exact.encode(ecg).astype(np.float64), small.encode(ecg).astype(np.float64)
        heads = (exact.predict(ecg), small.predict(ecg)) if "predict" in graphs else None
        sizes = [path.stat().st_size for path in (folder / "ecg.onnx", folder / "ecg.int8.onnx")]
    truth, names = observed(dataset), list(dataset.label_names)
    specs = dataset.cohort.label_specs
    order = np.random.default_rng(args.seed).permutation(np.unique(dataset.subjects))
    train = np.isin(dataset.subjects, order[: len(order) // 2])
    cases = np.array([min(np.nansum(truth[part, k]) for part in (train, ~train)) for k in range(len(names))])
    kept = [k for k, name in enumerate(names) if specs[name].kind == "regression" or cases[k] >= FEWEST]
    names, kinds, truth = [names[k] for k in kept], [str(specs[names[k]].kind) for k in kept], truth[:, kept]
    similarity = cosine(a, b)
    report: dict[str, Any] = {
        "weights": weights.config["name"], "sha256": weights.config["sha256"], "subjects": len(order),
        "bytes": sizes, "cosine": [float(similarity.min()), float(np.median(similarity))],
        "centred_cosine": float(np.median(cosine(a - a.mean(0), b - a.mean(0)))),
    }  # fmt: skip
    print(
        f"{weights.config['name']}: {len(order)} subjects; {sizes[0] / 2**20:.2f} MiB, int8 {sizes[1] / 2**20:.2f} MiB"
    )
    print(
        f"cosine of float32 and int8 embeddings: median {np.median(similarity):.6f}, smallest {similarity.min():.6f}; "
        f"around their mean {report['centred_cosine']:.6f}"
    )
    scorer = Scorer(names, kinds, truth[~train], dataset.subjects[~train])
    fitted = probes(a[train], kinds, truth[train])
    again = probes(b[train], kinds, truth[train])
    base = apply(fitted, kinds, a[~train])
    report["same_probe"] = scorer.compare(base, apply(fitted, kinds, b[~train]))
    report["own_probe"] = scorer.compare(base, apply(again, kinds, b[~train]))
    show(f"probe fitted on float32 ({train.sum()} recordings), scored on {(~train).sum()}:", report["same_probe"])
    show("probe fitted on int8 as well:", report["own_probe"])
    if heads is not None:
        labels = [label["name"] for label in exact.labels]
        at = [k for k, name in enumerate(names) if name in labels]
        columns = [labels.index(names[k]) for k in at]
        own = Scorer([names[k] for k in at], [kinds[k] for k in at], truth[:, at], dataset.subjects)
        report["head"] = own.compare(*(values[:, columns].astype(np.float64) for values in heads))
        show("head of the weights, all subjects:", report["head"])
    where = [key for key in ("same_probe", "own_probe", "head") if "auroc" in report.get(key, {})]
    worst = max(where, key=lambda key: abs(report[key]["auroc"]["difference"][0]))
    change = report[worst]["auroc"]["difference"][0]
    label, moved = max((report[key]["auroc"]["largest"] for key in where), key=lambda pair: abs(pair[1]))
    report["within"] = abs(change) <= ALLOWED
    verdict = "kept, int8 may be offered" if report["within"] else "BROKEN, do not offer int8"
    print(f"\nlargest change of the mean AUROC {change:+.4f} ({worst}), of one label {moved:+.4f} ({label})")
    print(f"rule, |change of the mean| <= {ALLOWED}: {verdict}")
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
