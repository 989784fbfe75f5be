"""From converted weights to a folder, and what the user is told: loaded, dropped with reasons, chosen."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import ecgcmr
from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import AUTO, convert, detect_one, parse_options
from ecgcmr.hub.weights import save_weights


def convert_file(
    path: str | Path,
    name: str,
    folder: str | Path,
    options: Mapping[str, str] | Iterable[str] = (),
    force: bool = False,
) -> Converted:
    """Convert a file of third-party weights into a weights folder.

    Args:
        path: The file.
        name: The format (`ecgcmr.hub.convert.registry.FORMATS`), or "auto".
        folder: Where; it appears whole or not at all.
        options: By name, or as KEY=VALUE.
        force: Replace a weights folder that is there.

    Returns:
        What was converted and written.

    Raises:
        FileNotFoundError: If there is no file.
        FileExistsError: If there is something at `folder`; with `force`, if that is no weights folder.
        ValueError: For an unknown format or option, or a file that is not of the format, by key and reason.
        OSError: If the folder cannot be written.
    """
    path, folder = Path(path), Path(folder)
    if folder.exists():
        if not force:
            raise FileExistsError(f"{folder} exists; use --force to replace it, or choose another --out")
        if not (folder / "model.safetensors").is_file():
            raise FileExistsError(f"{folder} is no weights folder, so it is not replaced; choose another --out")
    pairs = options if isinstance(options, Mapping) else list(options)
    name = detect_one(path) if name == AUTO else name
    converted = convert(path, name, pairs)
    converted = replace(converted, card=_with_source(converted, path, name, parse_options(name, pairs)))
    save_weights(
        folder,
        converted.modules,
        converted.ecg_pipeline,
        converted.cmr_pipeline,
        converted.card,
        converted.head_options,
    )
    return converted


def report(converted: Converted) -> list[str]:
    """Say what was loaded, what was dropped and why, and what was chosen, in lines for a terminal."""
    lines = []
    for name, module in converted.modules.items():
        values = sum(p.numel() for p in module.parameters()) + sum(b.numel() for b in module.buffers())
        count = len(module.state_dict())
        lines.append(f"loaded   {name}: {type(module).__name__}, {count} tensors, {values / 1e6:.2f} million values")
    for reason, keys in _by_reason(converted.dropped).items():
        lines.append(f"dropped  {keys}: {reason}")
    if not converted.dropped:
        lines.append("dropped  nothing")
    return lines + [f"note     {note}" for note in converted.notes]


def _by_reason(dropped: Mapping[str, str]) -> dict[str, str]:
    """Gather keys by reason; keys that differ in their layer numbers only are written once."""
    grouped: dict[str, dict[str, int]] = {}
    for key, reason in dropped.items():
        family = re.sub(r"(?<=\.)\d+(?=\.)", "*", key)
        families = grouped.setdefault(reason, {})
        families[family] = families.get(family, 0) + 1
    return {
        reason: ", ".join(f"{family} ({n})" if n > 1 else family for family, n in families.items())
        for reason, families in grouped.items()
    }


def _with_source(converted: Converted, path: Path, name: str, options: Mapping[str, str]) -> Card:
    """Add to the card where the weights come from and how they were converted."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    chosen = " ".join(f"{key}={value}" for key, value in options.items())
    facts = {
        "converted from": f"{path.name} (third-party weights; sha256 {digest})",
        "converted by": f"ecgcmr {ecgcmr.__version__}, format {name}{', options ' + chosen if chosen else ''}",
    }
    if converted.dropped:
        facts["not taken from the file"] = "; ".join(f"{k}: {why}" for why, k in _by_reason(converted.dropped).items())
    if converted.notes:
        facts["about the conversion"] = " ".join(converted.notes)
    return converted.card.model_copy(update={"run": {**converted.card.run, **facts}})
