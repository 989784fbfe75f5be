"""Tables of embeddings and predictions: what each row is about, the values, and in `attrs` what they mean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.intervals import with_bounds
from ecgcmr.hub.stream import Failed, Row

if TYPE_CHECKING:
    import pandas as pd

Verb = Literal["embed", "predict"]


class TableMaker:
    """Makes the tables of one run, all with the same columns.

    Attributes:
        attrs: Units of the columns and where the values come from; plain values, which parquet keeps.
    """

    def __init__(
        self,
        verb: Verb,
        about: Mapping[str, Any],
        labels: Sequence[Mapping[str, str]] = (),
        interval: Mapping[str, Any] | None = None,
        windows: str | int = "first",
        each_window: bool = False,
        from_cohort: bool = False,
    ) -> None:
        """Lay down the columns.

        Args:
            verb: "embed" or "predict".
            about: What `attrs` shall say of the model.
            labels: Labels of the head, for predictions.
            interval: Interval options of the head (`ecgcmr.hub.intervals`).
            windows: The windows that are taken.
            each_window: A row is a window and not a recording.
            from_cohort: Some rows have the numbers `recording` and `subject` of a cohort.
        """
        self._verb, self._names = verb, [label["name"] for label in labels]
        self._each_window, self._from_cohort = each_window, from_cohort
        same = interval and not each_window and _first(interval.get("windows", "first")) == _first(windows)
        self._widths = dict(interval["half_width"]) if interval else {}
        self._interval_holds = bool(same)
        units = {label["name"]: "probability" if label["kind"] == "binary" else label["unit"] for label in labels}
        for name in self._widths:
            units |= {f"{name}_lo": units[name], f"{name}_hi": units[name]}
        self.attrs: dict[str, Any] = {**about, "units": units}
        if interval:
            self.attrs["interval"] = dict(interval)
        clash = set(units) & {"item", "recording", "subject", "window", "start_s", "n_windows", "leads"}
        if clash:
            raise ValueError(f"the head has a label {sorted(clash)[0]!r}, which is the name of another column")

    def frame(self, rows: Sequence[Row]) -> pd.DataFrame:
        """One row for each recording, or window: what it is about, then the values (float32)."""
        import pandas as pd

        columns: dict[str, Any] = {"item": np.array([row.item.name for row in rows], dtype=object)}
        if self._from_cohort:
            for name in ("recording", "subject"):
                columns[name] = pd.array([row.item.about.get(name) for row in rows], dtype="Int64")
        if self._each_window:
            columns["window"] = np.array([row.window for row in rows], dtype=np.int64)
            columns["start_s"] = np.array([row.start_s for row in rows], dtype=np.float64)
        else:
            columns["n_windows"] = np.array([row.n_windows for row in rows], dtype=np.int64)
        columns["leads"] = np.array([",".join(row.leads) for row in rows], dtype=object)
        width = len(rows[0].values) if rows else len(self._names)
        values = np.stack([row.values for row in rows]) if rows else np.zeros((0, width), np.float32)
        if self._verb == "embed":
            columns |= {f"e{i:03d}": values[:, i] for i in range(width)}
        else:
            holds = np.array([self._interval_holds and len(row.leads) == len(LEADS) for row in rows], dtype=bool)
            columns |= with_bounds(values, self._names, self._widths, holds)
        table = pd.DataFrame(columns)
        table.attrs.update(self.attrs)
        return table


def ledger(failed: Sequence[Failed]) -> list[dict[str, str]]:
    """Rows {item, reason, detail} of what gave no output; the reasons are those of a cohort's ledger."""
    if not failed:
        return []
    from ecgcmr.cohort.ingest_read import reason_of
    from ecgcmr.cohort.ledger import Reason

    rows = []
    for one in failed:
        detail = str(one.error) or type(one.error).__name__
        if not isinstance(one.error, ValueError | OSError):
            detail = f"{type(one.error).__name__}: {detail}"
        reason = Reason.MISSING_FILE if isinstance(one.error, FileNotFoundError) else reason_of(detail)
        rows.append({"item": one.item.name, "reason": str(reason), "detail": detail})
    return rows


def warn_of_gaps(results: Sequence[Row | Failed]) -> None:
    """Warn of items without output, and of rows from fewer than twelve leads."""
    failed = [one for one in results if isinstance(one, Failed)]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len({id(one.item) for one in results})} recordings gave no output, the first is "
            f"{failed[0].item.name}: {failed[0].error}",
            stacklevel=5,
        )
    reduced = [one for one in results if isinstance(one, Row) and len(one.leads) < len(LEADS)]
    if reduced:
        warnings.warn(
            f"{len(reduced)} rows come from fewer than twelve leads (the first from {', '.join(reduced[0].leads)}): "
            "the tokens of the other leads were left out; what the model was tested on had all twelve",
            stacklevel=5,
        )


def embedding_matrix(results: Sequence[Row | Failed]) -> np.ndarray:
    """Values (N, D) in the order of the items; NaN for an item without output."""
    rows = [one for one in results if isinstance(one, Row)]
    gap = np.full(len(rows[0].values), np.nan, np.float32)
    return np.stack([one.values if isinstance(one, Row) else gap for one in results])


def _first(windows: str | int) -> str | int:
    return "first" if windows == 1 else windows
