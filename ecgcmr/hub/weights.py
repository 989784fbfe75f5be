"""A weights folder: config.json, model.safetensors, preprocess.json, README.md, expected.json.

It is complete: the modules, the preprocessing that prepared their training data, what the outputs mean, and an input
with the embedding it must give. A folder that lacks any of this does not load.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save as save_safetensors
from torch import nn

import ecgcmr
from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.hub.card import Card
from ecgcmr.hub.card_page import render_card
from ecgcmr.hub.folder import check_replaceable, restore, write_folder
from ecgcmr.hub.load_report import LoadReport, fill_modules, fit_tensors, read_tensors
from ecgcmr.hub.migrate import FORMAT_VERSION, migrate
from ecgcmr.hub.reading import check_place, read_json
from ecgcmr.hub.source import FILES, resolve_source
from ecgcmr.hub.storage import LARGEST_CHANGE, rebuild, to_storage
from ecgcmr.models.build import build_module

__all__ = ["FILES", "FORMAT_VERSION", "Weights", "load_weights", "save_weights"]

# What timm would open or fetch by itself; no folder needs it, and one from a stranger must not ask for it.
_READS_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Weights:
    """A loaded weights folder.

    Attributes:
        modules: By name: ecg, cmr, tabular, each with its NAME_projection, head, ecg_decoder; in evaluation mode on the
            CPU.
        ecg_pipeline: What prepared the ECGs; None if there is no ECG module.
        cmr_pipeline: What prepared the cines; None if there is no CMR module.
        config: Content of config.json, in this version's format.
        expected: Content of expected.json.
        folder: Where it was read from.
        report: Which tensors were loaded, and which were made anew on request.
    """

    modules: dict[str, nn.Module]
    ecg_pipeline: EcgPipeline | None
    cmr_pipeline: CmrPipeline | None
    config: dict[str, Any]
    expected: dict[str, Any]
    folder: Path
    report: LoadReport = field(default_factory=LoadReport)

    @property
    def card(self) -> Card:
        """What the weights say about themselves."""
        return Card.from_config(self.config)


def save_weights(
    folder: str | Path,
    modules: Mapping[str, nn.Module],
    ecg_pipeline: EcgPipeline | None,
    cmr_pipeline: CmrPipeline | None,
    card: Card | Mapping[str, Any],
    head_options: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    exact: Sequence[str] = (),
) -> Path:
    """Write a weights folder; it appears whole or not at all, and replaces one that was there.

    Args:
        folder: Where.
        modules: By name, unwrapped; each is rebuilt from its `.config` by `ecgcmr.models.build`.
        ecg_pipeline: What prepared the training ECGs; needed with a module `ecg`.
        cmr_pipeline: What prepared the training cines; needed with a module `cmr`.
        card: What must be said about the weights (`ecgcmr.hub.card.Card`).
        head_options: How the head reads the embedding, where that is not plain: {"double_fc_norm": True};
            {"tabular": True} if it reads the embedding of the module `tabular` behind it.
        dtype: float32, or float16 to store matrices in half precision; a loader computes in float32 all the same.
        exact: Names of modules that stay in float32 where the others go to half precision.

    Returns:
        The folder.

    Raises:
        ValueError: If a pipeline or a field of the card is missing, a module cannot be rebuilt from its configuration,
            the folder holds anything else, or half precision moves an output by more than `LARGEST_CHANGE`.
        OSError: If it cannot be written.
    """
    from ecgcmr.hub.expected import compute_expected, largest_change, recipe_inputs

    folder, card = Path(folder), Card.model_validate(card)
    check_replaceable(folder, FILES)
    for name, pipeline in (("ecg", ecg_pipeline), ("cmr", cmr_pipeline)):
        if name in modules and pipeline is None:
            raise ValueError(f"{folder}: the module {name!r} cannot be saved without its {name}_pipeline")
    if (head_options or {}).get("tabular") and "tabular" not in modules:
        raise ValueError(f"{folder}: the head reads tabular inputs and cannot be saved without the module 'tabular'")
    ecg_pipeline = ecg_pipeline if _has(modules, "ecg") else None
    cmr_pipeline = cmr_pipeline if _has(modules, "cmr") else None
    stored = to_storage(modules, dtype, exact)
    rebuilt = _say_where(folder, rebuild, modules, stored, dtype)
    tensors = save_safetensors(stored)
    config = _describe(modules, (ecg_pipeline, cmr_pipeline), card)
    config |= {"head_options": dict(head_options or {}), "sha256": hashlib.sha256(tensors).hexdigest()}
    change = 0.0
    if dtype != "float32":
        inputs = recipe_inputs(modules, ecg_pipeline, cmr_pipeline, config)
        changes = largest_change(modules, rebuilt, inputs, config)
        change = max(changes.values(), default=0.0)
        if not change <= LARGEST_CHANGE:
            text = ", ".join(f"{name} {value:.2g}" for name, value in changes.items())
            raise ValueError(
                f"{folder}: not written: in {dtype} the outputs of the recipe move by more than {LARGEST_CHANGE:g} of "
                f"themselves ({text}); store in float32, or keep the modules where it begins exact (exact=, --exact)"
            )
    config["storage"] = {"dtype": dtype, "largest_change": change, "exact": list(exact)}
    preprocess = {
        "ecg": ecg_pipeline.to_dict() if ecg_pipeline else None,
        "cmr": cmr_pipeline.to_dict() if cmr_pipeline else None,
    }
    parts = {
        "README.md": render_card(card, config).encode(),
        "config.json": to_json(config),
        "expected.json": to_json(compute_expected(rebuilt, ecg_pipeline, cmr_pipeline, config)),
        "model.safetensors": tensors,
        "preprocess.json": to_json(preprocess),
    }
    write_folder(folder, parts, if_full="free space and export again")
    return folder


def load_weights(
    source: str | Path,
    reset_head: Sequence[Mapping[str, str]] | None = None,
    head_seed: int = 0,
    leave_out: Collection[str] = (),
) -> Weights:
    """Load a weights folder, strictly.

    Args:
        source: A released name, `local-dir:PATH`, `hf-hub:ORG/NAME[@REVISION]`, or a path; see `resolve_source`.
        reset_head: Name, kind and unit of each label of a new head. It takes the place of the stored head, if there
            is one, with fresh values. Without it a head that does not fit is an error like everything else.
        head_seed: Seed of the fresh values.
        leave_out: Modules that are not built, because building takes time (the CMR encoder brings timm). Their
            tensors are read and hashed like all others, but not compared with a module.

    Returns:
        All other modules in evaluation mode on the CPU, with the pipelines that belong to them.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If a file is broken, the tensors are not those that were written, or keys or shapes do not fit; the
            message lists them.
    """
    folder = resolve_source(source)
    restore(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no weights folder there")
    check_place(folder, FILES)
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        why = "; without preprocess.json nobody knows how to prepare the input" if "preprocess.json" in absent else ""
        raise FileNotFoundError(f"{folder}: {', '.join(absent)} missing: this is not a complete weights folder{why}")
    path = folder / "config.json"
    config = migrate(read_json(path), path)
    if reset_head is not None:
        config = _with_new_head(config, reset_head, path)
    preprocess = read_json(folder / "preprocess.json")
    pipelines: dict[str, Any] = {}
    for name, kind in (("ecg", EcgPipeline), ("cmr", CmrPipeline)):
        settings = preprocess.get(name)
        if name in config["modules"] and not settings:
            raise ValueError(f"{folder / 'preprocess.json'}: no {name!r} pipeline, but there is a module {name!r}")
        pipelines[name] = _say_where(folder / "preprocess.json", kind.from_dict, settings) if settings else None
    dtype = str(config["storage"].get("dtype"))
    tensors = read_tensors(folder / "model.safetensors", config["sha256"], dtype)
    chosen = {name: settings for name, settings in config["modules"].items() if name not in leave_out}
    tensors = {key: value for key, value in tensors.items() if key.split(".")[0] not in leave_out}
    modules = _build(chosen, path, head_seed)
    report = fit_tensors(modules, tensors, dtype, ("head",) if reset_head is not None else ())
    if not report.fits:
        raise ValueError(f"{folder}: the tensors do not fit config.json: {report.problems()}")
    fill_modules(modules, tensors, report)
    return Weights(
        modules={name: module.eval() for name, module in modules.items()},
        ecg_pipeline=pipelines["ecg"],
        cmr_pipeline=pipelines["cmr"],
        config=config,
        expected=read_json(folder / "expected.json"),
        folder=folder,
        report=report,
    )


def to_json(value: Mapping[str, Any]) -> bytes:
    """Give the bytes of a JSON file of a weights folder; NaN and infinities are refused."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _describe(
    modules: Mapping[str, nn.Module], pipelines: tuple[EcgPipeline | None, CmrPipeline | None], card: Card
) -> dict[str, Any]:
    ecg, cmr = pipelines
    configs: dict[str, Any] = {name: module.config for name, module in modules.items()}
    config = {
        "format_version": FORMAT_VERSION,
        **card.to_config(),
        "modules": configs,
        "ecg": _ecg_input(configs, ecg),
        "cmr": {"pipeline": cmr.name, "shape": list(cmr.shape)} if cmr else None,
        "labels": configs["head"]["labels"] if "head" in configs else [],
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


def _with_new_head(config: dict[str, Any], labels: Sequence[Mapping[str, str]], path: Path) -> dict[str, Any]:
    modules = config["modules"]
    old = modules.get("head") or {}
    covariates = modules["tabular"]["width"] if config["head_options"].get("tabular") else 0
    width = (old.get("in_features") or covariates) - covariates or modules.get("ecg", {}).get("width")
    if width is None:
        raise ValueError(f"{path}: no head can be reset, for there is no ECG encoder whose embedding it could read")
    if not labels:
        raise ValueError("reset_head is empty, expected name, kind and unit of at least one label")
    plain = [{"unit": "", **label} for label in labels]
    head = {"kind": "prediction_head", "in_features": width, "hidden": old.get("hidden"), "labels": plain}
    return {**config, "modules": {**modules, "head": head}, "labels": plain, "head_options": {}}


def _build(configs: Mapping[str, Any], path: Path, head_seed: int) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {}
    for name, settings in configs.items():
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: module {name!r} is {type(settings).__name__}, expected its configuration")
        asked = [key for key in _READS_FILES if key in (settings.get("timm_args") or {})]
        if asked:
            raise ValueError(f"{path}: module {name!r}: timm_args must not set {', '.join(asked)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(head_seed)
            modules[name] = _say_where(path, build_module, settings)
    return modules


def _say_where(path: Path, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function on content of a file, and put the file's name before what it does not like."""
    try:
        return function(*args)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
