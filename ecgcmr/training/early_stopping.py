"""Early stopping as the reference does it: `max_delta` is a tolerance, not a minimum gain."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass
class EarlyStopping:
    """Follow one validation value and say when to stop.

    An evaluation is bad only if it is more than `max_delta` worse than the best so far; any other resets the count. The
    run stops when more than `patience` evaluations in a row were bad: with patience 25 at the 26th. A value that is not
    finite is bad. (Reference: oetu/mae fine-tuning at HEAD, spec section 2.5; described in arXiv 2308.05764.)

    Attributes:
        mode: Whether a smaller ("min") or a larger ("max") value is better.
        patience: Bad evaluations in a row that are allowed; None never stops.
        max_delta: How much worse than the best is still not bad, in the unit of the value.
        best: Best value so far; None before the first finite one.
        bad: Bad evaluations in a row.
    """

    mode: Literal["min", "max"] = "min"
    patience: int | None = None
    max_delta: float = 0.0
    best: float | None = None
    bad: int = 0

    def update(self, value: float) -> bool:
        """Take one evaluation; True if it is the best so far."""
        if not math.isfinite(value):
            self.bad += 1
            return False
        if self.best is None:
            self.best, self.bad = value, 0
            return True
        gain = value - self.best if self.mode == "max" else self.best - value
        self.bad = self.bad + 1 if gain < -self.max_delta else 0
        if gain > 0:
            self.best = value
        return gain > 0

    @property
    def should_stop(self) -> bool:
        """Whether more than `patience` evaluations in a row were bad."""
        return self.patience is not None and self.bad > self.patience

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold."""
        return {key: value for key, value in asdict(self).items() if key in ("best", "bad")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.best, self.bad = state["best"], int(state["bad"])
