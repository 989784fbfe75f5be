"""Names of formats and options; the command `ecgcmr weights convert`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import vit_layout as layout
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.hub.convert.registry import FORMATS, convert, describe_formats, find_converter, find_format, parse_options
from ecgcmr.hub.convert.writing import convert_file
from ecgcmr.hub.expected import verify_weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"model": layout.encoder_state(64, 1)}, tmp_path / "signal.pth")
    return tmp_path / "signal.pth"


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["weights", "convert", *(str(word) for word in words)])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", FORMATS)
def test_format__has_a_converter_and_takes_its_defaults(name: str) -> None:
    assert callable(find_converter(name))
    chosen = parse_options(name, {})
    assert parse_options(name, chosen) == chosen
    assert all(option.about for option in FORMATS[name].options.values())


@pytest.mark.parametrize("name", FORMATS)
def test_format__refuses_a_file_of_something_else(name: str, tmp_path: Path) -> None:
    torch.save({"model": {"layer.weight": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: "):
        convert(tmp_path / "a.pth", name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        convert(tmp_path / "absent.pth", name)


def test_find_format__gives_the_nearest_names() -> None:
    with pytest.raises(ValueError, match="did you mean signal_encoder_mmcl or"):
        find_format("signal_encoder_mmc")
    with pytest.raises(ValueError, match="choose one of signal_encoder_mdm"):
        find_format("xyz")


def test_parse_options__refuses_what_it_does_not_know() -> None:
    assert parse_options("mae", ["heads = 4"])["heads"] == "4"
    for given, said in (
        (["head=4"], "no option 'head'; did you mean heads"),
        (["heads"], "no KEY=VALUE"),
        (["heads="], "no KEY=VALUE"),
        (["heads=4", "heads=5"], "given twice"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_options("mae", given)


def test_auto__suggests_and_converts_only_what_is_beyond_doubt(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"agree with signal_encoder_mdm, signal_encoder_mmcl.*say which it is"):
        convert(file, "auto")
    torch.save({"model": {"layer.weight": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="agree with no known format"):
        convert(tmp_path / "a.pth", "auto")


def test_command__writes_a_folder_that_verifies_and_reports(file: Path, tmp_path: Path) -> None:
    code, said = run(file, "--from", "mae", "--out", tmp_path / "w", "--option", "embedding=cls")
    assert code == 0, said
    assert "loaded   ecg: EcgViT, 18 tensors" in said
    assert "dropped  nothing" in said
    assert "note     Embedding: norm, then the cls token." in said
    assert f"written: {tmp_path / 'w'}" in said
    assert max(verify_weights(tmp_path / "w").values()) < 1e-5


def test_command__replaces_only_weights_folders_and_only_when_told(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "w"
    assert run(file, "--from", "mae", "--out", out)[0] == 0
    code, said = run(file, "--from", "mae", "--out", out)
    assert (code, "--force" in said) == (2, True)
    assert run(file, "--from", "mae", "--out", out, "--force")[0] == 0
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    code, said = run(file, "--from", "mae", "--out", tmp_path / "letters", "--force")
    assert (code, "no weights folder" in said) == (2, True)
    assert (tmp_path / "letters" / "letter.txt").read_text() == "dear"


def test_command__says_what_is_wrong_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:500])
    code, said = run(file, "--from", "mae", "--out", tmp_path / "w")
    assert (code, "cut off" in said) == (2, True)
    assert not (tmp_path / "w").exists()
    code, said = run(file, "--from", "maw", "--out", tmp_path / "w")
    assert (code, "did you mean" in said) == (2, True)
    assert run(file)[0] == 2


def test_command__lists_formats_with_options_and_defaults() -> None:
    code, said = run("--list")
    assert code == 0
    assert said.splitlines() == describe_formats()
    for name in FORMATS:
        assert f"{name}: " in said
    assert "embedding=norm_mean" in said


def test_convert_file__writes_half_of_nothing_when_a_module_does_not_fit(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="norm_mean, cls"):
        convert_file(file, "mae", tmp_path / "w", ["embedding=best"])
    assert list(tmp_path.iterdir()) == [file]
