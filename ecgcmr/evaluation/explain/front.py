"""The front door: one function for all methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ecgcmr.cmr.cine import Cine
from ecgcmr.evaluation.explain.attention import attention_rollout
from ecgcmr.evaluation.explain.gradients import grad_cam, integrated_gradients
from ecgcmr.evaluation.explain.localising import localisation
from ecgcmr.evaluation.explain.occluding import occlusion
from ecgcmr.evaluation.explain.prepare import read_one
from ecgcmr.evaluation.explain.result import Explanation
from ecgcmr.hub.inputs import Declared

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

METHODS = {
    "ig": "integrated gradients (ECG or cine)",
    "occlusion": "effect of taking a lead, a window or a wave away (by=), or a patch of the image",
    "rollout": "attention rollout (ECG; about no target)",
    "gradcam": "Grad-CAM (cine; convolutional tower)",
    "localisation": "parts against the other modality's whole (which=; target is the cine)",
}


def explain(
    model: LoadedModel,
    recording: Any,
    target: Any = None,
    method: str = "ig",
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    **options: Any,
) -> Explanation:
    """Explain an output of a model for one recording or cine.

    Args:
        model: From `ecgcmr.load_model`.
        recording: A recording, ECG file or array (L, T), or a cine.
        target: Name of an output of the head ("LVM"); a cine (or, for a cine, a recording), for the similarity with it;
            or a `Target`. None for `rollout`.
        method: One of `METHODS`.
        rate_hz: Sampling rate [Hz], for arrays and for files that do not state it.
        leads: Lead names of the rows, likewise.
        unit: mV, uV, V, or z where the voltage is lost, likewise.
        **options: Further arguments of the method's function: `by` and `window_ms` of occlusion, `steps` of ig,
            `layer` of gradcam, `which` and `upsample` of localisation.

    Returns:
        Attributions with unit, target, method and settings.

    Raises:
        ValueError: For an unknown method, target or option, or what the method's function raises.
        FileNotFoundError: The file is not there.
    """
    if method not in METHODS:
        listed = "; ".join(f"{name}: {words}" for name, words in METHODS.items())
        raise ValueError(f"unknown method {method!r}; known: {listed}")
    declared = Declared(rate_hz, None if leads is None else tuple(leads), unit)
    if declared.given():
        recording = read_one(recording, declared)
    try:
        if method == "rollout":
            if target is not None:
                raise ValueError("attention rollout is about no target: leave target out, or take method 'ig'")
            return attention_rollout(model, recording, **options)
        if method == "localisation":
            pair = (recording, target) if isinstance(target, Cine) else (target, recording)
            return localisation(model, *pair, **options)
        functions: dict[str, Callable[..., Explanation]] = {
            "ig": integrated_gradients,
            "occlusion": occlusion,
            "gradcam": grad_cam,
        }
        return functions[method](model, recording, target, **options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise ValueError(f"method {method!r}: {error}") from error
        raise
