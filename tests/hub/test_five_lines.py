"""The five lines of the README: from a clean interpreter to an embedding of every format, offline."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import ecgcmr

ROOT = Path(__file__).parents[2]
FIVE_LINES = """
    import ecgcmr
    model = ecgcmr.load_model({source!r})
    recording = ecgcmr.read_ecg({file!r})
    embedding = model.embed(recording)
    print(embedding.shape)
"""
# An import that asks for a socket, and a run that opens one, end with an error.
OFFLINE = """
    import socket, sys
    def refuse(*args, **more): raise OSError("no network in tests")
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


def ecg_folders() -> list[Path]:
    found = []
    for config in sorted((ROOT / "weights").glob("*/config.json")):
        if "ecg" in json.loads(config.read_text())["modules"]:
            found.append(config.parent)
    return found


@pytest.fixture(scope="module")
def released() -> Path:
    """Some released folder with an ECG encoder: the smallest, whatever its name."""
    folders = ecg_folders()
    assert folders, "weights/ is part of the repository"
    return min(folders, key=lambda folder: (folder / "model.safetensors").stat().st_size)


def every_format(shared_data: Path) -> list[Path]:
    files = sorted(path for path in (shared_data / "ecg_formats").rglob("*") if path.suffix in (".xml", ".dcm"))
    return [path for path in files if not path.name.startswith("invalid")]


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.shared
def test_every_format__gives_an_embedding(shared_data: Path, released: Path) -> None:
    model = ecgcmr.load_model(f"local-dir:{released}", device="cpu")
    files = every_format(shared_data)
    assert len({path.parent.name for path in files}) >= 4
    single = [model.embed(ecgcmr.read_ecg(file))[0] for file in files]
    assert np.isfinite(single).all()
    assert np.allclose(model.embed(files), single, atol=1e-4)  # and by path, in one call
    assert np.unique(np.round(single, 3), axis=0).shape[0] > len(files) // 2  # different hearts, different vectors


@pytest.mark.shared
@pytest.mark.slow
def test_five_lines__in_a_clean_interpreter_without_network(shared_data: Path, released: Path) -> None:
    (file, *_) = every_format(shared_data)
    program = textwrap.dedent(OFFLINE) + textwrap.dedent(FIVE_LINES).format(
        source=f"local-dir:{released}", file=str(file)
    )
    width = json.loads((released / "config.json").read_text())["modules"]["ecg"]["width"]
    assert run(program).strip() == f"(1, {width})"


def test_import_and_help__are_free_of_heavy_packages() -> None:
    run("""
        import sys
        import ecgcmr
        found = {'torch', 'pandas', 'matplotlib', 'scipy', 'numba', 'numpy', 'pydantic', 'timm'} & set(sys.modules)
        assert not found, found
        from ecgcmr.cli.main import app
        try:
            app(['embed', '--help'])
        except SystemExit as done:
            assert not done.code
        found = {'torch', 'pandas', 'matplotlib', 'scipy', 'numba', 'timm'} & set(sys.modules)
        assert not found, found
    """)


def test_load_model__of_an_ecg_encoder_imports_no_image_package() -> None:
    run("""
        import sys
        import ecgcmr.hub.model
        from ecgcmr.models.build import build_module
        build_module({'kind': 'ecg_vit', 'n_samples': 200, 'width': 16, 'depth': 1, 'heads': 2, 'patch': 50})
        found = {'timm', 'torchvision', 'pandas', 'matplotlib', 'pyarrow', 'sklearn'} & set(sys.modules)
        assert not found, found
    """)
