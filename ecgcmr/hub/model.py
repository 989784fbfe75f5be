"""LoadedModel: files, folders, cohorts or arrays in, embeddings and predictions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.reduced import canonical_leads
from ecgcmr.hub.assemble import UnitRows, choose_device, run_in_batches, visible_patches, with_head
from ecgcmr.hub.covariates import Covariates, covariates_for, with_covariates
from ecgcmr.hub.export_folder import EXPORT
from ecgcmr.hub.inputs import Declared, EcgInputs, EcgItem
from ecgcmr.hub.intervals import checked_interval
from ecgcmr.hub.progress import counting
from ecgcmr.hub.source import resolve_source
from ecgcmr.hub.stream import Failed, Row, StreamKeywords, StreamOptions, stream
from ecgcmr.hub.tables import TableMaker, Verb, embedding_matrix, ledger, warn_of_gaps
from ecgcmr.hub.weights import Weights, load_weights
from ecgcmr.hub.windows import Cutter
from ecgcmr.models.pieces import encode

if TYPE_CHECKING:
    import pandas as pd

    from ecgcmr.cmr.cine import Cine
    from ecgcmr.hub.inputs import EcgLike

Dtype = Literal["float32", "bfloat16"]

_CMR = ("cmr", "cmr_projection")

_CHUNK = 1024  # recordings whose outputs are put in order at a time


def load_model(
    source: str | Path,
    head: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: Dtype = "float32",
) -> LoadedModel:
    """Load weights with the preprocessing that belongs to them.

    Args:
        source: A weights folder, as `load_weights` takes it: `local-dir:PATH`, a path, ...; or a folder that
            `ecgcmr weights export` wrote, which onnxruntime computes on the CPU.
        head: Another weights folder whose prediction head shall read this encoder's embeddings; None for the
            folder's own head.
        device: Where to compute; "auto" takes a GPU when there is one.
        dtype: "float32", or "bfloat16" for the encoder's matrix products; embeddings come out as float32.

    Raises:
        FileNotFoundError, ValueError: As `load_weights`; or the head is of another width, the device is not there.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype is {dtype!r}, expected 'float32' or 'bfloat16'")
    where = choose_device(device)
    folder = resolve_source(source)
    if (folder / EXPORT).is_file():
        from ecgcmr.hub.exported_model import open_export

        return open_export(folder, head, dtype)
    # The CMR encoder comes when it is asked for: building it imports timm, which takes longer than all the rest.
    weights = load_weights(source, leave_out=_CMR)
    weights = weights if "ecg" in weights.modules else load_weights(source)
    if head is not None:
        weights = with_head(weights, load_weights(head, leave_out=_CMR))
    return LoadedModel(weights, where, dtype)


class LoadedModel:
    """Encoders with their preprocessing.

    Attributes:
        device: Where it computes.
        dtype: Precision of the encoder's matrix products.
    """

    def __init__(self, weights: Weights, device: torch.device | str = "cpu", dtype: Dtype = "float32") -> None:
        self._weights, self.device, self.dtype = weights, torch.device(device), dtype
        self.interval = checked_interval(weights.config.get("head_options", {}), self.labels, str(weights.folder))
        for module in weights.modules.values():
            module.to(self.device).eval()

    def __repr__(self) -> str:
        return f"LoadedModel({self.config['name']!r}, {', '.join(self.config['modules'])})"

    @property
    def config(self) -> dict[str, Any]:
        """Content of config.json: name, modules, input, labels, license, provenance, ..."""
        return self._weights.config

    @property
    def weights(self) -> Weights:
        """What was loaded, with all its modules: a CMR encoder is built at the first call."""
        late = [name for name in self.config["modules"] if name not in self._weights.modules]
        if late:
            whole = load_weights(f"local-dir:{self._weights.folder}")
            for name in late:
                whole.modules[name].to(self.device).eval()
            self._weights = replace(self._weights, modules={**whole.modules, **self._weights.modules})
        return self._weights

    @property
    def labels(self) -> list[dict[str, str]]:
        """Name, kind and unit of each output of the head, in order."""
        return [dict(label) for label in self.config["labels"]]

    def embed(
        self,
        ecg: EcgLike | Sequence[EcgLike],
        rate_hz: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        batch_size: int = 64,
        **options: Unpack[StreamKeywords],
    ) -> NDArray[np.float32]:
        """Embed one or many ECGs.

        Args:
            ecg: A recording, a file of any format, a folder, an array (L, T) or (B, L, T), a cohort, or a list of any
                of these.
            rate_hz: Sampling rate [Hz], for arrays and for files that do not state it.
            leads: Lead names of the rows, likewise.
            unit: mV, uV, V, or z where the voltage is lost, likewise.
            batch_size: Windows computed at a time.
            **options: windows, aggregate, short, only_leads, workers, progress, covariates; see `StreamOptions`.

        Returns:
            (N, D) float32, in the order of the items. Among many, one that cannot be read has a row of NaN, and a
            warning says so; `embed_table` names it.

        Raises:
            FileNotFoundError, ValueError: A single recording cannot be read or does not suit the model, or none of
                many does.
        """
        _, results = self._all("embed", ecg, (rate_hz, leads, unit), StreamOptions(batch_size, **options))
        return embedding_matrix(results)

    def embed_table(
        self,
        ecg: EcgLike | Sequence[EcgLike],
        rate_hz: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        batch_size: int = 64,
        **options: Unpack[StreamKeywords],
    ) -> pd.DataFrame:
        """Embed one or many ECGs into a table; arguments and errors as `embed`.

        Returns:
            One row for each recording that could be read: `item` (the file as it was given, or the position),
            `n_windows` (or `window` and `start_s`), `leads` that were used, and the embedding `e000`, `e001`, ...
            `.attrs["failed"]` lists what could not be read, with reasons.
        """
        return self._table("embed", ecg, (rate_hz, leads, unit), StreamOptions(batch_size, **options))

    def predict(
        self,
        ecg: EcgLike | Sequence[EcgLike],
        rate_hz: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        batch_size: int = 64,
        **options: Unpack[StreamKeywords],
    ) -> pd.DataFrame:
        """Predict all labels of the head from one or many ECGs; arguments and errors as `embed`.

        Returns:
            One row for each recording that could be read, and after the columns that `embed_table` has one column
            for each label: phenotypes in their units, diagnoses as probabilities; `.attrs["units"]` maps columns to
            units ("probability" for diagnoses). Where the head has intervals, `LABEL_lo` and `LABEL_hi` follow the
            label; they are NaN for rows that the intervals were not made for (fewer leads, other windows).
        """
        return self._table("predict", ecg, (rate_hz, leads, unit), StreamOptions(batch_size, **options))

    def embed_cmr(self, cine: Cine | Sequence[Cine], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed one or many cines, (B, D) float32."""
        encoder, pipeline = self._module("cmr"), self._weights.cmr_pipeline
        assert pipeline is not None
        cines = list(cine) if isinstance(cine, Sequence) else [cine]
        prepared = [torch.from_numpy(pipeline(one)).float() / 255.0 for one in cines]
        return run_in_batches(encoder, prepared, batch_size, self.device)

    def project(self, embedding: NDArray[np.float32], modality: str = "ecg") -> NDArray[np.float32]:
        """Map embeddings (B, D) of a modality into the shared space, (B, P), each of length 1."""
        projection = self._module(f"{modality}_projection")
        module = nn.Sequential(projection, UnitRows())
        return run_in_batches(module, list(torch.from_numpy(embedding)), len(embedding), self.device)

    @torch.no_grad()
    def predict_from(self, embedding: Tensor, known: Tensor | None = None) -> Tensor:
        """Predict (B, K) from embeddings (B, D) and, if the head needs them, covariates, in units and probabilities."""
        head: Any = self._module("head")
        if self.config["head_options"].get("double_fc_norm"):
            encoder: Any = self._module("ecg")
            embedding = encoder.fc_norm(embedding)
        if self.config["head_options"].get("tabular"):
            embedding = with_covariates(self._weights.modules, embedding, known)
        predicted: Tensor = head.predict(embedding)
        return predicted

    def results(
        self, verb: Verb, inputs: EcgInputs, options: StreamOptions, chunk: int = _CHUNK, skip: int = 0
    ) -> Iterator[list[Row | Failed]]:
        """Give the outputs of `inputs` in chunks, in order: the stream that all other methods read.

        Args:
            verb: "embed" or "predict".
            inputs: What to read.
            options: See `StreamOptions`; its progress is left to the caller.
            chunk: Items of a chunk.
            skip: Items at the beginning that are not wanted.
        """
        encoder, pipeline = self._module("ecg"), self._weights.ecg_pipeline
        assert pipeline is not None
        only = None if options.only_leads is None else canonical_leads(list(options.only_leads))
        n_samples = int(self.config["ecg"]["n_samples"])
        cut = Cutter(pipeline, n_samples, options.windows, options.short, only)
        known = None
        if verb == "predict":
            self._module("head")
            known = covariates_for(self._weights.modules, self.config, options.covariates, inputs)
        items = (item for number, item in enumerate(inputs) if number >= skip)
        return stream(items, cut, partial(self._compute, verb, known, encoder), options, chunk)

    def table_maker(self, verb: Verb, options: StreamOptions, from_cohort: bool) -> TableMaker:
        """The columns and attributes of this model's tables."""
        config = self.config
        about = {
            "model": config["name"],
            "sha256": config["sha256"],
            "provenance": config["provenance"],
            "windows": options.windows,
            "aggregate": options.aggregate,
            "dtype": self.dtype,
        }
        predict = verb == "predict"
        if predict and "head_from" in config:
            about["head_from"] = config["head_from"]
        return TableMaker(
            verb, about, self.labels if predict else (), self.interval if predict else None,
            options.windows, options.aggregate == "none", from_cohort,
        )  # fmt: skip

    def _all(
        self, verb: Verb, ecg: Any, declared: tuple[float | None, Sequence[str] | None, str | None], how: StreamOptions
    ) -> tuple[EcgInputs, list[Row | Failed]]:
        rate_hz, leads, unit = declared
        inputs = EcgInputs(ecg, Declared(rate_hz, None if leads is None else tuple(leads), unit))
        results: list[Row | Failed] = []
        with counting(how.progress, "embedding" if verb == "embed" else "predicting") as tell:
            done = 0
            for part in self.results(verb, inputs, how, 4 * how.batch_size if how.progress else _CHUNK):
                results += part
                done += len({id(one.item) for one in part})
                tell(done, inputs.total)
        failed = [one for one in results if isinstance(one, Failed)]
        if failed and (inputs.single or len(failed) == len(results)):
            if inputs.single:
                raise failed[0].error
            raise ValueError(
                f"none of {len(failed)} recordings could be used; {failed[0].item.name}: {failed[0].error}"
            )
        warn_of_gaps(results)
        return inputs, results

    def _table(self, verb: Verb, ecg: Any, declared: Any, how: StreamOptions) -> pd.DataFrame:
        inputs, results = self._all(verb, ecg, declared, how)
        maker = self.table_maker(verb, how, inputs.from_cohort)
        table = maker.frame([one for one in results if isinstance(one, Row)])
        table.attrs["failed"] = ledger([one for one in results if isinstance(one, Failed)])
        table.attrs["ignored"] = dict(inputs.ignored)
        return table

    @torch.no_grad()
    def _compute(
        self,
        verb: Verb,
        known: Covariates | None,
        encoder: nn.Module,
        ecg_BLT: Tensor,
        leads: tuple[str, ...],
        items: list[EcgItem],
    ) -> Tensor:
        """Embeddings (B, D) or predictions (B, K) of windows that have the same leads."""
        ecg_BLT = ecg_BLT.to(self.device)
        with self._autocast():
            if len(leads) == len(LEADS):
                embedding = encode(encoder, ecg_BLT)
            else:
                keep = visible_patches(encoder, leads).to(self.device)
                embedding = encode(encoder, ecg_BLT, keep.expand(len(ecg_BLT), -1))
        embedding = embedding.float()
        return embedding if verb == "embed" else self.predict_from(embedding, known.of(items) if known else None)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _module(self, name: str) -> nn.Module:
        modules = self._weights.modules
        if name not in modules and name in _CMR:
            modules = self.weights.modules
        if name not in modules:
            raise ValueError(f"{self._weights.folder}: these weights have no {name!r}; they have {', '.join(modules)}")
        return modules[name]
