"""Measure what docs/explain.md says: neighbours, zero-shot classes, random weights and planted scars.

    python scripts/explain_checks.py --subjects 1000 --out runs/explain

Two simulated cohorts that the released weights never saw: one for the gallery, in which nothing is chosen, and one with
many infarctions for the planted scars. Writes checks.json and checks.html.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import ecgcmr
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.splits import open_split
from ecgcmr.evaluation.bootstrap import bootstrap_metrics, draw_subjects
from ecgcmr.evaluation.explain import (
    PlantedCheck,
    RandomisationCheck,
    healthy_recordings,
    planted_leads,
    planted_wall,
    prototype_target,
    sanity_check,
)
from ecgcmr.evaluation.neighbours import (
    build_gallery,
    embed_part,
    fit_prototypes,
    interval_coverage,
    measure_neighbours,
    nearest,
    regress,
)
from ecgcmr.report.explain_sections import check_section
from ecgcmr.report.page import build_report
from ecgcmr.simulation.design import Design

SHOWN = ("LVEDV", "LVESV", "LVEF", "LVM", "WT_global", "mi", "dcm", "hcm", "lbbb", "af")


def cohorts(out: Path, subjects: int, seed: int) -> tuple[ecgcmr.Cohort, ecgcmr.Cohort]:
    """A screening cohort, and half as many subjects of whom three in five had an infarction."""
    infarcted = replace(
        Design(), prevalence_mi=0.6, prevalence_cad=0.65, prevalence_dcm=0.0, prevalence_hcm=0.0, prevalence_hhd=0.0
    )
    made = []
    for name, n, design, own in (
        ("screening", subjects, Design(), seed),
        ("infarcted", subjects // 2, infarcted, seed + 1),
    ):
        if not (out / name).exists():
            simulate_cohort(out / name, n, own, cine="mid3", design=design)
        made.append(ecgcmr.Cohort.open(out / name))
    return made[0], made[1]


def neighbour_numbers(model: Any, cohort: ecgcmr.Cohort) -> tuple[dict[str, Any], Any]:
    """Gallery of the training part, factors from validation, everything measured on the test part."""
    gallery = build_gallery(model, cohort, labels=SHOWN)
    split = open_split(cohort)
    test, _ = embed_part(model, cohort, split.test, "ecg", SHOWN)
    measured = measure_neighbours(gallery, test.values, test.labels, test.subjects)
    told = regress(nearest(test.values, gallery.vectors, gallery.about.k), gallery.values())
    coverage = interval_coverage(gallery, told, test.labels)
    rows = {row.label: {"metric": row.metric, "value": row.value, "lo": row.lo, "hi": row.hi} for row in measured}
    for label, (share, n) in coverage.items():
        rows[label] |= {"coverage": share, "n": n}
    val, _ = embed_part(model, cohort, split.val, "ecg", SHOWN)
    draws = draw_subjects(test.subjects, 1000, np.random.default_rng(7))
    for label in ("mi", "dcm", "hcm", "lbbb", "af"):
        k = SHOWN.index(label)
        known = [part[:, k] for part in (gallery.values(), val.labels, test.labels)]
        if any(len(np.unique(part[np.isfinite(part)])) < 2 for part in known):
            continue
        prototypes = fit_prototypes(gallery.vectors, known[0]).calibrate(val.values, known[1])
        p = prototypes.probabilities(test.values)[:, 1]
        scores = bootstrap_metrics(["auroc", "brier"], (known[2], p), test.subjects, draws)
        for metric, score in scores.items():
            value, lo, hi, _ = score.interval()
            rows[label][f"zero_shot_{metric}"] = [value, lo, hi]
    return rows, gallery


def random_weights(model: Any, cohort: ecgcmr.Cohort, items: int) -> list[RandomisationCheck]:
    """Maps of recordings before and after the weights are random; of cines likewise."""
    recordings = [cohort.recording(row) for row in range(items)]
    cines = [cohort.cine(row) for row in range(items)]
    return [
        sanity_check(model, recordings, "LVM", "ig", steps=16),
        sanity_check(model, recordings, "mi", "ig", steps=16),
        sanity_check(model, recordings, "mi", "occlusion", by="window", window_ms=250.0),
        sanity_check(model, recordings, None, "rollout"),
        sanity_check(model, cines, recordings[0], "gradcam", layer="layer2"),
        sanity_check(model, cines, recordings[0], "occlusion", patches=8),
    ]


def planted_scars(model: Any, gallery: Any, screening: ecgcmr.Cohort, infarcted: ecgcmr.Cohort) -> list[PlantedCheck]:
    """Every method on the leads and on the wall, but for integrated gradients of the image.

    Its ReLU tower converges so slowly that the attributions miss their sum by more than 1 % in some hearts after
    1,024 steps, which is refused.
    """
    references = healthy_recordings(screening, 8)
    target = prototype_target(model, fit_prototypes(gallery.vectors, gallery.items["mi"]), "1")
    healthy = gallery.items[(gallery.items[["mi", "dcm", "hcm", "lbbb", "af"]] == 0).all(axis=1)]["row"][:4]
    cines = [screening.cine(int(row)) for row in healthy]
    who = infarcted.subjects["subject"].to_numpy()[:120]
    checks = planted_leads(model, infarcted, method="amplitude", subjects=who)
    checks += planted_leads(model, infarcted, "mi", "occlusion", who)
    checks += planted_leads(model, infarcted, "mi", "occlusion", who, references=references)
    checks += planted_leads(model, infarcted, "mi", "ig", who[:40], steps=16)
    checks += planted_leads(model, infarcted, "mi", "ig", who[:40], steps=16, references=references)
    checks += planted_leads(model, infarcted, "mi", "rollout", who)
    checks += planted_wall(model, infarcted, target, "darkness", who)
    checks += planted_wall(model, infarcted, target, "occlusion", who, patches=8)
    checks += planted_wall(model, infarcted, target, "occlusion", who, patches=8, references=cines)
    for layer in ("layer2", "layer3", "layer4"):
        checks += planted_wall(model, infarcted, target, "gradcam", who, layer=layer)
    return checks


def _keep(out: Path, result: dict[str, Any]) -> None:
    (out / "checks.json").write_text(json.dumps(result, indent=1, default=float) + "\n")


def main() -> None:
    """Run everything and write checks.json and checks.html."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1000, help="Subjects of the screening cohort.")
    parser.add_argument(
        "--seed", type=int, default=90, help="Of the cohorts; the released weights were trained on 2026."
    )
    parser.add_argument("--model", default="ecg_nano_aligned", help="Weights with both towers, projections and a head.")
    parser.add_argument("--items", type=int, default=4, help="Recordings and cines of the checks with random weights.")
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), help="Folder.")
    chosen = parser.parse_args()
    model = ecgcmr.load_model(chosen.model, device="cpu")
    screening, infarcted = cohorts(chosen.out, chosen.subjects, chosen.seed)
    result: dict[str, Any] = {}
    result["neighbours"], gallery = neighbour_numbers(model, screening)
    _keep(chosen.out, result)
    planted = planted_scars(model, gallery, screening, infarcted)
    result["planted"] = [one.row() for one in planted]
    _keep(chosen.out, result)
    randomised = random_weights(model, screening, chosen.items)
    result["random_weights"] = {f"{one.method}, {one.target}": one.table().to_dict("records") for one in randomised}
    _keep(chosen.out, result)
    facts = {"model": chosen.model, "subjects": f"{chosen.subjects} and {chosen.subjects // 2}", "seed": chosen.seed}
    intro = "Random weights and planted scars, for every method."
    build_report(chosen.out / "checks.html", "Sanity checks", intro, [check_section(randomised, planted)], facts)
    print((chosen.out / "checks.json").read_text())


if __name__ == "__main__":
    main()
