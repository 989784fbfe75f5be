"""Occlusion: take a region away and see how the output changes (Zeiler & Fergus 2014, arXiv 1311.2901).

An effect is f(x) - f(x without the region): positive where the region raises the output. Regions of an ECG are a
lead, a window of one lead, or all beats' P, QRS, ST or T in one lead; of an image, patches. Effects of regions do not
add up: leads repeat each other, so that without one the model may read the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.prepare import prepare
from ecgcmr.evaluation.explain.references import prepare_references
from ecgcmr.evaluation.explain.result import CMR_AXES, ECG_AXES, Explanation, Region
from ecgcmr.evaluation.explain.targets import resolve_target
from ecgcmr.evaluation.explain.waves import WAVES, delineate, wave_masks

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

BY = ("lead", "window", "wave", "patch")
ALL = "all"
_BATCH = 64
Rows = Sequence[int]


def occlusion(
    model: LoadedModel,
    item: Any,
    target: Any,
    by: str | None = None,
    window_ms: float = 100.0,
    patches: int = 14,
    delineation_lead: str = "II",
    references: Sequence[Any] = (),
) -> Explanation:
    """Explain by taking regions away.

    Args:
        model: The model.
        item: A recording or ECG file, or a cine.
        target: As `resolve_target` takes it.
        by: For an ECG `lead`, `window` (one lead, `window_ms` long; the default) or `wave`; for a cine `patch`.
        window_ms: Length of a window [ms].
        patches: Patches along each side of the image.
        delineation_lead: Lead in which the waves are found.
        references: Recordings (or cines) whose lead, window or patch takes the place of what is taken away, one at a
            time; the effect is the mean over them. See `references` for why. Not for waves.

    Returns:
        Values are the effect of the region that a sample or pixel belongs to; 0 where nothing was taken away. A lead
        or window becomes 0 (0 mV where the pipeline keeps the voltage, else its mean); a wave becomes the straight
        line between its ends; a patch becomes the mean of the image.

    Raises:
        ValueError: For an unknown `by`, sizes that do not fit, or as `prepare`, `resolve_target` and `delineate`.
    """
    prepared = prepare(model, item)
    by = by or ("window" if prepared.modality == "ecg" else "patch")
    allowed = ("patch",) if prepared.modality == "cmr" else BY[:3]
    if by not in allowed:
        raise ValueError(f"by is {by!r}, expected {' or '.join(allowed)} for {prepared.modality.upper()}")
    chosen = resolve_target(model, target, prepared.modality)
    number = chosen.of(prepared)
    x = prepared.x[0]
    if len(references) and by == "wave":
        raise ValueError(
            "a wave is flattened, not replaced: beats of other subjects are elsewhere; leave references out"
        )
    others = prepare_references(model, references, prepared) if len(references) else None
    settings: dict[str, Any] = {"by": by}
    if by == "patch":
        cells = list(_patches(x, patches))
        settings |= {"baseline": "mean of the image", "patches": patches}
    elif by == "lead":
        cells = [("lead", lead, [((row,), 0, x.shape[1])]) for row, lead in enumerate(LEADS)]
        settings |= {"baseline": "0"}
    elif by == "window":
        cells = list(_windows(x, window_ms, prepared.rate_hz))
        settings |= {"baseline": "0", "window_ms": window_ms}
    else:
        assert isinstance(prepared.source, EcgRecording), "waves are asked for ECGs alone"
        spans = delineate(prepared.source, delineation_lead)
        cells = list(_waves(wave_masks(spans, prepared.start_s, x.shape[1], prepared.rate_hz)))
        settings |= {"baseline": "straight line between the ends", "delineation_lead": delineation_lead}
        settings["beats"] = len(spans["QRS"])
    if others is not None:
        settings["baseline"] = f"{len(others)} references"
    fill = "line" if by == "wave" else "mean" if by == "patch" else "zero"
    with torch.no_grad():
        output = float(number(prepared.x)[0])
        without = [_outputs(number, x, cells, fill, other) for other in ([None] if others is None else others)]
    effects = output - np.mean(without, axis=0)
    values = np.zeros(x.shape[-2:] if by == "patch" else tuple(x.shape))
    for (_, lead, spots), effect in zip(cells, effects, strict=True):
        for rows, first, last in spots if lead != ALL else ():
            if by == "patch":
                values[rows[0] : rows[1], first:last] = effect
            else:
                values[list(rows), first:last] = effect
    regions = tuple(
        Region(name, lead, float(effect)) for (name, lead, _), effect in zip(cells, effects, strict=True)
    )  # fmt: skip
    ecg = prepared.modality == "ecg"
    return Explanation(
        values=values,
        axes=ECG_AXES if ecg else CMR_AXES,
        method="occlusion",
        target=chosen.name,
        unit=chosen.unit,
        model=str(model.config["name"]),
        sha256=str(model.config["sha256"]),
        settings=settings,
        output=output,
        leads=LEADS if ecg else (),
        rate_hz=prepared.rate_hz,
        start_s=prepared.start_s,
        spacing_mm=prepared.spacing_mm,
        frames=None if ecg else prepared.frames,
        regions=regions,
    )


Cell = tuple[str, str, list[tuple[Rows, int, int]]]
"""Name and lead of a region, and its parts: rows, first column, one past the last."""


def _windows(x: Tensor, window_ms: float, rate_hz: float) -> Iterator[Cell]:
    n = round(window_ms / 1000.0 * rate_hz)
    if not 1 <= n <= x.shape[1]:
        longest = x.shape[1] / rate_hz * 1000
        raise ValueError(f"window_ms is {window_ms}, expected {1000 / rate_hz:g} to {longest:g} ms")
    for row, lead in enumerate(LEADS):
        for first in range(0, x.shape[1], n):
            yield "window", lead, [((row,), first, min(first + n, x.shape[1]))]


def _waves(masks: Mapping[str, list[tuple[int, int]]]) -> Iterator[Cell]:
    rows = range(len(LEADS))
    for wave in WAVES:
        if masks[wave]:
            for row, lead in enumerate(LEADS):
                yield wave, lead, [((row,), first, last) for first, last in masks[wave]]
            yield wave, ALL, [(tuple(rows), first, last) for first, last in masks[wave]]


def _patches(x: Tensor, patches: int) -> Iterator[Cell]:
    height, width = x.shape[-2:]
    if not 2 <= patches <= min(height, width):
        raise ValueError(f"patches is {patches}, expected 2 to {min(height, width)} along each side of the image")
    tall = np.linspace(0, height, patches + 1).round().astype(int)
    wide = np.linspace(0, width, patches + 1).round().astype(int)
    for top, bottom in itertools.pairwise(tall):
        for left, right in itertools.pairwise(wide):
            yield "patch", "", [((int(top), int(bottom)), int(left), int(right))]


def _outputs(number: Any, x: Tensor, cells: Sequence[Cell], fill: str, other: Tensor | None = None) -> np.ndarray:
    """The number (M,) without each region, or with that of another input in its place, float64."""
    mean = x.mean()
    out = []
    for start in range(0, len(cells), _BATCH):
        part = cells[start : start + _BATCH]
        batch = x[None].repeat(len(part), *([1] * x.ndim))
        for one, (_, _, spots) in zip(batch, part, strict=True):
            for rows, first, last in spots:
                if other is not None:
                    place = (
                        (..., slice(*rows), slice(first, last)) if fill == "mean" else (list(rows), slice(first, last))
                    )
                    one[place] = other[place]
                elif fill == "mean":
                    one[..., rows[0] : rows[1], first:last] = mean
                elif fill == "zero":
                    one[list(rows), first:last] = 0.0
                else:
                    one[list(rows), first:last] = _line(x[list(rows)], first, last)
        out.append(number(batch).double().cpu().numpy())
    return np.concatenate(out)


def _line(rows: Tensor, first: int, last: int) -> Tensor:
    """The straight line (R, last - first) between the samples before and after a region."""
    before, after = max(first - 1, 0), min(last, rows.shape[1] - 1)
    share = torch.arange(first, last, device=rows.device, dtype=rows.dtype).sub(before) / max(after - before, 1)
    return rows[:, before, None] * (1 - share) + rows[:, after, None] * share
