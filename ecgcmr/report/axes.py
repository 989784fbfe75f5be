"""The axes have moved to `ecgcmr.drawing.axes`; the names stay here for whoever imports them."""

from ecgcmr.drawing.axes import Panel, padded, round_ticks, tick_labels

__all__ = ["Panel", "padded", "round_ticks", "tick_labels"]
