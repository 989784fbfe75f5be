"""Report: figures as small SVG drawings, and one self-contained HTML page from results.json.

No script, font or image comes from outside the page. Figures are drawn without a plotting library: a page of vector
panels stays small, sharp at 400 and at 1280 pixels, and identical from run to run.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# A function that is named like its module (cine_strip, ecg_paper) is imported from there: as an attribute of this
# package the name would mean the module as soon as anything had imported that.
_PUBLIC = {
    "curves": ("calibration_figure", "loss_figure"),
    "differences": ("difference_figure",),
    "explain_pages": ("Question", "explanation_page", "neighbour_page"),
    "explain_sections": ("check_section", "explanation_section", "neighbour_section"),
    "explained": ("explained_frames", "explained_paper", "wave_bars"),
    "label_efficiency": ("label_efficiency_figure",),
    "page": ("Figure", "Headline", "LegendEntry", "PageLink", "Section", "Table", "build_report"),
    "palette": ("ArmStyle", "arm_styles"),
    "playing_cines": ("playing_gallery", "playing_heart"),
    "reconstruction": ("reconstruction_figure",),
    "retrieval_figure": ("rank_histogram", "recall_bars"),
    "sections": ("difference_sections", "headline_results", "label_efficiency_sections", "results_table_section"),
}
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
