"""Draw the figures of docs/explain.md and docs/evaluation.md: python scripts/draw_examples.py.

A small simulated cohort and released weights: an explained ECG (explanation.svg), the hearts nearest to it
(similar_hearts.png), and what an ECG adds to age, sex and BMI (added_value.svg). Integrated gradients need
`pip install 'ecgcmr[explain]'`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

import ecgcmr
from ecgcmr.cmr.selection import motion_center
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.splits import open_split
from ecgcmr.evaluation.evaluate import evaluate_weights
from ecgcmr.evaluation.evaluated import read_evaluation
from ecgcmr.report.evaluation_results import added_section
from ecgcmr.report.explained import explained_paper

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
WEIGHTS, SEED, NEAREST, CROP_MM, LARGEST_MV = "ecg_nano_aligned", 5, 4, 120.0, 1.5
SHOWN = (("LVM", "g"), ("LVEDV", "ml"), ("LVEF", "%"))


def example(hearts: ecgcmr.Cohort) -> int:
    """The first test subject whose ECG stays within its rows on paper."""
    subjects = (int(subject) for subject in open_split(hearts).test)
    return next(one for one in subjects if np.abs(hearts.recording(one).samples).max() < LARGEST_MV)


def draw_explanation(path: Path, model: Any, hearts: ecgcmr.Cohort, subject: int) -> None:
    """Integrated gradients of the LV mass behind the traces of one ECG."""
    recording = hearts.recording(subject)
    explained_paper(recording, ecgcmr.explain(model, recording, "LVM", "ig"), "3x4").save(path)


def draw_similar(path: Path, model: Any, hearts: ecgcmr.Cohort, subject: int) -> None:
    """End-diastole and end-systole of a subject's own heart, and of those of others that its ECG is nearest to."""
    gallery = ecgcmr.build_gallery(model, hearts, "cmr", "all")
    found = ecgcmr.find_neighbours(model, hearts.recording(subject), gallery, subject=subject).neighbours
    subjects = [subject, *found["subject"].head(NEAREST)]
    figure, axes = plt.subplots(2, len(subjects), figsize=(2.1 * len(subjects), 5.1), dpi=90, layout="constrained")
    for column, one in enumerate(subjects):
        cine = hearts.cine(int(one))
        for row, frame in enumerate((0, -1)):
            _heart(axes[row, column], cine, frame)
        title = "its own heart" if column == 0 else f"{column}. nearest, cosine {found['cosine'].iloc[column - 1]:.2f}"
        axes[0, column].set_title(title, fontsize=9, weight="bold" if column == 0 else "normal")
        values = hearts.labels.loc[int(one)]
        axes[1, column].set_xlabel("\n".join(f"{name} {values[name]:.0f} {unit}" for name, unit in SHOWN), fontsize=9)
    for row, name in enumerate(("end-diastole", "end-systole")):
        axes[row, 0].set_ylabel(name, fontsize=9)
    figure.savefig(path)
    plt.close(figure)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(96).save(path, optimize=True)


def _heart(axes: Axes, cine: ecgcmr.Cine, frame: int) -> None:
    """One frame of the middle slice, cut to the heart."""
    pixels = np.asarray(cine.pixels[cine.pixels.shape[0] // 2], dtype=np.float32)
    row, column = motion_center(cine.pixels, cine.spacing_mm, 0.25 * CROP_MM)
    half_rows, half_columns = (CROP_MM / 2 / spacing for spacing in cine.spacing_mm)
    axes.imshow(pixels[frame], cmap="gray", vmin=0, vmax=float(np.percentile(pixels, 99.5)), aspect="equal")
    axes.set(xlim=(column - half_columns, column + half_columns), ylim=(row + half_rows, row - half_rows))
    axes.set(xticks=[], yticks=[])


def draw_added_value(path: Path, hearts: ecgcmr.Cohort, draws: int) -> None:
    """What the ECG adds to age, sex and BMI, for each measurement of the head; from test subjects."""
    with tempfile.TemporaryDirectory() as folder:
        out = evaluate_weights(
            WEIGHTS, hearts.path, "default", Path(folder) / "evaluation", n_draws=draws, groups=[], n_permutations=1
        )
        added_section(read_evaluation(out)).figures[0].save(path)


def main() -> None:
    """Simulate the cohort where it is not there yet, and draw the three figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    parser.add_argument("--cohort", type=Path, default=ROOT / "runs" / "figures" / "hearts", help="simulated if absent")
    parser.add_argument("--subjects", type=int, default=600, help="subjects of the simulated cohort")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap draws")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not (given.cohort / "cohort.json").exists():
        simulate_cohort(given.cohort, n_subjects=given.subjects, seed=SEED, cine="mid3")
    hearts, model = ecgcmr.Cohort.open(given.cohort), ecgcmr.load_model(WEIGHTS)
    subject = example(hearts)
    draw_explanation(given.out / "explanation.svg", model, hearts, subject)
    draw_similar(given.out / "similar_hearts.png", model, hearts, subject)
    draw_added_value(given.out / "added_value.svg", hearts, given.draws)


if __name__ == "__main__":
    main()
