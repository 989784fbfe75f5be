"""Explanation: what every method of this room returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axes = tuple[str, ...]
ECG_AXES: Axes = ("lead", "time")
CMR_AXES: Axes = ("row", "column")
PAIR_AXES: Axes = ("lead", "time", "row", "column")
CLASS_AGNOSTIC = "none: attention is about no target"


@dataclass(frozen=True)
class Region:
    """What was taken away at once, and what that changed.

    Attributes:
        name: Of the region: `lead`, `window`, `patch`, or a wave (P, QRS, ST, T).
        lead: Lead, or "all"; "" for an image.
        effect: Output with everything minus output without the region [unit of the target].
    """

    name: str
    lead: str
    effect: float


@dataclass(frozen=True)
class Explanation:
    """What a model's output rests on, by one method.

    Attributes:
        values: Attribution in `unit`, (L, T) over leads and time, (H, W) over rows and columns of the prepared image,
            or (L, T, H, W) for pairs. T may be coarser than the samples: see `rate_hz`.
        axes: Names of the axes of `values`.
        method: Name of the method.
        target: Name of the explained output.
        unit: Unit of `values`.
        model: Name of the weights.
        sha256: Hash of their tensors.
        settings: Settings of the method, the baseline among them, as plain values.
        output: Output for the input as it is [unit of the target]; NaN where there is no target.
        baseline_output: Output for the baseline; NaN where the method has none.
        leads: Leads of the rows, for an ECG.
        rate_hz: Values for each second, for an ECG.
        start_s: Time of the first value in the recording [s].
        spacing_mm: Distance of rows and columns of `values` [mm], for an image.
        frames: Prepared frames (F, H, W) in [0, 1] that were explained, for an image.
        regions: What was taken away, for occlusion.
    """

    values: Array
    axes: Axes
    method: str
    target: str
    unit: str
    model: str
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    output: float = float("nan")
    baseline_output: float = float("nan")
    leads: tuple[str, ...] = ()
    rate_hz: float = float("nan")
    start_s: float = 0.0
    spacing_mm: tuple[float, float] = (float("nan"), float("nan"))
    frames: NDArray[np.float32] | None = None
    regions: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != len(self.axes):
            raise ValueError(f"values of shape {self.values.shape} do not have the axes {', '.join(self.axes)}")
        if not np.isfinite(self.values).all():
            raise ValueError(f"{self.method} of {self.target}: attributions are not finite")

    @property
    def modality(self) -> Literal["ecg", "cmr", "both"]:
        """What was explained."""
        if self.axes == ECG_AXES:
            return "ecg"
        return "cmr" if self.axes == CMR_AXES else "both"

    def by_lead(self) -> pd.Series:
        """Attribution of each lead: the effects of what was taken away in it, or the sum of its attributions over time.

        Values of occlusion repeat the effect of a region at each of its samples, so it is regions that are summed.
        """
        if self.modality != "ecg":
            raise ValueError(f"{self.method} explains {', '.join(self.axes)}: there are no leads to sum over")
        if self.regions:
            sums = [sum(region.effect for region in self.regions if region.lead == lead) for lead in self.leads]
        else:
            sums = self.values.sum(axis=1).tolist()
        return pd.Series(np.asarray(sums), index=list(self.leads), name=self.unit)

    def effects(self) -> pd.DataFrame:
        """Effects of the regions: rows are leads ("all" is all leads at once), columns the names of regions.

        Raises:
            ValueError: The method takes nothing away.
        """
        if not self.regions:
            raise ValueError(f"{self.method} takes nothing away; effects of regions come with method 'occlusion'")
        table = pd.DataFrame([(one.lead, one.name, one.effect) for one in self.regions], columns=["lead", "name", "e"])
        wide = table.pivot_table(index="lead", columns="name", values="e", sort=False, aggfunc="sum")
        wide.columns.name, wide.index.name = None, None
        return wide

    def save(self, path: str | Path) -> Path:
        """Write an .npz that holds numbers and text alone; `load_explanation` reads it.

        Raises:
            ValueError: For another suffix.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"{path}: expected a name that ends in .npz")
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays = {"values": plain.pop("values")}
        if (frames := plain.pop("frames")) is not None:
            arrays["frames"] = frames
        plain["regions"] = [[one.name, one.lead, one.effect] for one in self.regions]
        partial = path.with_name(f".{path.name}.partial.npz")
        np.savez_compressed(partial, about=np.array(json.dumps(plain, default=list)), **arrays)
        partial.replace(path)
        return path


def load_explanation(path: str | Path) -> Explanation:
    """Read what `Explanation.save` wrote; nothing is unpickled.

    Raises:
        ValueError: The file holds something else.
    """
    with np.load(Path(path), allow_pickle=False) as file:
        try:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in file.files if name != "about"}
            pairs: dict[str, Any] = {name: tuple(about.pop(name)) for name in ("axes", "leads", "spacing_mm")}
            regions = tuple(Region(*one) for one in about.pop("regions"))
            return Explanation(**arrays, **about, **pairs, regions=regions)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not an explanation of this package ({error!r})") from error
