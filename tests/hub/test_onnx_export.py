"""Exported graphs give what the weights give, whatever the batch and the mode, and say what they are."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ecgcmr
from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.hub import export_graphs, onnx_export
from ecgcmr.hub.export_graphs import PARITY, build_graphs, measure_parity
from ecgcmr.hub.onnx_model import OnnxModel, open_session
from ecgcmr.hub.weights import Weights, load_weights, save_weights
from ecgcmr.models.build import build_module

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")

CARD = {"name": "other", "stage": "supervised", "license": "MIT", "provenance": "simulated", "trained_on": "nobody"}
SHAPES = {"ecg": (12, 200), "cmr": (3, 32, 32)}


def inputs(modality: str, batch: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (batch, *SHAPES[modality])).astype(np.float32)


def small_ecg(**fields: object) -> nn.Module:
    sizes = {"n_samples": 100, "width": 16, "depth": 1, "heads": 2, "patch": 50}
    return build_module({"kind": "ecg_vit", **sizes, **fields})


def small_head(width: int = 16) -> nn.Module:
    labels = [
        {"name": "LVEDV", "kind": "regression", "unit": "ml"},
        {"name": "mi", "kind": "binary", "unit": ""},
        {"name": "LVEF", "kind": "regression", "unit": "%"},
    ]
    head = build_module({"kind": "prediction_head", "in_features": width, "hidden": 8, "labels": labels})
    head.set_statistics([150.0, 0.0, 60.0], [30.0, 1.0, 8.0])  # type: ignore[operator]
    return head


@torch.no_grad()
def test_graphs__equal_the_modules_for_any_batch(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    model, modules = OnnxModel(folder, threads=1), weights.modules
    for batch in (1, 3, 8):
        ecg, cmr = inputs("ecg", batch), inputs("cmr", batch)
        embedding, image = modules["ecg"](torch.from_numpy(ecg)), modules["cmr"](torch.from_numpy(cmr))
        assert np.abs(model.encode(ecg) - embedding.numpy()).max() < PARITY
        assert np.abs(model.encode_cmr(cmr) - image.numpy()).max() < PARITY
        for name, x, vector in (("ecg", ecg, embedding), ("cmr", cmr, image)):
            shared = modules[f"{name}_projection"](vector).numpy()
            shared /= np.linalg.norm(shared, axis=1, keepdims=True)
            assert np.abs(model.project(x, name) - shared).max() < PARITY
        linear = modules["head"].layers[0]
        raw = (embedding @ linear.weight.T + linear.bias).numpy()
        expected = np.stack([100 + 20 * raw[:, 0], 1 / (1 + np.exp(-raw[:, 1]))], axis=1)  # g; probability
        assert np.abs((model.predict(ecg) - expected) / [20, 1]).max() < PARITY


def test_graphs__a_row_does_not_depend_on_its_batch(exported: tuple[Weights, Path]) -> None:
    model, ecg = OnnxModel(exported[1]), inputs("ecg", 5)
    whole = model.encode(ecg)
    assert np.allclose(model.encode(ecg, batch_size=2), whole, atol=1e-5)
    assert np.allclose(model.encode(ecg[3:4])[0], whole[3], atol=1e-5)


def test_export__says_how_to_prepare_and_what_comes_out(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    about = json.loads((folder / "export.json").read_text())
    assert set(about["graphs"]) == {"ecg", "cmr", "ecg_projection", "cmr_projection", "predict"}
    ecg = about["graphs"]["predict"]["input"]
    assert (ecg["name"], ecg["shape"], ecg["rate_hz"]) == ("ecg", ["batch", 12, 200], 100.0)
    assert (ecg["leads"], ecg["window"], ecg["recording_unit"]) == (list(LEADS), "start", "mV")
    labels = [(x["name"], x["unit"]) for x in about["graphs"]["predict"]["output"]["labels"]]
    assert labels == [("LVM", "g"), ("mi", "probability")]
    assert about["weights_sha256"] == weights.config["sha256"]
    assert "not a medical device" in about["notice"]
    assert (about["license"], about["provenance"]) == ("MIT", "simulated")
    assert all(entry["parity"]["max_abs_difference"] < PARITY for entry in about["graphs"].values())
    for name in ("preprocess.json", "expected.json"):
        assert (folder / name).read_bytes() == (weights.folder / name).read_bytes()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "not a medical device" in card
    body = (weights.folder / "README.md").read_text().split("---\n", 2)[2].strip()
    assert body in card


def test_files__are_plain_onnx_that_names_no_machine(exported: tuple[Weights, Path]) -> None:
    folder = exported[1]
    root = Path(ecgcmr.__file__).parents[1]
    places = {str(root), str(Path.home()), str(Path.cwd()), str(Path(torch.__file__).parent), "site-packages", ".py"}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        assert not [place for place in places if len(place) > 1 and place.encode() in data], path.name
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path)
        own = {entry.key for entry in model.metadata_props}
        assert {"name", "license", "provenance", "notice", "graph", "ecgcmr_version"} <= own
        assert "not a medical device" in model.doc_string
        parts = [model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
        assert not [part for part in [*parts, *model.graph.value_info] if part.metadata_props or part.doc_string]
        if "int8" not in path.name:
            assert {entry.domain for entry in model.opset_import} == {""}
            assert model.opset_import[0].version == onnx_export.OPSET
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_strip_traces__reaches_nested_graphs() -> None:
    inner = onnx.helper.make_node("Identity", ["x"], ["y"], doc_string="File a.py")
    inner.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File b.py")
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1], doc_string="c.py")
    branch = onnx.helper.make_graph([inner], "branch", [], [value])
    node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "main", [], [value]), doc_string="d.py")
    assert b".py" in model.SerializeToString()
    onnx_export.strip_traces(model)
    assert b".py" not in model.SerializeToString()
    assert model.graph.node[0].attribute[0].g.node[0].op_type == "Identity"


@torch.no_grad()
def test_export__of_modules_in_training_is_that_of_evaluation(tmp_path: Path) -> None:
    torch.manual_seed(3)
    ecg = small_ecg(depth=2, drop_path=0.9, pool="attention")
    norm = build_module({"kind": "projection_head", "in_features": 16, "hidden": 8, "out": 4, "batch_norm": True})
    norm.layers[1].running_mean.uniform_(-1, 1)  # type: ignore[union-attr,index]
    folder = save_weights(tmp_path / "w", {"ecg": ecg, "ecg_projection": norm}, ecg_pipeline("highpass"), None, CARD)
    weights = load_weights(folder)
    x = torch.rand(6, 12, 100, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.normalize(weights.modules["ecg_projection"](weights.modules["ecg"](x)), dim=-1)
    for module in weights.modules.values():
        module.train()
    before = copy.deepcopy(weights.modules["ecg_projection"].state_dict())
    model = OnnxModel(onnx_export.export_onnx(weights, tmp_path / "onnx", ["ecg_projection"]))
    assert np.abs(model.project(x.numpy()) - expected.numpy()).max() < PARITY
    assert all(module.training for module in weights.modules.values()), "the user's modules stay as they were"
    after = weights.modules["ecg_projection"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    graph = build_graphs(weights, ["ecg_projection"])[0]
    onnx_export.to_onnx(graph, weights)
    assert not any(part.training for part in graph.module.modules()), "evaluation mode again after the export"


@torch.no_grad()
def test_predict__several_labels_and_a_doubled_norm(tmp_path: Path) -> None:
    torch.manual_seed(4)
    ecg, head = small_ecg(), small_head()
    nn.init.normal_(head.layers[0].weight)  # type: ignore[union-attr,index,arg-type]
    nn.init.normal_(head.layers[2].weight)  # type: ignore[union-attr,index,arg-type]
    nn.init.normal_(ecg.fc_norm.weight)  # type: ignore[union-attr,arg-type]
    options = {"double_fc_norm": True, "optimal_threshold": 0.3}
    folder = save_weights(tmp_path / "w", {"ecg": ecg, "head": head}, ecg_pipeline("highpass"), None, CARD, options)
    model = OnnxModel(onnx_export.export_onnx(folder, tmp_path / "onnx", ["predict"]))
    x = torch.rand(7, 12, 100, generator=torch.Generator().manual_seed(0))
    embedding = ecg.eval()(x)
    raw = head.layers(ecg.fc_norm(embedding)).numpy()  # type: ignore[operator]
    expected = np.stack([150 + 30 * raw[:, 0], 1 / (1 + np.exp(-raw[:, 1])), 60 + 8 * raw[:, 2]], axis=1)
    found = model.predict(x.numpy())
    assert np.abs((found - expected) / [30, 1, 8]).max() < PARITY
    once = head.layers(embedding).numpy()  # type: ignore[operator]
    assert np.abs(once - raw).max() > 1e-2, "the doubled norm makes a difference here"
    assert [label["name"] for label in model.labels] == ["LVEDV", "mi", "LVEF"]
    assert model.spec.about["head_options"] == options


def test_export__of_a_cine_transformer_has_the_shape_of_its_pipeline(tmp_path: Path) -> None:
    torch.manual_seed(5)
    sizes = {"width": 16, "depth": 1, "heads": 2, "stem": 8}
    cine = build_module({"kind": "cmr_encoder", "name": "cine_transformer", "cine": sizes})
    folder = save_weights(tmp_path / "w", {"cmr": cine}, None, cmr_pipeline("three_frames", size=32), CARD)
    model = OnnxModel(onnx_export.export_onnx(folder, tmp_path / "onnx"))
    assert list(model.spec.graphs) == ["cmr"]
    with torch.no_grad():
        expected = cine.eval()(torch.from_numpy(inputs("cmr", 3))).numpy()
    assert np.abs(model.encode_cmr(inputs("cmr", 3)) - expected).max() < PARITY


def test_export__refuses_by_name(exported: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, _ = exported
    out = tmp_path / "onnx"
    with pytest.raises(ValueError, match=r"no graph 'mri' in these weights; they offer ecg, cmr, ecg_projection"):
        onnx_export.export_onnx(weights, out, ["mri"])
    with pytest.raises(ValueError, match="ecg_decoder serves masked pretraining only"):
        onnx_export.export_onnx(weights, out, ["ecg", "ecg_decoder"])
    with pytest.raises(ValueError, match="int8 is offered for ECG graphs only, and cmr is none"):
        onnx_export.export_onnx(weights, out, ["cmr"], int8=True)
    bare = replace(weights, modules={"head": weights.modules["head"]})
    with pytest.raises(ValueError, match="nothing to export: the modules head make"):
        onnx_export.export_onnx(bare, out)
    odd = replace(weights, config={**weights.config, "head_options": {"temperature": 2.0}})
    with pytest.raises(ValueError, match=r"head_options \['temperature'\] are not known to the export"):
        onnx_export.export_onnx(odd, out, ["predict"])
    assert list(tmp_path.iterdir()) == []


class Undecided(nn.Module):
    """A module whose path depends on its data: no graph can say that."""

    leads, n_samples, embed_dim = 12, 200, 32

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, :32] if x.sum() > 0 else x[:, 1, :32]


def test_export__names_the_module_that_cannot_be_translated(exported: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, _ = exported
    broken = replace(weights, modules={**weights.modules, "ecg": Undecided()})
    with pytest.raises(ValueError, match=r"ecg cannot be exported to ONNX: a module of Undecided is not supported"):
        onnx_export.export_onnx(broken, tmp_path / "onnx", ["ecg"])
    assert list(tmp_path.iterdir()) == []


def test_parity__at_the_tolerance_and_in_the_units_of_the_labels(exported: tuple[Weights, Path]) -> None:
    weights, _ = exported
    graph = build_graphs(weights, ["predict"])[0]
    assert graph.scale.tolist() == [20.0, 1.0]

    def moved(by: list[float]) -> dict[str, float]:
        def run(x: np.ndarray) -> np.ndarray:
            return export_graphs.run_module(graph.module, torch.from_numpy(x)) + np.array(by)

        return measure_parity(weights, graph, run)

    assert moved([20 * 0.9e-4, 0.0])["max_abs_difference"] == pytest.approx(0.9e-4, rel=1e-3)
    for wrong in ([20 * 1.1e-4, 0.0], [0.0, 1.1e-4], [float("nan"), 0.0]):
        with pytest.raises(ValueError, match=r"predict differs by .* from the weights after the export"):
            moved(wrong)
    with pytest.raises(ValueError, match=r"gives shape \(1, 1\) .* expected \(1, 2\)"):
        measure_parity(weights, graph, lambda x: np.zeros((len(x), 1), np.float32))


def test_export__that_differs_leaves_nothing_behind(
    exported: tuple[Weights, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, folder = exported
    wrong = onnx.load(folder / "ecg.onnx")
    closing = [node for node in wrong.graph.node if node.op_type == "LayerNormalization"][-1]
    bias = next(t for t in wrong.graph.initializer if t.name == closing.input[2])
    moved = onnx.numpy_helper.to_array(bias) + np.float32(2e-4)
    wrong.graph.initializer.append(onnx.numpy_helper.from_array(moved, "moved"))  # equal tensors may be one
    closing.input[2] = "moved"
    monkeypatch.setattr(onnx_export, "to_onnx", lambda graph, weights: wrong.SerializeToString())
    with pytest.raises(ValueError, match=r"ecg differs by 0\.0002 from the weights .*nothing was written"):
        onnx_export.export_onnx(weights, tmp_path / "onnx", ["ecg"])
    assert list(tmp_path.iterdir()) == []


def test_export__replaces_nothing_but_an_earlier_export(
    exported: tuple[Weights, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, folder = exported
    data = (folder / "ecg.onnx").read_bytes()
    monkeypatch.setattr(onnx_export, "to_onnx", lambda graph, weights: data)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="is no earlier export"):
        onnx_export.export_onnx(weights, mine, ["ecg"], force=True)
    assert (mine / "thesis.txt").read_text() == "years"
    with pytest.raises(FileExistsError, match="is no earlier export"):
        onnx_export.export_onnx(weights, weights.folder, ["ecg"], force=True)
    earlier = tmp_path / "earlier"
    shutil.copytree(folder, earlier)
    (earlier / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds notes\.txt beside an export"):
        onnx_export.export_onnx(weights, earlier, ["ecg"], force=True)
    (earlier / "notes.txt").unlink()
    with pytest.raises(FileExistsError, match="--force"):
        onnx_export.export_onnx(weights, earlier, ["ecg"])
    assert (earlier / "predict.onnx").exists()
    onnx_export.export_onnx(weights, earlier, ["ecg"], force=True)
    assert {path.name for path in earlier.glob("*.onnx")} == {"ecg.onnx"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "mine"]


def test_export__twice_gives_the_same_bytes(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    again = onnx_export.to_onnx(build_graphs(weights, ["ecg"])[0], weights)
    assert again == (folder / "ecg.onnx").read_bytes()


def test_export__without_the_extra_says_which(
    exported: tuple[Weights, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, folder = exported
    monkeypatch.setattr("ecgcmr.hub.onnx_model.find_spec", lambda name: None if "onnx" in name else object())
    with pytest.raises(ValueError, match=r"ONNX needs onnx, onnxscript, onnxruntime.*pip install 'ecgcmr\[onnx\]'"):
        onnx_export.export_onnx(weights, tmp_path / "onnx")
    with pytest.raises(ValueError, match=r"ONNX needs onnxruntime, which .*pip install 'ecgcmr\[onnx\]'"):
        OnnxModel(folder)


def test_file__runs_on_its_own(exported: tuple[Weights, Path]) -> None:
    """A file that was taken out of its folder says by itself what it takes."""
    session = open_session((exported[1] / "predict.onnx").read_bytes(), threads=1)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("ecg", ["batch", 12, 200], "tensor(float)")
    assert (given.name, given.shape) == ("prediction", ["batch", 2])
    assert "not a medical device" in session.get_modelmeta().custom_metadata_map["notice"]
