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

    Columns named like a phenotype take its unit and UK Biobank field; `frame_*` and `time_*_ms` are keyframes;
    `*_time_years` and `*_event` are the pair of an outcome; everything else is a diagnosis.
    """
    from ecgcmr.simulation.phenotypes import PHENOTYPES

    known = {item.name: item for item in PHENOTYPES}
    specs = []
    for name in names:
        if name in known:
            item = known[name]
            low, high = RANGES.get(item.unit, (None, None))
            spec = LabelSpec(name, "regression", item.unit, item.description, item.ukb_field, low=low, high=high)
        elif name.startswith("frame_"):
            words = f"frame of the cine at {name.removeprefix('frame_')}"
            spec = LabelSpec(name, "regression", "frame", words, low=0.0, high=1000.0)
        elif name.startswith("time_") and name.endswith("_ms"):
            words = f"time of keyframe {name.removeprefix('time_').removesuffix('_ms')} after the R wave"
            spec = LabelSpec(name, "regression", "ms", words, low=0.0, high=3000.0)
        elif name.endswith("_time_years"):
            words = f"follow-up time of incident {_disease(name)}; missing if not at risk"
            spec = LabelSpec(name, "time", "years", words, low=0.0, high=130.0)
        elif name.endswith("_event"):
            words = f"incident {_disease(name)} seen during follow-up; missing if not at risk"
            spec = LabelSpec(name, "event", description=words)
        else:
            spec = LabelSpec(name, "binary", description=f"{name} at baseline, as simulated")
        specs.append(spec)
    return tuple(specs)


def _disease(name: str) -> str:
    return name.removesuffix("_time_years").removesuffix("_event").replace("_", " ")
