"""Every figure of the docs is drawn by a script, and the scripts still draw."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import draw_all  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGE = {"sheet.png"}  # twelve rows of ECGs and cines, which must be readable


def shown() -> set[Path]:
    """Pictures that pages show."""
    found = set()
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)|<img[^>]*src=\"([^\"]+)\"", page.read_text()):
            name = next(filter(None, target))
            assert not name.startswith("http"), f"{page.name} shows {name}, which is not in the repository"
            found.add((page.parent / name).resolve())
    return found


def test_pictures__are_those_that_scripts_make() -> None:
    made = {(draw_all.FIGURES / name).resolve() for name in draw_all.MADE_BY}
    assert shown() == made
    assert {path.resolve() for path in draw_all.FIGURES.iterdir()} == made


@pytest.mark.parametrize("name", draw_all.MADE_BY)
def test_picture__is_small_and_opens(name: str) -> None:
    path = draw_all.FIGURES / name
    assert path.stat().st_size < (1_200_000 if name in LARGE else 300_000)
    if path.suffix == ".svg":
        root = ElementTree.fromstring(path.read_text())
        assert root.tag.endswith("svg")
        assert root.get("aria-label")
        assert "@UID@" not in path.read_text()
    else:
        with Image.open(path) as picture:
            picture.verify()


@pytest.mark.parametrize("name", sorted({words[0] for words in draw_all.MADE_BY.values()}))
def test_script__stands_in_the_folder(name: str) -> None:
    assert (ROOT / "scripts" / name).is_file()


def test_draw_all__draws_the_overview(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "scripts" / "draw_all.py"), "overview.png", "--out", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == ["overview.png"]
    with Image.open(tmp_path / "overview.png") as picture, Image.open(draw_all.FIGURES / "overview.png") as stored:
        assert picture.size == stored.size


def test_draw_all__names_the_figures_there_are(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "scripts" / "draw_all.py"), "none.png", "--out", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no figure 'none.png'; there are overview.png" in done.stderr


@pytest.mark.slow
def test_draw_examples__draws_its_three(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    program = [sys.executable, str(ROOT / "scripts" / "draw_examples.py"), "--cohort", str(tmp_path / "hearts")]
    done = subprocess.run(
        [*program, "--subjects", "80", "--draws", "50", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        name for name, words in draw_all.MADE_BY.items() if words[0] == "draw_examples.py"
    }
