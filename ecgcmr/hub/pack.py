"""A release folder out of the weights of one or more runs: chosen modules, one card, and a check that they fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ecgcmr.hub.card import Card, cohorts_of, is_stated, provenance_kinds
from ecgcmr.hub.source import resolve_source
from ecgcmr.hub.weights import Weights, load_weights, save_weights

MODULES = ("ecg", "ecg_projection", "cmr", "cmr_projection", "head", "ecg_decoder", "tabular", "tabular_projection")
_ENCODER_OF = {
    "ecg_projection": "ecg",
    "head": "ecg",
    "ecg_decoder": "ecg",
    "cmr_projection": "cmr",
    "tabular_projection": "tabular",
}
# What changes nothing of what a module computes once it is trained.
_TRAINING_ONLY = ("drop_path", "learn_positions", "preset", "pretrained", "channels_last")


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        folder: The release folder.
        taken: By module, the folder it came from.
        left_out: Modules of the sources that were not asked for.
        unsaid: Fields of the card that still say nothing of their own.
    """

    folder: Path
    taken: dict[str, Path]
    left_out: tuple[str, ...]
    unsaid: tuple[str, ...]


def pack(
    sources: Sequence[str | Path],
    out: str | Path,
    modules: Sequence[str] | None = None,
    dtype: str = "float32",
    card: Mapping[str, Any] | None = None,
    exact: Sequence[str] = (),
) -> Packed:
    """Make a release folder.

    A head from a supervised run joins the encoder of an alignment run only if that run had frozen the encoder: a
    module that several sources hold must be equal in all of them, to the bit, and a head, a projection or a decoder
    comes from a source that holds its encoder.

    Args:
        sources: Weights folders or run folders (with `weights/` inside); anything that `load_weights` takes.
        out: The new folder; its name is the name of the weights unless the card has one.
        modules: Names among `MODULES`; None for all that the sources hold.
        dtype: float32 or float16, as in `save_weights`.
        card: Fields of `Card`, which replace those of the first source; `run` cannot be set.
        exact: Modules that stay in float32, as in `save_weights`.

    Returns:
        What came from where.

    Raises:
        FileNotFoundError: If a source is missing.
        ValueError: If a module is in no source, modules do not belong together, sources were split differently, the
            card is wrong or says less of the provenance than the sources, or half precision moves an output too far.
        OSError: If it cannot be written.
    """
    out = Path(out)
    if not sources:
        raise ValueError("nothing to pack: give at least one weights folder or run folder")
    loaded = [load_weights(_weights_of(source)) for source in sources]
    names = _chosen(modules, loaded)
    _check_equal(loaded)
    _check_splits(loaded)
    taken = {name: next(one for one in loaded if _offers(one, name)) for name in names}
    pipelines = {kind: taken[kind] for kind in ("ecg", "cmr") if kind in taken}
    whole = _packed_card(loaded, {"name": out.name, **(card or {})})
    head = taken.get("head")
    save_weights(
        out,
        {name: source.modules[name] for name, source in taken.items()},
        pipelines["ecg"].ecg_pipeline if "ecg" in pipelines else None,
        pipelines["cmr"].cmr_pipeline if "cmr" in pipelines else None,
        whole,
        head.config["head_options"] if head else None,
        dtype,
        exact,
    )
    held = {name for one in loaded for name in one.modules}
    return Packed(
        folder=out,
        taken={name: source.folder for name, source in taken.items()},
        left_out=tuple(sorted(held - set(names))),
        unsaid=tuple(name for name in ("license", "provenance", "command", "metrics") if _says_nothing(whole, name)),
    )


def read_card_file(path: Path) -> dict[str, Any]:
    """Read fields of a card from YAML or JSON.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither, or has a field that no card has.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: neither YAML nor JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected fields of a card, found {type(fields).__name__}")
    known = [name for name in Card.model_fields if name != "run"]
    wrong = [str(name) for name in fields if name not in known]
    if wrong:
        raise ValueError(f"{path}: no field of a card: {', '.join(wrong)}; fields are {', '.join(known)}")
    return fields


def _weights_of(source: str | Path) -> Path:
    folder = resolve_source(source)
    inside = folder / "weights"
    return inside if inside.is_dir() and not (folder / "config.json").is_file() else folder


def _chosen(modules: Sequence[str] | None, loaded: Sequence[Weights]) -> list[str]:
    names = [name for name in MODULES if any(_offers(one, name) for one in loaded)]
    if modules is None:
        return names
    absent = [name for name in modules if name not in names]
    if absent:
        held = "; ".join(f"{one.folder} holds {', '.join(one.modules)}" for one in loaded)
        raise ValueError(f"no source holds {', '.join(absent)} together with its encoder: {held}")
    alone = [name for name in modules if _ENCODER_OF.get(name, name) not in modules]
    if alone:
        raise ValueError(f"{', '.join(alone)}: of no use without {', '.join(sorted({_ENCODER_OF[n] for n in alone}))}")
    return [name for name in MODULES if name in modules]


def _offers(weights: Weights, name: str) -> bool:
    return name in weights.modules and _ENCODER_OF.get(name, name) in weights.modules


def _check_equal(loaded: Sequence[Weights]) -> None:
    first: dict[str, Weights] = {}
    for weights in loaded:
        for name, module in weights.modules.items():
            other = first.setdefault(name, weights)
            if other is weights:
                continue
            ours, theirs = module.state_dict(), other.modules[name].state_dict()
            differing = [key for key in {**theirs, **ours} if not _same(ours.get(key), theirs.get(key))]
            settings = [key for key in _differing(weights, other, name) if key not in _TRAINING_ONLY]
            if differing or settings:
                raise ValueError(
                    f"{name!r} of {weights.folder} is not that of {other.folder}: "
                    f"{len(differing)} tensors differ ({', '.join(differing[:3]) or '-'}), settings differ: "
                    f"{', '.join(settings) or '-'}; only modules trained on the same, frozen encoder belong together"
                )
            if _pipeline(weights, name) != _pipeline(other, name):
                raise ValueError(f"{weights.folder} and {other.folder} prepare the input of {name!r} differently")


def _pipeline(weights: Weights, name: str) -> str:
    pipeline = weights.cmr_pipeline if name.startswith("cmr") else weights.ecg_pipeline
    return pipeline.fingerprint() if pipeline else ""


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


def _differing(one: Weights, other: Weights, name: str) -> list[str]:
    # Of the built modules, not of the files: an older file lacks settings that have their defaults since.
    ours: Any = one.modules[name].config
    theirs: Any = other.modules[name].config
    return [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]


def _check_splits(loaded: Sequence[Weights]) -> None:
    splits: dict[str, tuple[Any, Path]] = {}
    for weights in loaded:
        for one in cohorts_of(weights.config["run"]):
            split, folder = splits.setdefault(str(one["cohort"]), (one.get("split_sha256"), weights.folder))
            if split != one.get("split_sha256"):
                raise ValueError(
                    f"{weights.folder} and {folder} were trained with different splits of the cohort "
                    f"{one['cohort']!r}: training subjects of one may be test subjects of the other; train all stages "
                    "on one split"
                )


def _packed_card(loaded: Sequence[Weights], fields: Mapping[str, Any]) -> Card:
    if "run" in fields:
        raise ValueError("card: `run` is what the runs say of themselves and cannot be set")
    cards = [one.card for one in loaded]
    first = cards[0].model_dump()
    if "provenance" not in fields and len({card.provenance for card in cards}) > 1:
        said = "; ".join(repr(card.provenance) for card in cards)
        raise ValueError(f"card: the sources differ in provenance ({said}); state one in the card that covers all")
    origin = [f"{one.config['name']} ({one.config['sha256'][:12]})" for one in loaded]
    metrics = fields.get("metrics", [metric for card in cards for metric in card.metrics])
    whole = Card.model_validate({**first, **fields, "metrics": metrics, "run": {**first["run"], "packed_from": origin}})
    stated = set(provenance_kinds(whole.provenance))
    for card in cards:
        hidden = set(provenance_kinds(card.provenance)) - stated
        if hidden:
            raise ValueError(
                f"card: provenance {whole.provenance!r} leaves out {', '.join(sorted(hidden))}, which a source has "
                f"({card.name}: {card.provenance!r})"
            )
    return whole


def _says_nothing(card: Card, name: str) -> bool:
    value = getattr(card, name)
    return not value if name == "metrics" else not is_stated(value)
