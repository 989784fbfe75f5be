"""Names, folders and addresses on a hub lead to the same folder, and without a network all but new downloads work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecgcmr.hub import source as source_module
from ecgcmr.hub.download import split_address
from ecgcmr.hub.source import FILES, named_folders, released_folders, resolve_source
from ecgcmr.hub.weights import load_weights

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def places(ecg_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A release with ecg_a, a cache with ecg_a and ecg_b."""
    released, cache = tmp_path / "released", tmp_path / "cache"
    for place, name in ((released, "ecg_a"), (cache / "weights", "ecg_a"), (cache / "weights", "ecg_b")):
        shutil.copytree(ecg_folder, place / name)
    (released / ".ecg_c.partial").mkdir()
    (released / "index.json").write_text("{}")
    monkeypatch.setattr(source_module, "released_folders", lambda: [released])
    monkeypatch.setenv("ECGCMR_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return {"released": released, "cache": cache / "weights"}


@pytest.fixture
def hub_cache(ecg_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub's client as it lays it out: files are links into blobs, a branch is a file with a commit."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    repo = cache / "models--org--ecg.small"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (snapshot, repo / "blobs", repo / "refs"):
        folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ecg_folder / name, repo / "blobs" / f"blob_{name}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"blob_{name}")
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return snapshot


def test_resolve_source__names_before_the_cache_and_near_names(places: dict[str, Path]) -> None:
    assert resolve_source("ecg_a") == places["released"] / "ecg_a"
    assert resolve_source("ecg_b") == places["cache"] / "ecg_b"
    assert list(named_folders()) == ["ecg_a", "ecg_b"]
    with pytest.raises(FileNotFoundError, match=r"'ecg_bb'.*did you mean 'ecg_b'") as caught:
        resolve_source("ecg_bb")
    assert str(places["cache"]) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="known names: ecg_a, ecg_b"):
        resolve_source("0000")


def test_resolve_source__paths(places: dict[str, Path], ecg_folder: Path, tmp_path: Path) -> None:
    for text in (f"local-dir:{ecg_folder}", str(ecg_folder), "./ecg_only", "ecg_only", "local-dir:ecg_only"):
        assert resolve_source(text).resolve() == ecg_folder.resolve()
    assert resolve_source(Path("ecg_a")) == Path("ecg_a")  # a Path is never a name
    assert resolve_source("~/x") == Path.home() / "x"
    with pytest.raises(ValueError, match="prefix 's3' is not known, expected a released name, local-dir:PATH"):
        resolve_source("s3:bucket/ecg_a")
    with pytest.raises(ValueError, match="is empty"):
        resolve_source(" ")


def test_resolve_source__a_name_that_is_also_a_folder_is_not_guessed(places: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "ecg_a").mkdir()
    with pytest.raises(ValueError, match=r"'ecg_a' is both a name .* and a folder here .* say local-dir:ecg_a"):
        resolve_source("ecg_a")
    assert resolve_source("local-dir:ecg_a") == Path("ecg_a")


def test_released_folders__need_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `weights` in site-packages that is somebody else's is not ours."""
    (tmp_path / "site" / "weights" / "theirs").mkdir(parents=True)
    (tmp_path / "site" / "weights" / "theirs" / "config.json").write_text("{}")
    (tmp_path / "site" / "ecgcmr" / "weights").mkdir(parents=True)
    monkeypatch.setattr(source_module, "files", lambda package: tmp_path / "site" / package)
    assert released_folders() == []
    (tmp_path / "site" / "ecgcmr" / "weights" / "index.json").write_text("{}")
    assert released_folders() == [tmp_path / "site" / "ecgcmr" / "weights"]


@pytest.mark.parametrize("address", ["org/ecg.small", f"org/ecg.small@{COMMIT}", "org/ecg.small@main"])
def test_hub__loads_from_its_cache_with_the_network_blocked(hub_cache: Path, network: list[str], address: str) -> None:
    weights = load_weights(f"hf-hub:{address}")
    assert weights.folder == hub_cache
    assert set(weights.modules) == {"ecg", "head"}


def test_hub__offline_mode_asks_nobody(hub_cache: Path, network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_weights("hf-hub:org/ecg.small").folder == hub_cache
    assert network == []


def test_hub__what_is_not_in_the_cache_says_what_to_do(hub_cache: Path, network: list[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"hf-hub:org/other: not in the cache.*copy the folder here and load"):
        load_weights("hf-hub:org/other")
    with pytest.raises(FileNotFoundError, match=r"ecg\.small@v2: not in the cache"):
        load_weights("hf-hub:org/ecg.small@v2")


def test_hub__a_download_is_checked_like_any_folder(hub_cache: Path, network: list[str]) -> None:
    blob = hub_cache.parent.parent / "blobs" / "blob_model.safetensors"
    data = bytearray(blob.read_bytes())
    data[-2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ValueError, match=r"not the tensors that config\.json describes"):
        load_weights("hf-hub:org/ecg.small")
    (hub_cache / "preprocess.json").unlink()  # a download that was interrupted
    with pytest.raises(FileNotFoundError, match=r"preprocess\.json missing"):
        load_weights("hf-hub:org/ecg.small")


def test_hub__only_files_of_a_weights_folder_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(repo: str, **options: object) -> str:
        asked.append((repo, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_source("hf-hub:org/name@v1.0") == tmp_path
    assert asked == [("org/name", {"revision": "v1.0", "allow_patterns": list(FILES), "local_files_only": False})]


@pytest.mark.parametrize("address", ["", "name", "a/b/c", "../b", "org/name@", "org/..", "a/b@../x", "org/na me"])
def test_split_address__refuses_what_is_none(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected hf-hub:ORG/NAME"):
        split_address(address)


def test_local_weights__need_no_client_of_the_hub(ecg_folder: Path, network: list[str]) -> None:
    load_weights(ecg_folder)
    assert network == []
    program = (
        "import sys; from ecgcmr.hub.source import resolve_source; import ecgcmr; names = ecgcmr.list_models().names;"
        f"resolve_source('local-dir:{ecg_folder}'); [resolve_source(name) for name in names];"
        "loaded = {'torch', 'huggingface_hub', 'pandas', 'timm'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
