"""Specifications of the labels of a simulated cohort: phenotypes by their unit, diagnoses, outcomes by their name."""

from __future__ import annotations

from collections.abc import Sequence

from ecgcmr.cohort.schema import LabelSpec

# Plausible range by unit: wide enough for every disease, narrow enough to catch a wrong unit.
RANGES: dict[str, tuple[float, float]] = {
    "ml": (0.0, 900.0),
    "g": (0.0, 700.0),
    "%": (-100.0, 100.0),
    "l/min": (0.0, 25.0),
    "mm": (0.0, 150.0),
    "ms": (0.0, 3000.0),
    "1/min": (15.0, 300.0),
    "years": (0.0, 130.0),
}


def label_specs(names: Sequence[str]) -> tuple[LabelSpec, ...]:
    """Specs of label columns, in their order.

    Columns named like a phenotype take its unit and UK Biobank field; `*_time*` is a time, `*_event` an event,
    everything else a diagnosis.
    """
    from ecgcmr.simulation.phenotypes import PHENOTYPES

    known = {item.name: item for item in PHENOTYPES}
    specs = []
    for name in names:
        if name in known:
            item = known[name]
            low, high = RANGES.get(item.unit, (None, None))
            spec = LabelSpec(name, "regression", item.unit, item.description, item.ukb_field, low=low, high=high)
        elif "_time" in name or name.startswith("time_"):
            spec = LabelSpec(name, "time", "years", f"follow-up time of {_disease(name)}", low=0.0, high=130.0)
        elif "_event" in name or name.startswith("event_"):
            spec = LabelSpec(name, "event", description=f"whether {_disease(name)} was seen during follow-up")
        else:
            spec = LabelSpec(name, "binary", description=f"{name} at baseline, as simulated")
        specs.append(spec)
    return tuple(specs)


def _disease(name: str) -> str:
    for part in ("_time_years", "_time", "time_", "_event", "event_"):
        name = name.replace(part, "")
    return name.replace("_", " ").strip()
