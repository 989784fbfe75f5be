"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """Where a run stands; together with the seed it decides everything random that follows.

    Attributes:
        epoch: Epoch that is under way, from 0.
        step_in_epoch: Steps done in it.
        step: Optimizer steps done in all, skipped ones included.
        skipped: Steps that were skipped because they were not finite.
        skipped_in_row: How many of them at the end.
        best_epoch: Epochs done at the best evaluation; 0 before the first.
        seconds: Time spent [s], over all parts of a resumed run.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    best_epoch: int = 0
    seconds: float = 0.0

    def count_step(self, taken: bool) -> None:
        """Go on by one step, which was taken or skipped."""
        if taken:
            self.skipped_in_row = 0
        else:
            self.skipped, self.skipped_in_row = self.skipped + 1, self.skipped_in_row + 1
        self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1

    def end_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
