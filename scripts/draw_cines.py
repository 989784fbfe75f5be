"""Draw ED and ES of every view of a study on one sheet: python scripts/draw_cines.py FOLDER OUT.png.

FOLDER is anything that `ecgcmr.read_cine` reads, or a study folder of ACDC, M&Ms or M&Ms-2. Two pictures for each cine,
of its middle slice: the first frame, and the frame that looks most unlike it, which is near end-systole. Below them
stand what the geometry had to say about the view, and the flags of the quality check; masks are outlined.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.quality import check_cine
from ecgcmr.cmr.readers import open_study
from ecgcmr.cmr.readers.study import Study

COLORS = {1: "#ffb000", 2: "#4cc9f0", 3: "#c8f04c"}


def frames_to_draw(cine: Cine, phases: Mapping[str, int]) -> tuple[int, int]:
    """ED and ES where the folder tells; else the first frame and the one most unlike it."""
    if {"ed", "es"} <= set(phases):
        return phases["ed"], phases["es"]
    middle = np.asarray(cine.pixels[cine.pixels.shape[0] // 2], dtype=np.float32)
    return 0, int(np.abs(middle - middle[0]).mean(axis=(1, 2)).argmax())


def draw(study: Study, title: str, out: Path) -> None:
    """Write the sheet; two pictures for each cine, two cines in a row."""
    rows = -(-len(study.cines) // 2)
    figure, axes = plt.subplots(rows, 4, figsize=(12, 3.8 * rows + 0.4), dpi=90, squeeze=False, layout="constrained")
    for place in axes.flat:
        place.axis("off")
    for index, (cine, phases) in enumerate(zip(study.cines, study.phases, strict=True)):
        middle = cine.pixels.shape[0] // 2
        pair = axes[index // 2, 2 * (index % 2) : 2 * (index % 2) + 2]
        for place, frame, name in zip(pair, frames_to_draw(cine, phases), ("ED", "ES"), strict=True):
            _picture(place, cine, middle, frame)
            time = cine.frame_times_ms[frame]
            place.set_title(f"{cine.view}  {name}, {f'{time:.0f} ms' if np.isfinite(time) else f'frame {frame + 1}'}")
        told = [note for note in cine.notes if "geometry" in note or "named other" in note]
        flags = ", ".join(flag.code for flag in check_cine(cine))
        text = f"{cine.pixels.shape[0]} slice(s), slice {middle + 1} shown. " + "; ".join(told)
        text += f" Flags: {flags}." if flags else " No flag."
        words = "\n".join(textwrap.wrap(text, 84))
        pair[0].annotate(
            words, (0, 0), (0, -4), "axes fraction", "offset points", fontsize=7.5, va="top"
        ).set_in_layout(False)
    figure.get_layout_engine().set(h_pad=0.2, rect=(0.0, 0.1 / rows, 1.0, 1.0 - 0.1 / rows))
    figure.suptitle(title)
    figure.savefig(out)
    plt.close(figure)


def _picture(place: Axes, cine: Cine, slice_index: int, frame: int) -> None:
    """One frame in millimeters, with its masks outlined."""
    image = np.asarray(cine.pixels[slice_index, frame], dtype=np.float32)
    height, width = image.shape[0] * cine.spacing_mm[0], image.shape[1] * cine.spacing_mm[1]
    high = float(np.percentile(image, 99.5)) or 1.0
    place.imshow(image, cmap="gray", vmin=0, vmax=high, extent=(0, width, height, 0))
    if cine.masks is None:
        return
    x = (np.arange(image.shape[1]) + 0.5) * cine.spacing_mm[1]
    y = (np.arange(image.shape[0]) + 0.5) * cine.spacing_mm[0]
    for value in cine.mask_labels:
        inside = (cine.masks[slice_index, frame] == value).astype(float)
        if inside.any():
            place.contour(x, y, inside, [0.5], colors=[COLORS.get(value, "#ff6ec7")], linewidths=1)


def main() -> None:
    """Read a study and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder, zip or file of one study")
    parser.add_argument("out", type=Path, help="picture to write (.png)")
    parser.add_argument("--layout", default=None, help="layout of the folder; found out when absent")
    parser.add_argument("--incomplete", default="drop", choices=("error", "drop"), help="slices with lost frames")
    arguments = parser.parse_args()
    study = open_study(arguments.folder, layout=arguments.layout, incomplete=arguments.incomplete)
    draw(study, f"layout {study.layout}, {len(study.cines)} cine(s)", arguments.out)
    for cine in study.cines:
        print(f"{cine.view}: {cine.pixels.shape[0]} slice(s) x {cine.pixels.shape[1]} frames")
        for note in cine.notes:
            print(f"  {note}")
    for note in study.notes:
        print(note)


if __name__ == "__main__":
    main()
