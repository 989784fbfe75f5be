"""A folder of exported graphs: the graphs, export.json, preprocess.json, expected.json, README.md; whole or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ecgcmr
from ecgcmr.hub.folder import restore, write_folder
from ecgcmr.hub.reading import check_place, read_json

if TYPE_CHECKING:
    from ecgcmr.hub.export_graphs import Graph
    from ecgcmr.hub.weights import Weights

EXPORT = "export.json"
EXPORT_VERSION = 1
SIDE_FILES = (EXPORT, "README.md", "expected.json", "preprocess.json")
NOTICE = (
    "Research software. This is not a medical device: it must not be used for diagnosis, triage or treatment, "
    "and no authority has assessed it."
)


def check_target(folder: Path, weights_folder: Path, force: bool) -> None:
    """Refuse to replace anything but an earlier export, and that only on request.

    Raises:
        FileExistsError: If there is something at `folder`.
    """
    restore(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if folder.resolve() == weights_folder.resolve() or not (folder / EXPORT).is_file():
        raise FileExistsError(f"{folder} exists and is no earlier export; choose another folder")
    others = [p.name for p in folder.iterdir() if p.name not in SIDE_FILES and p.suffix not in (".onnx", ".pt2")]
    if others:
        raise FileExistsError(f"{folder} holds {', '.join(sorted(others)[:3])} beside an export, which would be lost")
    if not force:
        raise FileExistsError(
            f"{folder} holds an earlier export; use force (--force) to replace it, with all its graphs"
        )


def graph_entry(weights: Weights, graph: Graph) -> dict[str, Any]:
    """What a user of a graph must know: its input and its output."""
    entry: dict[str, Any] = {
        "modality": graph.modality,
        "input": {"name": graph.modality, "shape": ["batch", *graph.input_shape], "type": "float32"},
        "output": {"name": graph.output, "shape": ["batch", graph.width], "type": "float32"},
    }
    config = weights.config
    if graph.modality == "ecg":
        about = config["ecg"]
        entry["input"] |= {
            "axes": ["batch", "lead", "time"],
            "prepared_by": f"preprocess.json, ecg: pipeline {about['pipeline']!r}",
            "leads": about["leads"],
            "rate_hz": about["rate_hz"],
            "window": about["window"],
            "recording_unit": about["unit"],
        }
    else:
        entry["input"] |= {
            "prepared_by": f"preprocess.json, cmr: pipeline {config['cmr']['pipeline']!r}, then divided by 255",
            "unit": "1, in [0, 1]",
        }
    if graph.output == "prediction":
        entry["output"]["labels"] = [
            {**label, "unit": "probability" if label["kind"] == "binary" else label["unit"]}
            for label in config["labels"]
        ]
    elif graph.output == "projection":
        entry["output"]["norm"] = "length 1: the scalar product of ECG and CMR is the cosine"
    return entry


def write_export(
    folder: Path,
    weights: Weights,
    format_name: str,
    files: Mapping[str, bytes],
    entries: Mapping[str, dict[str, Any]],
    tools: Mapping[str, Any],
) -> Path:
    """Write the folder; sizes and digests of the graphs' files are added to their entries.

    Args:
        folder: Where.
        weights: Where the graphs are from.
        format_name: onnx or program.
        files: Content of the graphs' files by file name.
        entries: By graph, what `graph_entry` gave and what was measured; "file" (and "int8"."file") name files.
        tools: Versions and settings that made the files.
    """
    graphs = {name: dict(entry) for name, entry in entries.items()}
    for entry in graphs.values():
        for part in (entry, *([entry["int8"]] if "int8" in entry else [])):
            data = files[part["file"]]
            part |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    config = weights.config
    about = {
        "format": f"ecgcmr-export-{format_name}",
        "format_version": EXPORT_VERSION,
        "notice": NOTICE,
        **card_fields(weights),
        "graphs": graphs,
        "labels": config["labels"],
        "head_options": dict(config.get("head_options") or {}),
        "weights_sha256": config["sha256"],
        "ecgcmr_version": ecgcmr.__version__,
        "made_by": dict(tools),
    }
    parts = {
        **files,
        EXPORT: (json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "README.md": render_readme(weights, format_name, graphs).encode(),
        "expected.json": (weights.folder / "expected.json").read_bytes(),
        "preprocess.json": (weights.folder / "preprocess.json").read_bytes(),
    }
    write_folder(folder, parts, if_full="free space and export again")
    return folder


def card_fields(weights: Weights) -> dict[str, str]:
    """What must be said wherever the weights go."""
    config = weights.config
    return {key: str(config[key]) for key in ("name", "license", "provenance", "trained_on")}


def read_export(folder: Path, format_name: str) -> dict[str, Any]:
    """Read export.json of a folder.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If it is of another format or version, or lacks a field.
    """
    restore(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no exported folder there")
    absent = [name for name in SIDE_FILES if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{folder}: {', '.join(absent)} missing: this is not a complete export; write it again with "
            "ecgcmr weights export"
        )
    check_place(folder, SIDE_FILES)
    about = read_json(folder / EXPORT)
    wanted = f"ecgcmr-export-{format_name}"
    if about.get("format") != wanted or about.get("format_version") != EXPORT_VERSION:
        raise ValueError(
            f"{folder / EXPORT}: format {about.get('format')!r} version {about.get('format_version')!r}, this ecgcmr "
            f"({ecgcmr.__version__}) reads {wanted!r} version {EXPORT_VERSION} here"
        )
    if not isinstance(about.get("graphs"), dict) or not about["graphs"]:
        raise ValueError(f"{folder / EXPORT}: graphs is empty or missing")
    return about


def read_graph_file(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """Read the file of a graph and check its digest.

    Raises:
        FileNotFoundError, ValueError: If it is missing, elsewhere, or not the file that export.json describes.
    """
    name = str(entry["file"])
    if Path(name).name != name:
        raise ValueError(f"{folder / EXPORT}: file {name!r} is not in the folder itself")
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but export.json lists it; export again")
    check_place(folder, (name,))
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        raise ValueError(
            f"{path}: not the file that export.json describes (sha256 begins with {found[:12]}, export.json says "
            f"{str(entry['sha256'])[:12]}); get the folder again"
        )
    return data


def render_readme(weights: Weights, format_name: str, graphs: Mapping[str, Mapping[str, Any]]) -> str:
    """Write README.md: what the export is, then the card of the weights, word for word."""
    head, card = _split_front_matter((weights.folder / "README.md").read_text(encoding="utf-8"))
    title = {"onnx": "ONNX", "program": "torch.export"}[format_name]
    lines = [*head, f"# {weights.config['name']}, exported ({title})", "", f"> {NOTICE}", ""]
    lines += ["| graph | file | input | output |", "|---|---|---|---|"]
    for name, entry in graphs.items():
        files = entry["file"] + (f", {entry['int8']['file']}" if "int8" in entry else "")
        inside, outside = entry["input"], entry["output"]
        lines.append(f"| {name} | {files} | {inside['name']} {_shape(inside)} | {outside['name']} {_shape(outside)} |")
    lines += [
        "", "Inputs must be prepared as `preprocess.json` says; `export.json` has names, units, digests and how far",
        "each graph is from the weights. The card of the weights follows; its commands are about the weights folder.",
        "",
        "---", "", card,
    ]  # fmt: skip
    return "\n".join(lines)


def _shape(entry: Mapping[str, Any]) -> str:
    return f"({', '.join(map(str, entry['shape']))})"


def _split_front_matter(text: str) -> tuple[list[str], str]:
    lines = text.splitlines()
    if lines and lines[0] == "---" and "---" in lines[1:]:
        end = lines.index("---", 1) + 1
        return [*lines[:end], ""], "\n".join(lines[end:]).strip() + "\n"
    return [], text
