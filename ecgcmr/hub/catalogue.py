"""Which weights there are on this machine, without loading any of them: no torch is imported here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgcmr.hub.reading import read_json, tensor_header
from ecgcmr.hub.source import cache_folder, named_folders

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ("name", "stage", "architecture", "parameters", "input", "license", "provenance", "bytes", "where")


@dataclass(frozen=True)
class ModelEntry:
    """One weights folder, as `list_models` shows it.

    Attributes:
        name: What `load_model` takes.
        stage: What it was trained for.
        modules: What it holds, for instance ecg, cmr, ecg_projection, cmr_projection, head.
        architecture: Preset or backbone of each encoder.
        parameters: Number of stored numbers.
        input: What the encoders read.
        labels: Names of the outputs of the head.
        license: License of the weights.
        provenance: Where the training data come from.
        dtype: How the tensors are stored.
        bytes: Size of all its files [bytes].
        sha256: Hash of model.safetensors.
        where: released or cache.
        path: The folder.
    """

    name: str
    stage: str
    modules: tuple[str, ...]
    architecture: str
    parameters: int
    input: str
    labels: tuple[str, ...]
    license: str
    provenance: str
    dtype: str
    bytes: int
    sha256: str
    where: str
    path: Path


class ModelTable(tuple[ModelEntry, ...]):
    """Entries that print as a table."""

    @property
    def names(self) -> list[str]:
        """What `load_model` takes."""
        return [entry.name for entry in self]

    def to_frame(self) -> pd.DataFrame:
        """Give a table with one row for each entry."""
        import pandas as pd

        return pd.DataFrame([asdict(entry) for entry in self], columns=[field.name for field in fields(ModelEntry)])

    def rows(self) -> list[dict[str, Any]]:
        """Give what a table on a screen has room for."""
        rows = [{name: getattr(entry, name) for name in _SHOWN} for entry in self]
        for row in rows:
            row |= {"parameters": f"{row['parameters'] / 1e6:.2f} M", "bytes": f"{row['bytes'] / 1e6:.1f} MB"}
        return rows

    def to_json(self) -> str:
        """Give all fields as JSON."""
        return json.dumps([{**asdict(entry), "path": str(entry.path)} for entry in self], indent=1)

    def __repr__(self) -> str:
        rows = [_SHOWN, *(tuple(str(value) for value in row.values()) for row in self.rows())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def list_models() -> ModelTable:
    """List the weights that have a name on this machine: those released with the package, and those in the cache.

    Returns:
        Entries with name, stage, architecture, parameters, input, license, provenance, bytes, sha256 and place; it
        prints as a table, and `.to_frame()` gives it to pandas.

    Raises:
        ValueError: If a folder's config.json or model.safetensors cannot be read.
    """
    return ModelTable(describe_folder(folder, name) for name, folder in named_folders().items())


def describe_folder(folder: Path, name: str | None = None) -> ModelEntry:
    """Describe a weights folder from its config.json and the header of its tensors, which are not read.

    Raises:
        FileNotFoundError, ValueError: If one of the two is missing or broken.
    """
    config = read_json(folder / "config.json")
    header = tensor_header(folder / "model.safetensors")
    modules: Mapping[str, Any] = config.get("modules", {})
    shapes = [entry["shape"] for entry in header.values()]
    return ModelEntry(
        name=name or str(config.get("name")),
        stage=str(config.get("stage")),
        modules=tuple(modules),
        architecture=_architecture(modules),
        parameters=sum(_product(shape) for shape in shapes),
        input=_input(config),
        labels=tuple(str(label["name"]) for label in config.get("labels") or []),
        license=str(config.get("license")),
        provenance=str(config.get("provenance")),
        dtype=str((config.get("storage") or {}).get("dtype", "float32")),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        sha256=str(config.get("sha256")),
        where="cache" if folder.parent == cache_folder() else "released",
        path=folder,
    )


def _architecture(modules: Mapping[str, Any]) -> str:
    parts = []
    for name in ("ecg", "cmr"):
        if name in modules:
            config = modules[name]
            sizes = f" {config['width']}x{config['depth']}" if {"width", "depth"} <= set(config) else ""
            parts.append(f"{name} {config.get('preset') or config.get('name') or config.get('kind')}{sizes}")
    return ", ".join(parts)


def _input(config: Mapping[str, Any]) -> str:
    parts = []
    if config.get("ecg"):
        ecg = config["ecg"]
        seconds = ecg["n_samples"] / ecg["rate_hz"]
        parts.append(f"{len(ecg['leads'])} leads, {seconds:g} s at {ecg['rate_hz']:g} Hz ({ecg['unit']})")
    if config.get("cmr"):
        parts.append(f"cine {'x'.join(map(str, config['cmr']['shape']))}")
    return "; ".join(parts)


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
