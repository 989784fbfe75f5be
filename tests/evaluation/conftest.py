"""Lets the tests of this room import `survival_cases`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory):
    """Both towers, projections and a head with random weights, loaded as a user loads them."""
    import torch

    import ecgcmr
    from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
    from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
    from ecgcmr.hub.weights import save_weights
    from ecgcmr.models.build import build_module

    card = {
        "name": "small", "stage": "clip_align", "license": "MIT", "provenance": "simulated",
        "trained_on": "nothing", "run": {"seed": 3},
    }  # fmt: skip
    labels = [{"name": "LVM", "kind": "regression", "unit": "g"}, {"name": "mi", "kind": "binary", "unit": ""}]
    folders = tmp_path_factory.mktemp("explained")
    for seed, name in enumerate(("both", "ecg_only", "other")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            ecg = {"kind": "ecg_vit", "n_samples": 200, "width": 32, "depth": 2, "heads": 2, "patch": 50}
            cmr = {"kind": "cmr_encoder", "name": "test_resnet.r160_in1k", "in_channels": 3}
            built = {"ecg": build_module(ecg), "cmr": build_module(cmr)}
            for part in ("ecg", "cmr"):
                sizes = {"in_features": built[part].embed_dim, "hidden": 16, "out": 8}
                built[f"{part}_projection"] = build_module({"kind": "projection_head", **sizes})
            built["head"] = build_module({"kind": "prediction_head", "in_features": 32, "hidden": 8, "labels": labels})
            for parameter in built["head"].parameters():  # a fresh head is nearly constant
                parameter.data += 0.3 * torch.randn_like(parameter)
        built["head"].set_statistics([100.0, 0.0], [20.0, 1.0])
        if name == "ecg_only":
            built = {part: built[part] for part in ("ecg", "head")}
        image = cmr_pipeline("three_frames", size=32) if "cmr" in built else None
        save_weights(folders / name, built, ecg_pipeline("highpass"), image, {**card, "name": name})
    return {name: ecgcmr.load_model(folders / name, device="cpu") for name in ("both", "ecg_only", "other")}
