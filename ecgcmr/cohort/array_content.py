"""What the packed arrays of a cohort hold, as it is told in cohort.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ecgcmr.cohort.schema import ARRAY_FILES, MISSING_SAMPLE


def item_size(array: str, cine_dtype: str) -> int:
    """Bytes of one element of an array."""
    return {"ecg": 2, "masks": 1, "cine": 2 if cine_dtype == "uint16" else 1}[array]


@dataclass
class ArrayContent:
    """What occurs in the arrays."""

    units: set[str] = field(default_factory=set)
    leads: set[str] = field(default_factory=set)
    rates_hz: set[float] = field(default_factory=set)
    views: set[str] = field(default_factory=set)

    def add(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Note what rows of recordings or studies hold."""
        for row in rows:
            if table == "studies":
                self.views.add(row["view"])
            else:
                self.units.add(row["unit"])
                self.leads.add(row["leads"])
                self.rates_hz.add(row["rate_hz"])

    def describe(self, elements: Mapping[str, int], cine_dtype: str) -> dict[str, dict[str, Any]]:
        """The field `arrays` of cohort.json."""
        about: dict[str, dict[str, Any]] = {
            "ecg": {
                "dtype": "int16",
                "shape": "(n_leads, n_samples) at offset",
                "value": "code * scale_per_unit, in the unit of the row",
                "missing": MISSING_SAMPLE,
                "units": sorted(self.units),
                "leads": sorted(self.leads),
                "rates_hz": sorted(self.rates_hz),
            },
            "cine": {
                "dtype": cine_dtype,
                "shape": "(n_slices, n_frames, rows, columns) at offset",
                "value": "code * pixel_scale + pixel_offset",
                "units": ["arbitrary intensity"],
                "views": sorted(self.views),
            },
            "masks": {
                "dtype": "uint8",
                "shape": "(n_slices, n_frames, rows, columns) at mask_offset",
                "value": "code of mask_labels; 0 is background",
            },
        }
        for name, entry in about.items():
            entry["file"] = ARRAY_FILES[name]
            entry["byte_order"] = "little"
            entry["elements"] = elements[name]
            entry["bytes"] = elements[name] * item_size(name, cine_dtype)
        return about
