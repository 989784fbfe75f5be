"""Ways of learning, one file each: masked ECG modelling, CMR SimCLR, alignment, supervised; and their registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgcmr.objectives.base import Objective, ObjectiveOutput
    from ecgcmr.objectives.facts import DataFacts, LabelFact
    from ecgcmr.objectives.groups import parameter_groups
    from ecgcmr.objectives.registry import ObjectiveConfig, build_objective

_WHERE = {
    "DataFacts": "facts",
    "LabelFact": "facts",
    "Objective": "base",
    "ObjectiveConfig": "registry",
    "ObjectiveOutput": "base",
    "build_objective": "registry",
    "parameter_groups": "groups",
}

__all__ = [
    "DataFacts",
    "LabelFact",
    "Objective",
    "ObjectiveConfig",
    "ObjectiveOutput",
    "build_objective",
    "parameter_groups",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
