"""Draw one recording of each ECG format found in a folder: python scripts/draw_formats.py FOLDER OUT.png.

Looking is the last test of a reader: wrong scale, order, sign or rate is seen at once on paper. File names are not
drawn, because they can be identifiers.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from ecgcmr.ecg import EcgRecording, open_ecg, to_canonical
from ecgcmr.ecg.readers import ECG_SUFFIXES, detect_format, reader_options

COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))
ROW_MV, SECONDS = 3.0, 10.0


def find(folder: Path, declared: dict[str, object]) -> tuple[dict[str, EcgRecording], Counter[str]]:
    """The first readable recording of each format (and sampling rate), and how many files failed by reason."""
    found: dict[str, EcgRecording] = {}
    failed: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in ECG_SUFFIXES):
        if path.suffix.lower() in (".csv", ".tsv", ".txt", ".json"):  # beside recordings these are mostly labels
            continue
        try:
            kind = detect_format(path)
            recording = to_canonical(_read(path, kind, declared))
        except (ValueError, OSError) as error:
            failed[f"{path.suffix}: {str(error).replace(str(path), '<file>')[:110]}"] += 1
            continue
        found.setdefault(f"{kind}, {recording.rate_hz:g} Hz", recording)
    return found, failed


def _read(path: Path, kind: str, declared: dict[str, object]) -> EcgRecording:
    """Read with as little of what was declared as the file needs."""
    takes = reader_options(path)
    first = {"row": 0} if kind in ("npz", "npy", "hdf5") else {}
    for names in ((), ("unit",), ("unit", "rate_hz")):
        try:
            return open_ecg(
                path, **first, **{name: declared[name] for name in names if name in takes & declared.keys()}
            )
        except ValueError:
            continue
    return open_ecg(path, **first, **{name: value for name, value in declared.items() if name in takes})


def draw(axes: Axes, title: str, recording: EcgRecording) -> None:
    """Four columns of a quarter of ten seconds each on millimeter paper, 25 mm/s and 10 mm/mV, lead II below."""
    n = min(recording.n_samples, round(SECONDS * recording.rate_hz))
    t = np.arange(n) / recording.rate_hz
    gain = 1.0 if recording.unit == "mV" else 0.5
    for column, leads in enumerate(COLUMNS):
        part = slice(column * n // 4, (column + 1) * n // 4)
        for row, lead in enumerate(leads):
            trace = gain * recording.samples[recording.leads.index(lead)]
            axes.plot(t[part], trace[:n][part] - np.nanmedian(trace) - ROW_MV * row, color="#16181d", lw=0.7)
            axes.text(t[part][0] + 0.05, -ROW_MV * row + 0.9, lead, fontsize=7, weight="bold")
    rhythm = gain * recording.samples[recording.leads.index("II")][:n]
    axes.plot(t, rhythm - np.nanmedian(rhythm) - ROW_MV * 3, color="#16181d", lw=0.7)
    axes.text(0.05, -ROW_MV * 3 + 0.9, "II", fontsize=7, weight="bold")
    axes.set(xlim=(0, SECONDS), ylim=(-ROW_MV * 3.7, 2.0), aspect=0.4)  # 0.4 s and 1 mV are both 10 mm
    for axis, fine, bold in ((axes.xaxis, 0.04, 0.2), (axes.yaxis, 0.1, 0.5)):
        axis.set_minor_locator(MultipleLocator(fine))
        axis.set_major_locator(MultipleLocator(bold))
    axes.grid(which="minor", color="#f6d5d5", lw=0.25)
    axes.grid(which="major", color="#e9a9a9", lw=0.4)
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    beats = f", median beat of {recording.median_beats.samples.shape[1]}" if recording.median_beats else ""
    rate = recording.measurements.get("heart_rate_bpm")
    facts = f"{recording.duration_s:.2f} s{beats}" + (f", recorder says {rate:g} bpm" if rate else "")
    axes.set_title(f"{title}: {facts}", fontsize=9, loc="left")
    if recording.notes:
        axes.text(0, -ROW_MV * 3.65, "; ".join(recording.notes)[:150], fontsize=5.5, color="#7a2020")


def main() -> int:
    """Draw the sheet and tell what was not read; 1 when nothing was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unit", help="unit of arrays that state none")
    parser.add_argument("--rate", type=float, help="sampling rate of arrays that state none [Hz]")
    parser.add_argument("--gain-uv-per-unit", type=float, help="in place of the gains of WFDB headers")
    given = parser.parse_args()
    declared = {"unit": given.unit, "rate_hz": given.rate, "gain_uv_per_unit": given.gain_uv_per_unit}
    found, failed = find(given.folder, {name: value for name, value in declared.items() if value is not None})
    for reason, count in failed.most_common():
        print(f"{count:4d} not drawn  {reason}")
    if not found:
        print(f"no recording of any format under {given.folder}", file=sys.stderr)
        return 1
    n_rows = (len(found) + 1) // 2
    figure, grid = plt.subplots(n_rows, 2, figsize=(20, 11.2 * n_rows / 2), dpi=90, squeeze=False)
    for axes in grid.ravel()[len(found) :]:
        axes.set_axis_off()
    for axes, (title, recording) in zip(grid.ravel(), sorted(found.items()), strict=False):
        draw(axes, title, recording)
    figure.tight_layout()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out)
    print(f"{len(found)} formats drawn: {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
