"""Draw docs/figures/overview.png and docs/figures/sheet.png from simulated hearts: python scripts/draw_overview.py."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.simulation.population import Design
from ecgcmr.simulation.sheet import draw_sheet
from ecgcmr.simulation.subject import simulate_subject

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
ECG_COLOR, CMR_COLOR, INK = "#0a5ea8", "#00795a", "#1f2937"
SUBJECT = 7


def _box(axes: Axes, corner: tuple[float, float], size: tuple[float, float], text: str, color: str) -> None:
    axes.add_patch(
        FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.12", fc=color, ec="none", alpha=0.95)
    )
    middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    axes.text(*middle, text, ha="center", va="center", color="white", fontsize=11, linespacing=1.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str = "-|>") -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=16, lw=2, color=color))


def draw_overview(path: Path) -> None:
    """The job in one picture: one heart, two modalities, one shared space, predictions from the ECG alone."""
    subject = simulate_subject(Design(), 0, SUBJECT, cine="mid3")
    assert subject.sax is not None
    ecg = named_pipeline("highpass")(subject.ecg)
    figure = plt.figure(figsize=(12, 4.6), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))  # one unit is one inch
    axes.set(xlim=(0, 12), ylim=(0, 4.6))
    axes.axis("off")
    trace = figure.add_axes((0.02, 0.52, 0.2, 0.38))
    for row, lead in enumerate((1, 6, 10)):
        trace.plot(ecg[lead, :400] * 0.4 - 1.6 * row, color=ECG_COLOR, lw=1.1)
    trace.axis("off")
    for frame in range(3):
        image = figure.add_axes((0.022 + 0.068 * frame, 0.16, 0.064, 0.2))
        image.imshow(subject.sax.pixels[0, frame], cmap="gray")
        image.axis("off")
    axes.text(1.4, 4.25, "12-lead ECG", ha="center", color=INK, fontsize=11, weight="bold")
    axes.text(1.4, 1.85, "cine cardiac MRI", ha="center", color=INK, fontsize=11, weight="bold")
    _box(axes, (3.3, 2.75), (2.1, 1.1), "ECG encoder\n(masked autoencoder)", ECG_COLOR)
    _box(axes, (3.3, 0.65), (2.1, 1.1), "CMR encoder\n(image contrastive)", CMR_COLOR)
    _arrow(axes, (2.75, 3.3), (3.2, 3.3), ECG_COLOR)
    _arrow(axes, (2.75, 1.2), (3.2, 1.2), CMR_COLOR)
    _arrow(axes, (4.35, 2.7), (4.35, 1.8), INK, "<|-|>")
    axes.text(4.55, 2.25, "align: the ECG of a heart\nfinds the MRI of the same heart", va="center", color=INK)
    _arrow(axes, (5.5, 3.3), (8.1, 3.3), ECG_COLOR)
    axes.text(6.8, 3.45, "the ECG alone", ha="center", color=INK, fontsize=11, weight="bold")
    values = subject.phenotypes
    shown = [("LVEDV", "ml"), ("LVEF", "%"), ("LVM", "g")]
    text = "\n".join(f"{name}  {values[name]:.0f} {unit}" for name, unit in shown)
    _box(axes, (8.2, 2.55), (3.4, 1.7), f"phenotypes and risk\n{text}\nMI, cardiomyopathy, ...", "#374151")
    axes.text(9.9, 0.9, "one simulated heart made\nboth signals: its truth is known", ha="center", color="#6b7280")
    figure.savefig(path)
    plt.close(figure)


def draw_small_sheet(path: Path) -> None:
    """The figure sheet at half its size, in 128 colors."""
    draw_sheet(path, seed=1)
    with Image.open(path) as full:
        small = full.convert("RGB").resize((full.width // 2, full.height // 2), Image.Resampling.LANCZOS)
        small.quantize(128).save(path, optimize=True)


def main() -> None:
    """Draw both figures, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    parser.add_argument("--only", choices=("overview", "sheet"), help="draw one of the two")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only != "sheet":
        draw_overview(given.out / "overview.png")
    if given.only != "overview":
        draw_small_sheet(given.out / "sheet.png")


if __name__ == "__main__":
    main()
