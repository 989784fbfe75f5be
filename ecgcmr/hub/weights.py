"""A weights folder: config.json, model.safetensors, preprocess.json, README.md, expected.json.

It is complete: the modules, the preprocessing that prepared their training data, what the outputs mean, and an input
with the embedding it must give. A folder that lacks any of this does not load.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

import ecgcmr
from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.hub.card import Card, render_card
from ecgcmr.hub.folder import independent_tensors, recover, write_folder
from ecgcmr.models.build import build_module

FORMAT_VERSION = 1
FILES = ("README.md", "config.json", "expected.json", "model.safetensors", "preprocess.json")


@dataclass(frozen=True)
class Weights:
    """A loaded weights folder.

    Attributes:
        modules: By name: ecg, cmr, ecg_projection, cmr_projection, head, ecg_decoder; in evaluation mode on the CPU.
        ecg_pipeline: What prepared the ECGs; None if there is no ECG module.
        cmr_pipeline: What prepared the cines; None if there is no CMR module.
        config: Content of config.json.
        expected: Content of expected.json.
        folder: Where it was read from.
    """

    modules: dict[str, nn.Module]
    ecg_pipeline: EcgPipeline | None
    cmr_pipeline: CmrPipeline | None
    config: dict[str, Any]
    expected: dict[str, Any]
    folder: Path


def save_weights(
    folder: str | Path,
    modules: Mapping[str, nn.Module],
    ecg_pipeline: EcgPipeline | None,
    cmr_pipeline: CmrPipeline | None,
    card: Card | Mapping[str, Any],
    head_options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a weights folder; it appears whole or not at all, and replaces one that was there.

    Args:
        folder: Where.
        modules: By name, unwrapped; each is rebuilt from its `.config` by `ecgcmr.models.build`.
        ecg_pipeline: What prepared the training ECGs; needed with a module `ecg`.
        cmr_pipeline: What prepared the training cines; needed with a module `cmr`.
        card: What must be said about the weights (`ecgcmr.hub.card.Card`).
        head_options: How the head reads the embedding, where that is not plain: {"double_fc_norm": True}.

    Returns:
        The folder.

    Raises:
        ValueError: If a pipeline or a field of the card is missing.
        OSError: If it cannot be written.
    """
    from ecgcmr.hub.expected import compute_expected

    folder, card = Path(folder), Card.model_validate(card)
    for name, pipeline in (("ecg", ecg_pipeline), ("cmr", cmr_pipeline)):
        if name in modules and pipeline is None:
            raise ValueError(f"{folder}: the module {name!r} cannot be saved without its {name}_pipeline")
    ecg_pipeline = ecg_pipeline if _has(modules, "ecg") else None
    cmr_pipeline = cmr_pipeline if _has(modules, "cmr") else None
    state: dict[str, Tensor] = {}
    for name, module in modules.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    tensors = save_safetensors(independent_tensors(state))
    config = _describe(modules, (ecg_pipeline, cmr_pipeline), card)
    config |= {"head_options": dict(head_options or {}), "sha256": hashlib.sha256(tensors).hexdigest()}
    preprocess = {
        "ecg": ecg_pipeline.to_dict() if ecg_pipeline else None,
        "cmr": cmr_pipeline.to_dict() if cmr_pipeline else None,
    }
    expected = compute_expected(modules, ecg_pipeline, cmr_pipeline, config)
    parts = {
        "README.md": render_card(card, config).encode(),
        "config.json": _json(config),
        "expected.json": _json(expected),
        "model.safetensors": tensors,
        "preprocess.json": _json(preprocess),
    }
    write_folder(folder, parts, if_full="free space and export again")
    return folder


def load_weights(source: str | Path) -> Weights:
    """Load a weights folder, strictly.

    Args:
        source: `local-dir:PATH` or a path.

    Returns:
        All modules in evaluation mode on the CPU, with the pipelines that belong to them.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If a file is broken, the tensors are not those that were written, or keys or shapes do not fit; the
            message lists them.
    """
    folder = weights_folder(source)
    recover(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no weights folder there")
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        why = "; without preprocess.json nobody knows how to prepare the input" if "preprocess.json" in absent else ""
        raise FileNotFoundError(f"{folder}: {', '.join(absent)} missing: this is not a complete weights folder{why}")
    config = _read_json(folder / "config.json")
    if config.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder / 'config.json'}: format_version is {config.get('format_version')!r}, "
            f"this ecgcmr ({ecgcmr.__version__}) reads {FORMAT_VERSION}"
        )
    preprocess = _read_json(folder / "preprocess.json")
    modules = {name: build_module(dict(settings)) for name, settings in config["modules"].items()}
    _load_strictly(modules, _read_tensors(folder / "model.safetensors", config["sha256"]), folder)
    ecg, cmr = preprocess.get("ecg"), preprocess.get("cmr")
    for name, settings in (("ecg", ecg), ("cmr", cmr)):
        if name in modules and not settings:
            raise ValueError(f"{folder / 'preprocess.json'}: no {name!r} pipeline, but there is a module {name!r}")
    return Weights(
        modules={name: module.eval() for name, module in modules.items()},
        ecg_pipeline=EcgPipeline.from_dict(ecg) if ecg else None,
        cmr_pipeline=CmrPipeline.from_dict(cmr) if cmr else None,
        config=config,
        expected=_read_json(folder / "expected.json"),
        folder=folder,
    )


def weights_folder(source: str | Path) -> Path:
    """Turn `local-dir:PATH` or a path into a path.

    Raises:
        ValueError: For another prefix.
    """
    text = str(source)
    prefix, separator, rest = text.partition(":")
    if separator and prefix == "local-dir":
        return Path(rest).expanduser()
    if separator and prefix.endswith("-hub"):
        raise ValueError(f"{text!r}: downloads are not supported; fetch the folder and give local-dir:PATH")
    return Path(text).expanduser()


def _describe(
    modules: Mapping[str, nn.Module], pipelines: tuple[EcgPipeline | None, CmrPipeline | None], card: Card
) -> dict[str, Any]:
    ecg, cmr = pipelines
    configs: dict[str, Any] = {name: module.config for name, module in modules.items()}
    config = {
        "format_version": FORMAT_VERSION,
        "name": card.name,
        "stage": card.stage,
        "modules": configs,
        "ecg": _ecg_input(configs, ecg),
        "cmr": {"pipeline": cmr.name, "shape": list(cmr.shape)} if cmr else None,
        "labels": configs["head"]["labels"] if "head" in configs else [],
        "license": card.license,
        "provenance": card.provenance,
        "trained_on": card.trained_on,
        "metrics": card.metrics,
        "run": card.run,
        "ecgcmr_version": ecgcmr.__version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def _has(modules: Mapping[str, nn.Module], modality: str) -> bool:
    return any(name.split("_")[0] == modality for name in modules)


def _ecg_input(configs: Mapping[str, Any], pipeline: EcgPipeline | None) -> dict[str, Any] | None:
    if pipeline is None or "ecg" not in configs:
        return None
    return {
        "pipeline": pipeline.name,
        "leads": pipeline.to_dict()["leads"],
        "rate_hz": pipeline.rate_hz,
        "n_samples": int(configs["ecg"]["n_samples"]),
        "window": "start",
        "unit": "mV" if pipeline.requires_mv else "any",
    }


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read, probably cut off while copying ({error}); copy it again") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ValueError(
            f"{path}: these are not the tensors that config.json describes (sha256 begins with {found[:12]}, "
            f"config.json says {str(digest)[:12]}); get the folder again"
        )
    return tensors


def _load_strictly(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], folder: Path) -> None:
    wanted = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    problems = {
        "missing": [key for key in wanted if key not in tensors],
        "unexpected": [key for key in tensors if key not in wanted],
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in tensors and tensors[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        text = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
        raise ValueError(f"{folder}: the tensors do not fit config.json: {text}")
    for name, module in modules.items():
        own = len(name) + 1
        module.load_state_dict({key[own:]: value for key, value in tensors.items() if key.startswith(f"{name}.")})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
