"""The figure sheet: what a cardiologist looks at before anyone believes the numbers.

Rows are conditions; columns are the 12-lead ECG on paper (25 mm/s, 10 mm/mV), end-diastole and end-systole of three
short-axis slices and of the four-chamber view, the volume curve, and activation on the AHA bull's-eye.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.cine import render_sax
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.electrics import RATE_HZ, EcgSimulation
from ecgcmr.simulation.four_chamber import render_4ch
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.motion import move
from ecgcmr.simulation.phenotypes import RING, es_frame, measure, volume_curves
from ecgcmr.simulation.population import draw_heart
from ecgcmr.simulation.subject import simulate_heart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MM_PER_S, MM_PER_MV = 25.0, 10.0
COLUMN_S = 2.5  # each of the four columns of the paper shows 2.5 s
ROW_MM = 30.0
PAPER = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
MAX_SEARCH = 300


@dataclass(frozen=True)
class Condition:
    """One row: its title, and the prevalences that make such subjects common enough to find one.

    Attributes:
        title: What stands beside the row.
        needs: Fields of the heart and the values they must have.
        prevalence: Fields of the design; every other prevalence is 0.
    """

    title: str
    needs: dict[str, Any]
    prevalence: dict[str, float]


CONDITIONS = (
    Condition("Healthy", {"sex": 1}, {}),
    Condition(
        "LBBB (dilated cardiomyopathy)", {"dcm": True, "lbbb": True}, {"prevalence_dcm": 1.0, "lbbb_in_dcm": 1.0}
    ),
    Condition("RBBB", {"rbbb": True}, {"prevalence_rbbb": 1.0}),
    Condition("Old anterior infarction", {"territory": "LAD"}, {"prevalence_mi": 1.0}),
    Condition("Old inferior infarction", {"territory": "RCA"}, {"prevalence_mi": 1.0}),
    Condition("Dilated cardiomyopathy", {"dcm": True, "lbbb": False}, {"prevalence_dcm": 1.0, "lbbb_in_dcm": 0.0}),
    Condition("Septal HCM", {"hcm_type": "septal"}, {"prevalence_hcm": 1.0}),
    Condition("Apical HCM", {"hcm_type": "apical"}, {"prevalence_hcm": 1.0}),
    Condition("Hypertensive hypertrophy", {"hhd": True}, {"prevalence_hhd": 1.0}),
    Condition("Coronary disease, ischemia", {"cad": True, "old_mi": False}, {"prevalence_cad": 1.0}),
    Condition("First-degree AV block", {"avb1": True}, {"prevalence_avb1": 1.0}),
    Condition("Atrial fibrillation", {"af": True}, {"prevalence_af": 1.0}),
)


def find_heart(condition: Condition, seed: int) -> tuple[Heart, Design]:
    """First subject of an enriched population that has the condition and no severe remodeling of another kind."""
    design = replace(Design.healthy(), **condition.prevalence)  # type: ignore[arg-type]
    for subject in range(MAX_SEARCH):
        heart = draw_heart(design, seed, subject)
        if condition.title.startswith("Old") and float(heart.scar.max()) < 0.7:
            continue
        if all(getattr(heart, name) == value for name, value in condition.needs.items()):
            return heart, design
    raise ValueError(f"no subject with {condition.needs} among {MAX_SEARCH} of seed {seed}; try another seed")


def draw_paper(axis: Axes, leads_mv: NDArray[np.floating], rate_hz: float, caption: str = "") -> None:
    """Draw a 12-lead ECG on paper: three rows of four leads of 2.5 s and a rhythm strip of lead II.

    Args:
        axis: Axis to fill; one unit is 1 mm of paper.
        leads_mv: Leads (12, T) in canonical order [mV], at least 10 s.
        rate_hz: Sampling rate [Hz].
        caption: Words above the first row.
    """
    width, height = 4 * COLUMN_S * MM_PER_S, (len(PAPER) + 1) * ROW_MM
    for step, line in ((1.0, 0.15), (5.0, 0.4)):
        axis.vlines(np.arange(0.0, width + step / 2, step), 0.0, height, colors="#f2b8b5", linewidths=line, zorder=0)
        axis.hlines(np.arange(0.0, height + step / 2, step), 0.0, width, colors="#f2b8b5", linewidths=line, zorder=0)
    span = round(COLUMN_S * rate_hz)
    baseline = np.median(leads_mv, axis=1, keepdims=True)
    trace = leads_mv - baseline
    for r, names in enumerate(PAPER):
        middle = height - (r + 0.5) * ROW_MM
        for c, name in enumerate(names):
            part = trace[LEADS.index(name), c * span : (c + 1) * span]
            x = (c * span + np.arange(len(part))) / rate_hz * MM_PER_S
            axis.plot(x, middle + part * MM_PER_MV, color="black", linewidth=0.55)
            axis.text(x[0] + 1.0, middle + 0.33 * ROW_MM, name, fontsize=5.5, weight="bold")
    strip = trace[LEADS.index("II"), : 4 * span]
    axis.plot(
        np.arange(len(strip)) / rate_hz * MM_PER_S, 0.45 * ROW_MM + strip * MM_PER_MV, color="black", linewidth=0.55
    )
    axis.text(1.0, 0.8 * ROW_MM, "II", fontsize=5.5, weight="bold")
    axis.text(width - 1.0, 1.0, "25 mm/s  10 mm/mV", fontsize=4.5, ha="right")
    axis.text(0.0, height + 1.5, caption, fontsize=6.5)
    axis.set(xlim=(0.0, width), ylim=(0.0, height), aspect="equal")
    axis.axis("off")


def _segment_patches() -> Iterator[tuple[int, float, float, float, float]]:
    """Segment, start angle [degree], width [degree], inner and outer radius of the bull's-eye."""
    for ring, (count, inner) in enumerate(((6, 0.75), (6, 0.5), (4, 0.25))):
        first = {0: 0, 1: 6, 2: 12}[ring]
        width = 360.0 / count
        for k in range(count):
            yield first + k, 90.0 + k * width - width / 2, width, inner, inner + 0.25
    yield 16, 0.0, 360.0, 0.0, 0.25


def draw_bullseye(axis: Axes, values: NDArray[np.floating], low: float, high: float) -> None:
    """Draw 17 segment values on the AHA bull's-eye: anterior on top, septum on the left."""
    import matplotlib as mpl
    from matplotlib.patches import Wedge

    colors = mpl.colormaps["turbo"]
    for segment, start, width, inner, outer in _segment_patches():
        share = float(np.clip((values[segment] - low) / (high - low), 0.0, 1.0))
        axis.add_patch(
            Wedge((0, 0), outer, start, start + width, width=outer - inner, color=colors(share), ec="w", lw=0.5)
        )
        angle, radius = np.deg2rad(start + width / 2), (inner + 0.125 if segment < 16 else 0.0)
        axis.text(
            radius * np.cos(angle),
            radius * np.sin(angle),
            f"{values[segment]:.0f}",
            fontsize=4.5,
            ha="center",
            va="center",
        )
    axis.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axis.axis("off")
    axis.set_title("activation [ms]", fontsize=6, pad=1)


def _draw_images(axis: Axes, sax: Cine, four_chamber: Cine, end_systole: int) -> None:
    """Rows end-diastole and end-systole; columns basal, mid and apical slice and the four-chamber view."""
    n = sax.pixels.shape[0]
    columns = [sax.pixels[k] for k in (max(n // 5, 1), n // 2, min(4 * n // 5, n - 1))] + [four_chamber.pixels[0]]
    side = max(part.shape[-1] for part in columns)
    rows = []
    for frame in (0, end_systole):
        tiles = []
        for part in columns:
            tile = np.zeros((side, side))
            image = np.asarray(part[frame], dtype=np.float64)
            top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
            tile[top : top + image.shape[0], left : left + image.shape[1]] = image / max(float(np.max(part)), 1e-9)
            tiles.append(tile)
        rows.append(np.hstack(tiles))
    axis.imshow(np.vstack(rows), cmap="gray", vmin=0.0, vmax=0.9)
    axis.axis("off")
    axis.set_title("ED (top), ES: base, mid, apex, four-chamber", fontsize=6, pad=1)


def _draw_volumes(axis: Axes, heart: Heart, phenotypes: dict[str, float]) -> None:
    phase = np.linspace(0.0, 1.0, 50)
    left, right = volume_curves(move(heart, phase, RING))
    axis.plot(phase * heart.rr_ms, left, color="#b2182b", linewidth=1.0, label="LV")
    axis.plot(phase * heart.rr_ms, right, color="#2166ac", linewidth=1.0, label="RV")
    axis.set_title(
        f"EDV {phenotypes['LVEDV']:.0f} ml  EF {phenotypes['LVEF']:.0f} %  mass {phenotypes['LVM']:.0f} g",
        fontsize=6,
        pad=1,
    )
    axis.set_ylim(0.0, None)
    axis.tick_params(labelsize=5)
    axis.set_xlabel("ms", fontsize=5, labelpad=0)
    axis.legend(fontsize=5, frameon=False, loc="lower right")


def _caption(title: str, heart: Heart, ecg: EcgSimulation) -> str:
    truth = ecg.truth
    pr = "no P" if heart.af else f"PR {truth['pr_ms']:.0f}"
    who = f"{'man' if heart.sex else 'woman'} of {heart.age_years:.0f}"
    return (
        f"{title}: {who}, {truth['heart_rate_bpm']:.0f}/min, {pr}, QRS {truth['qrs_ms']:.0f}, "
        f"QTc {truth['qtc_ms']:.0f} ms, axis {truth['axis_deg']:.0f} degrees"
    )


def draw_sheet(path: str | Path, seed: int = 0, conditions: tuple[Condition, ...] = CONDITIONS) -> Path:
    """Draw the figure sheet.

    Args:
        path: Image file to write; the suffix chooses the format (.png, .pdf, .svg).
        seed: Seed of the population the rows are taken from.
        conditions: Rows.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17.0, 3.3 * len(conditions)), dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(conditions), 4, width_ratios=(2.55, 1.95, 0.75, 0.6), left=0.01, right=0.99, bottom=0.01, top=0.99,
        wspace=0.08, hspace=0.16,
    )  # fmt: skip
    for r, condition in enumerate(conditions):
        latent, design = find_heart(condition, seed + r)  # another seed, another person
        heart, ecg = simulate_heart(latent, design)
        axes = [figure.add_subplot(grid[r, c]) for c in range(4)]
        draw_paper(axes[0], ecg.recording.millivolts, RATE_HZ, _caption(condition.title, heart, ecg))
        sax, four_chamber = render_sax(heart, imaging=design.imaging), render_4ch(heart, imaging=design.imaging)
        _draw_images(axes[1], sax, four_chamber, es_frame(heart))
        _draw_volumes(axes[2], heart, measure(heart))
        draw_bullseye(axes[3], ecg.activation.segment_ms, 0.0, 120.0)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
