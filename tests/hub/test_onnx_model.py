"""The backend over onnxruntime: what it takes, what it refuses, and that it does without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.onnx_model import OnnxModel, read_spec
from ecgcmr.hub.weights import Weights

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

ECG = np.random.default_rng(0).normal(size=(3, 12, 200)).astype(np.float32)


@pytest.fixture
def copied(exported: tuple[Weights, Path], tmp_path: Path) -> Path:
    return shutil.copytree(exported[1], tmp_path / "copied")


def change(folder: Path, name: str = "export.json", **fields: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_spec__has_shapes_labels_and_pipelines(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    spec = read_spec(f"local-dir:{folder}")
    assert spec.input_shape("ecg") == (12, 200)
    assert spec.input_shape("cmr") == (3, 32, 32)
    assert spec.input_shape("sound") is None
    assert [(label["name"], label["kind"]) for label in spec.labels] == [("LVM", "regression"), ("mi", "binary")]
    assert spec.ecg_pipeline is not None
    assert weights.ecg_pipeline is not None
    assert spec.ecg_pipeline.fingerprint() == weights.ecg_pipeline.fingerprint()
    assert repr(OnnxModel(folder, int8=True)).endswith("predict, int8)")


def test_compute__is_embed_or_predict_of_all_leads(exported: tuple[Weights, Path]) -> None:
    model = OnnxModel(exported[1], threads=1)
    assert np.array_equal(model.compute("embed", ECG, LEADS), model.encode(ECG))
    assert np.array_equal(model.compute("predict", ECG), model.predict(ECG))
    with pytest.raises(ValueError, match="reads all twelve leads, but not there: V5, V6"):
        model.compute("embed", ECG, LEADS[:-2])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (ECG[:, :, :100], r"ecg input has shape \(3, 12, 100\), expected \(B, 12, 200\).*pipeline 'highpass'"),
        (ECG[0], r"shape \(12, 200\)"),
        (ECG[:0], "B of at least 1"),
        (ECG.astype(np.int16), "type int16, expected a floating point"),
        (np.where(np.arange(3)[:, None, None] == 1, np.nan, ECG), "ecg input 1 is not finite"),
    ],
)
def test_encode__refuses_what_does_not_fit(exported: tuple[Weights, Path], x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnnxModel(exported[1]).encode(x)


def test_encode__takes_double_precision_and_views(exported: tuple[Weights, Path]) -> None:
    model = OnnxModel(exported[1], threads=1)
    expected = model.encode(ECG)
    assert np.allclose(model.encode(ECG.astype(np.float64)), expected, atol=1e-6)
    assert np.allclose(model.encode(ECG[::-1])[::-1], expected, atol=1e-5)
    assert expected.dtype == np.float32
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.encode(ECG, batch_size=0)


def test_open__incomplete_and_foreign_folders(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no exported folder there"):
        OnnxModel(tmp_path / "nowhere")
    (copied / "preprocess.json").rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match=r"preprocess\.json missing: this is not a complete export"):
        OnnxModel(copied)
    (tmp_path / "kept").rename(copied / "preprocess.json")
    change(copied, "preprocess.json", ecg=None)
    with pytest.raises(ValueError, match="no 'ecg' pipeline"):
        OnnxModel(copied)
    change(copied, format="ecgcmr-export-program")
    with pytest.raises(ValueError, match="format 'ecgcmr-export-program' version 1"):
        OnnxModel(copied)


def test_open__broken_entries(copied: Path) -> None:
    about = json.loads((copied / "export.json").read_text())
    for wrong in ({"file": "ecg.onnx"}, None, [], {**about["graphs"]["ecg"], "sha256": 3}):
        change(copied, graphs={**about["graphs"], "ecg": wrong})
        with pytest.raises(ValueError, match="entry of graph 'ecg' is not as export_onnx writes it"):
            OnnxModel(copied)
    change(copied, graphs={})
    with pytest.raises(ValueError, match="graphs is empty"):
        OnnxModel(copied)
    change(copied, graphs={"ecg": {**about["graphs"]["ecg"], "file": "../ecg.onnx"}})
    with pytest.raises(ValueError, match="is not in the folder itself"):
        OnnxModel(copied).encode(ECG)


def test_encode__another_or_missing_file(copied: Path) -> None:
    path = copied / "ecg.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"ecg\.onnx: not the file that export\.json describes"):
        OnnxModel(copied).encode(ECG)
    assert OnnxModel(copied).predict(ECG).shape == (3, 2), "the other graphs are whole"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing, but export\.json lists it"):
        OnnxModel(copied).encode(ECG)


def test_encode__what_onnxruntime_cannot_read(copied: Path) -> None:
    import hashlib

    about = json.loads((copied / "export.json").read_text())
    data = b"no model at all"
    (copied / "ecg.onnx").write_bytes(data)
    entry = {**about["graphs"]["ecg"], "sha256": hashlib.sha256(data).hexdigest()}
    change(copied, graphs={"ecg": entry})
    with pytest.raises(ValueError, match=r"ecg\.onnx: onnxruntime cannot read it"):
        OnnxModel(copied).encode(ECG)


def test_open__what_is_not_there_is_named(copied: Path) -> None:
    about = json.loads((copied / "export.json").read_text())
    plain = {key: value for key, value in about["graphs"]["ecg"].items() if key != "int8"}
    change(copied, graphs={"ecg": plain})
    with pytest.raises(ValueError, match="no graph 'predict' was exported; there are ecg"):
        OnnxModel(copied).predict(ECG)
    with pytest.raises(ValueError, match="has no int8 graphs"):
        OnnxModel(copied, int8=True)
    with pytest.raises(ValueError, match=r"no provider MagicProvider; it has .*CPUExecutionProvider"):
        OnnxModel(copied, providers=["MagicProvider"]).encode(ECG)


def test_inference__does_without_torch(exported: tuple[Weights, Path]) -> None:
    program = (
        "import sys, numpy as np; from ecgcmr.hub import OnnxModel; "
        f"found = OnnxModel({str(exported[1])!r}, threads=1).predict(np.zeros((2, 12, 200), np.float32)); "
        "assert found.shape == (2, 2); heavy = {'torch', 'timm', 'onnx'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
