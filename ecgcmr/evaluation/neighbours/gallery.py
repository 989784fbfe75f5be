"""A gallery on disk: embeddings of a cohort's studies or recordings, whose they are, and their phenotypes.

A gallery holds data of its cohort's subjects (pseudonyms, phenotypes, embeddings) and goes where the cohort may go.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ecgcmr import __version__
from ecgcmr.hub.folder import check_replaceable, restore, write_folder

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

FORMAT_VERSION = 1
FILES = ("gallery.json", "items.parquet", "vectors.safetensors")
ITEM_COLUMNS = ("subject", "row")
Modality = Literal["ecg", "cmr"]
Space = Literal["shared", "embedding"]


@dataclass(frozen=True)
class Measured:
    """How well neighbours tell a label, on subjects whose truth is known.

    Attributes:
        label: Name of the label.
        metric: `r2`, or `auroc` for a diagnosis.
        value: Of the metric.
        lo: Lower end of its 95 % interval (bootstrap by subject); NaN when not estimable.
        hi: Upper end.
        n_subjects: Subjects with the label.
        factor: Factor of the spread that makes the interval (`interval_factors`); NaN for a diagnosis, or too few.
    """

    label: str
    metric: str
    value: float
    lo: float
    hi: float
    n_subjects: int
    factor: float


@dataclass(frozen=True)
class GalleryAbout:
    """What the vectors of a gallery are.

    Attributes:
        modality: Of the vectors, `cmr` or `ecg`.
        space: `shared` (projected, comparable over modalities) or `embedding` (ECGs with ECGs alone).
        model: Name of the weights.
        sha256: Hash of their tensors: vectors of other weights are not comparable.
        cohort: Name of the cohort.
        cohort_key: Hash of its table of subjects: only then subject numbers mean the same subjects.
        provenance: Of the cohort, such as `simulated`.
        part: Part of the split whose subjects are in the gallery, or `all`.
        units: Unit of each label; "" for diagnoses.
        kinds: `regression` or `binary` for each label.
        k: Neighbours that were used for `measured`, and are used unless another number is asked for.
        weighting: Likewise.
        level: Share of subjects that intervals shall hold.
        measured_on: Whose ECGs were the queries of `measured`.
        measured: How well neighbours tell each label.
    """

    modality: Modality
    space: Space
    model: str
    sha256: str
    cohort: str
    cohort_key: str
    provenance: str
    part: str
    units: Mapping[str, str]
    kinds: Mapping[str, str]
    k: int = 20
    weighting: str = "distance"
    level: float = 0.9
    measured_on: str = ""
    measured: tuple[Measured, ...] = field(default=())


@dataclass(frozen=True)
class Gallery:
    """Embeddings with their subjects and phenotypes.

    Attributes:
        vectors: (N, D) float32, of length 1.
        items: N rows: `subject`, `row` (of the cohort's studies or recordings) and the labels; NaN where unobserved.
        about: What they are.
    """

    vectors: NDArray[np.float32]
    items: pd.DataFrame
    about: GalleryAbout

    def __post_init__(self) -> None:
        if len(self.items) != len(self.vectors):
            raise ValueError(f"a gallery of {len(self.vectors)} vectors can not have {len(self.items)} items")
        missing = [name for name in (*ITEM_COLUMNS, *self.labels) if name not in self.items]
        if missing:
            raise ValueError(f"the items of the gallery lack the column {missing[0]!r}")

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.vectors)

    def __repr__(self) -> str:
        about = self.about
        return f"Gallery({len(self)} {about.modality} vectors of {about.model}, cohort {about.cohort}, {about.part})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels (K,)."""
        return tuple(self.about.units)

    @property
    def subjects(self) -> NDArray[np.int64]:
        """Subject of each vector (N,)."""
        return self.items["subject"].to_numpy(dtype=np.int64)

    def values(self) -> NDArray[np.float64]:
        """Labels (N, K), NaN where unobserved."""
        return self.items[list(self.labels)].to_numpy(dtype=np.float64)

    def check_model(self, model: LoadedModel) -> None:
        """Refuse a model whose embeddings are not those of this gallery.

        Raises:
            ValueError: Naming both.
        """
        sha256 = model.config["sha256"]
        if sha256 != self.about.sha256:
            raise ValueError(
                f"the gallery was made with {self.about.model} ({self.about.sha256[:12]}), the model is "
                f"{model.config['name']} ({str(sha256)[:12]}): their vectors are not comparable; build a gallery with "
                "this model (`ecgcmr gallery build`)"
            )

    def save(self, folder: str | Path) -> Path:
        """Write the gallery; the folder appears whole or not at all, and replaces a gallery that was there.

        Raises:
            ValueError: The folder holds anything else.
        """
        folder = Path(folder)
        check_replaceable(folder, FILES)
        vectors = save_tensors({"vectors": np.ascontiguousarray(self.vectors)})
        table = io.BytesIO()
        self.items.to_parquet(table, index=False)
        about = {
            "format_version": FORMAT_VERSION,
            "ecgcmr_version": __version__,
            **_plain(asdict(self.about)),
            "n": len(self),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in
                      (("vectors.safetensors", vectors), ("items.parquet", table.getvalue()))},
        }  # fmt: skip
        text = json.dumps(about, indent=1, allow_nan=False) + "\n"
        parts = {"gallery.json": text.encode(), "items.parquet": table.getvalue(), "vectors.safetensors": vectors}
        write_folder(folder, parts, if_full="free space and build the gallery again")
        return folder

    @classmethod
    def load(cls, folder: str | Path, model: LoadedModel | None = None) -> Gallery:
        """Open a gallery.

        Args:
            folder: Where it is.
            model: Checked to be the one that the gallery was made with.

        Raises:
            FileNotFoundError: No gallery there.
            ValueError: A file is broken or was changed, or the gallery is of another model or format.
        """
        folder = Path(folder)
        restore(folder)
        absent = [name for name in FILES if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(
                f"{folder}: {', '.join(absent)} missing: no gallery; make one with `ecgcmr gallery build`"
            )
        path = folder / "gallery.json"
        try:
            about: dict[str, Any] = json.loads(path.read_text())
            version, hashes = about.pop("format_version"), about.pop("files")
            expected = {name: hashes[name] for name in FILES[1:]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the description of a gallery ({error!r}); build it again") from error
        if version != FORMAT_VERSION:
            raise ValueError(f"{path}: format version {version!r}, this package reads {FORMAT_VERSION}; build it again")
        data = {name: (folder / name).read_bytes() for name in expected}
        for name, sha256 in expected.items():
            if hashlib.sha256(data[name]).hexdigest() != sha256:
                raise ValueError(f"{folder / name} is not the file that was written: copy or build the gallery again")
        about = {name: value for name, value in about.items() if name not in ("ecgcmr_version", "n")}
        try:
            rows = tuple(Measured(**_numbers(row)) for row in about.pop("measured"))
            made = GalleryAbout(**about, measured=rows)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: a field is missing or unknown ({error}); build the gallery again") from error
        items = pd.read_parquet(io.BytesIO(data["items.parquet"]))
        gallery = cls(load_tensors(data["vectors.safetensors"])["vectors"], items, made)
        if model is not None:
            gallery.check_model(model)
        return gallery


def _plain(value: Any) -> Any:
    """JSON without NaN: null instead."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float("nan") if value is None and name in ("value", "lo", "hi", "factor") else value
        for name, value in row.items()
    }
