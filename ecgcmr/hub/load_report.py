"""What was loaded and what did not fit, by key: nothing of a network is left random in silence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ecgcmr.hub.reading import check_magic

STORED_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class LoadReport:
    """Keys of tensors, each as MODULE.NAME.

    Attributes:
        loaded: Taken from the file.
        missing: Wanted by the modules, not in the file.
        unexpected: In the file, wanted by no module.
        mismatched: In both, of another shape or type, with both.
        reset: Of a head that was made anew on request: fresh values, whatever the file has.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every tensor found its place."""
        return not (self.missing or self.unexpected or self.mismatched)

    def problems(self) -> str:
        """List what does not fit, with all keys; empty if all fits."""
        parts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape or type": self.mismatched}
        return "; ".join(f"{what}: {', '.join(keys)}" for what, keys in parts.items() if keys)

    def counts(self) -> dict[str, int]:
        """Give the number of keys of each sort."""
        sorts = ("loaded", "missing", "unexpected", "mismatched", "reset")
        return {name: len(getattr(self, name)) for name in sorts}

    def __str__(self) -> str:
        text = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        return f"{text} ({self.problems()})" if not self.fits else text


def read_tensors(path: Path, digest: str, dtype: str) -> dict[str, Tensor]:
    """Read model.safetensors, and check that it is the file that was written.

    Args:
        path: The file.
        digest: Its sha256 in hexadecimal.
        dtype: How floating tensors may be stored besides float32.

    Raises:
        ValueError: If it is a pickle or cut off, not the file of this hash, or holds numbers that are not finite.
    """
    data = path.read_bytes()
    check_magic(path, data[:9])
    try:
        tensors: dict[str, Tensor] = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be read, probably cut off while copying ({error}); copy it again") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ValueError(
            f"{path}: these are not the tensors that config.json describes (sha256 begins with {found[:12]}, "
            f"config.json says {digest[:12]}); get the folder again"
        )
    if dtype not in STORED_DTYPES:
        raise ValueError(f"{path}: config.json says storage.dtype {dtype!r}, expected {' or '.join(STORED_DTYPES)}")
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: not finite (NaN or infinite): {', '.join(broken)}; such weights compute nothing")
    return tensors


def fit_tensors(
    modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], dtype: str = "float32", reset: Sequence[str] = ()
) -> LoadReport:
    """Compare tensors with what modules want.

    Args:
        modules: By name.
        tensors: By MODULE.NAME.
        dtype: How floating tensors may be stored besides float32.
        reset: Modules that keep the values they have; what the tensors hold for them is left out.
    """
    wanted = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    fresh = tuple(key for key in wanted if key.split(".")[0] in reset)
    given = {key: value for key, value in tensors.items() if key.split(".")[0] not in reset}
    wanted = {key: value for key, value in wanted.items() if key not in fresh}
    mismatched = {key: _difference(given[key], value, dtype) for key, value in wanted.items() if key in given}
    return LoadReport(
        loaded=tuple(key for key, difference in mismatched.items() if not difference),
        missing=tuple(key for key in wanted if key not in given),
        unexpected=tuple(sorted(set(given) - set(wanted))),
        mismatched=tuple(f"{key} {difference}" for key, difference in mismatched.items() if difference),
        reset=fresh,
    )


def fill_modules(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], report: LoadReport) -> None:
    """Copy the tensors that a report calls loaded into the modules, in the modules' own precision."""
    loaded = set(report.loaded)
    with torch.no_grad():
        for name, module in modules.items():
            for key, value in module.state_dict().items():
                if f"{name}.{key}" in loaded:
                    value.copy_(tensors[f"{name}.{key}"])


def _difference(found: Tensor, wanted: Tensor, dtype: str) -> str:
    if found.shape != wanted.shape:
        return f"{tuple(found.shape)} instead of {tuple(wanted.shape)}"
    allowed = {torch.float32, STORED_DTYPES[dtype]} if wanted.is_floating_point() else {wanted.dtype}
    if found.dtype in allowed:
        return ""
    return f"{found.dtype} instead of {' or '.join(sorted(map(str, allowed)))}".replace("torch.", "")
