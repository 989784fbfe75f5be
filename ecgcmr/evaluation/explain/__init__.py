"""What a model's output rests on, and whether such maps can be believed. Names are imported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "attention": ("attention_rollout", "rollout"),
    "checks": ("RandomisationCheck", "sanity_check"),
    "front": ("METHODS", "explain"),
    "gradients": ("grad_cam", "integrated_gradients"),
    "localising": ("localisation",),
    "occluding": ("occlusion",),
    "scar_leads": ("planted_leads",),
    "scar_wall": ("planted_wall",),
    "planted": ("PlantedCheck",),
    "references": ("healthy_recordings",),
    "result": ("Explanation", "Region", "load_explanation"),
    "targets": ("Target", "head_target", "prototype_target", "similarity_target"),
    "waves": ("delineate",),
}
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
