"""One entry to both formats of an export, and what to say about the folder it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgcmr.hub.export_folder import EXPORT
from ecgcmr.hub.reading import read_json

FORMATS = ("onnx", "program")


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: Where.
        about: Its export.json.
    """

    folder: Path
    about: dict[str, Any]

    def lines(self) -> list[str]:
        """For a terminal: each graph with its file, size and distance from the weights."""
        found = []
        for name, entry in self.about["graphs"].items():
            parity = entry["parity"]["max_abs_difference"]
            found.append(f"{name:<16}{entry['file']:<24}{entry['bytes'] / 2**20:6.2f} MiB  differs by {parity:.1g}")
            if "int8" in entry:
                small, moved = entry["int8"], entry["int8"]["moved"]
                text = ", ".join(f"{what.replace('_', ' ')} {value:.4g}" for what, value in moved.items())
                found.append(f"{'':<16}{small['file']:<24}{small['bytes'] / 2**20:6.2f} MiB  int8, not exact: {text}")
        return [*found, f"written: {self.folder}"]


def export_weights(
    source: str | Path,
    out_dir: str | Path,
    format_name: str = "onnx",
    what: Sequence[str] | None = None,
    int8: bool = False,
    force: bool = False,
) -> Exported:
    """Export weights in one of the formats; arguments and errors as `export_onnx` and `export_program`.

    Raises:
        ValueError: For an unknown format, or int8 with a format that has none.
    """
    if format_name not in FORMATS:
        raise ValueError(f"format is {format_name!r}, expected one of {', '.join(FORMATS)}")
    if format_name == "program":
        if int8:
            raise ValueError("int8 is offered for the format onnx only")
        from ecgcmr.hub.program_export import export_program

        folder = export_program(source, out_dir, what, force)
    else:
        from ecgcmr.hub.onnx_export import export_onnx

        folder = export_onnx(source, out_dir, what, int8, force)
    return Exported(folder, read_json(folder / EXPORT))
