"""What a weights folder is, in lines for a screen: its entry, its card, and what loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecgcmr.hub.card import Card
from ecgcmr.hub.catalogue import ModelEntry, describe_folder
from ecgcmr.hub.load_report import LoadReport
from ecgcmr.hub.source import resolve_source


@dataclass(frozen=True)
class About:
    """What is known of a folder.

    Attributes:
        entry: What its files say.
        card: What it says of itself; None if it does not load.
        report: Which tensors were loaded; None if it does not load.
        problem: Why it does not load; empty if it does.
    """

    entry: ModelEntry
    card: Card | None = None
    report: LoadReport | None = None
    problem: str = ""

    def lines(self) -> list[str]:
        """Give one line for each fact."""
        entry, card = self.entry, self.card
        facts = {
            "name": entry.name,
            "stage": entry.stage,
            "folder": entry.path,
            "modules": ", ".join(entry.modules),
            "architecture": entry.architecture,
            "input": entry.input,
            "labels": ", ".join(entry.labels),
            "parameters": f"{entry.parameters / 1e6:.2f} M, stored in {entry.dtype}, {entry.bytes / 1e6:.1f} MB",
            "sha256": entry.sha256,
            "license": entry.license,
            "provenance": entry.provenance,
            "trained on": card.trained_on if card else "",
            "command": card.command if card else "",
            "approval": card.approval if card else "",
            "intended use": card.intended_use if card else "",
            "limits": card.limits if card else "",
            "tensors": str(self.report or ""),
            "does not load": self.problem,
        }
        lines = [f"{name:<14}{value}" for name, value in facts.items() if str(value)]
        for metric in card.metrics if card else ():
            interval = f" [{metric.lo:.4g}, {metric.hi:.4g}]" if metric.lo is not None else ""
            where = f" on {metric.where}" if metric.where else ""
            lines.append(f"{'metric':<14}{metric.name}: {metric.value:.4g}{interval}{where}")
        return lines


def about_weights(source: str | Path) -> About:
    """Look into a weights folder and try to load it.

    Raises:
        FileNotFoundError, ValueError: If there is no folder, or not even its config.json can be read.
    """
    from ecgcmr.hub.weights import load_weights

    folder = resolve_source(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no weights folder there")
    entry = describe_folder(folder)
    try:
        weights = load_weights(folder)
    except (ValueError, FileNotFoundError) as error:
        return About(entry, problem=str(error))
    return About(entry, weights.card, weights.report)
