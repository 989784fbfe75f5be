"""What is explained: an output of the head, the similarity with a study or an ECG, or a class of a gallery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.cmr.cine import Cine
from ecgcmr.evaluation.explain.prepare import Prepared, module_of, prepare
from ecgcmr.models.heads import ClassHead

if TYPE_CHECKING:
    from ecgcmr.evaluation.neighbours.prototypes import Prototypes
    from ecgcmr.hub.model import LoadedModel

_NORMS = ("norm", "embedding", "embedding_norm", "embedding norm", "length")


@dataclass(frozen=True)
class Target:
    """A number that is computed from an embedding.

    Attributes:
        name: What it is.
        unit: Its unit.
        modality: Whose embedding it reads, `ecg` or `cmr`.
        score: Embeddings (B, D) to the number (B,), differentiable.
    """

    name: str
    unit: str
    modality: Literal["ecg", "cmr"]
    score: Callable[[Tensor], Tensor]

    def of(self, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        """The number as a function of prepared inputs (B, ...).

        Raises:
            ValueError: The target reads the other modality.
        """
        if prepared.modality != self.modality:
            raise ValueError(
                f"the target {self.name!r} reads the {self.modality.upper()} embedding, but a "
                f"{'cine' if prepared.modality == 'cmr' else 'recording'} was given"
            )
        encoder = prepared.encoder

        def number(x: Tensor) -> Tensor:
            return self.score(encoder(x))

        return number


def resolve_target(model: LoadedModel, target: Any, modality: str) -> Target:
    """Turn what a user gives into a target.

    Args:
        model: The model.
        target: A `Target`; the name of an output of the head; a cine or recording, for the similarity with it.
        modality: Of what is explained.

    Raises:
        ValueError: For an unknown name (the known are listed), or the norm of the embedding.
    """
    if isinstance(target, Target):
        return target
    if not isinstance(target, str):
        if target is None:
            raise ValueError(f"which output shall be explained? Give target=: {_known(model)}")
        return similarity_target(model, target)
    if target.lower() in _NORMS:
        raise ValueError(
            f"the target {target!r} is refused: the embedding ends in a layer norm, so that its length says nothing "
            f"about the heart; choose {_known(model)}"
        )
    if modality == "cmr":
        raise ValueError(
            f"the head reads ECG embeddings; the target {target!r} can not be explained on a cine. Give a recording as "
            "target (similarity with it), or prototype_target(...) of a gallery"
        )
    return head_target(model, target)


def head_target(model: LoadedModel, name: str) -> Target:
    """An output of the head: a measurement in its unit, a diagnosis as log-odds.

    Probabilities saturate, so that their gradients vanish just where the model is sure; log-odds do not.

    Raises:
        ValueError: No head, or no output of that name; lists the known.
    """
    names = [label["name"] for label in model.labels]
    if name not in names:
        raise ValueError(f"{model.config['name']} has no output {name!r}; choose {_known(model)}")
    head: Any = module_of(model, "head")
    column, label = names.index(name), model.labels[names.index(name)]
    twice: Any = module_of(model, "ecg").fc_norm if model.config["head_options"].get("double_fc_norm") else None
    binary = label["kind"] == "binary"

    def score(embedding: Tensor) -> Tensor:
        raw: Tensor = head(embedding if twice is None else twice(embedding))
        if isinstance(head, ClassHead):
            others = torch.cat([raw[:, :column], raw[:, column + 1 :]], dim=1)
            return raw[:, column] - others.logsumexp(dim=1)
        return raw[:, column] if binary else raw[:, column] * head.std[column] + head.mean[column]

    return Target(name, "log-odds" if binary else label["unit"], "ecg", score)


def similarity_target(model: LoadedModel, other: Any, name: str = "") -> Target:
    """Cosine, in the shared space, with a given cine (explains an ECG) or recording (explains a cine).

    Raises:
        ValueError: The model has no projections or no CMR tower.
    """
    theirs: Literal["ecg", "cmr"] = "cmr" if isinstance(other, Cine) else "ecg"
    mine: Literal["ecg", "cmr"] = "ecg" if theirs == "cmr" else "cmr"
    fixed = shared_vector(model, prepare(model, other))
    projection = module_of(model, f"{mine}_projection")

    def score(embedding: Tensor) -> Tensor:
        return functional.normalize(projection(embedding), dim=-1) @ fixed

    words = "cine" if theirs == "cmr" else "recording"
    return Target(name or f"similarity with a given {words}", "cosine", mine, score)


def prototype_target(model: LoadedModel, prototypes: Prototypes, name: str, modality: Any = "cmr") -> Target:
    """Cosine with the prototype of a class minus the mean cosine with the others, in the shared space.

    Raises:
        ValueError: No such class, or the model has no projection of the modality.
    """
    if name not in prototypes.names:
        raise ValueError(f"no prototype {name!r}; there are {', '.join(prototypes.names)}")
    place = prototypes.names.index(name)
    vectors = torch.from_numpy(prototypes.vectors).float().to(model.device)
    others = torch.cat([vectors[:place], vectors[place + 1 :]]).mean(dim=0)
    direction = vectors[place] - others
    projection = module_of(model, f"{modality}_projection")

    def score(embedding: Tensor) -> Tensor:
        return functional.normalize(projection(embedding), dim=-1) @ direction

    return Target(f"prototype of class {name}", "difference of cosines", modality, score)


@torch.no_grad()
def shared_vector(model: LoadedModel, prepared: Prepared) -> Tensor:
    """The unit vector (P,) of a prepared input in the shared space."""
    projection: nn.Module = module_of(model, f"{prepared.modality}_projection")
    return functional.normalize(projection(prepared.encoder(prepared.x)), dim=-1)[0]


def _known(model: LoadedModel) -> str:
    names = [label["name"] for label in model.labels]
    heads = f"one of {', '.join(names)}" if names else "(this model has no head)"
    return f"{heads}; or a cine, for the similarity with it"
