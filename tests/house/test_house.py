"""The rules that keep the house beautiful: size of modules, words, side effects, privacy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "ecgcmr").rglob("*.py"))
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".cff", ".txt", ".json", ".j2", ".html", ""}
WORDS = {"patient": "subject", "participant": "subject", "eid": "subject", "exam": "study"}


def tracked_text() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("not a git checkout: nothing tells which files are tracked")
    return [ROOT / name for name in listed if (ROOT / name).suffix in TEXT and (ROOT / name).is_file()]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module__reads_at_one_sitting(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 320


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module__uses_the_words_of_the_field(module: Path) -> None:
    names = re.findall(r"\b(?:def|class)\s+(\w+)|\b(\w+)\s*[:=]", module.read_text())
    parts = {part.lower() for pair in names for name in pair for part in name.split("_")}
    wrong = parts & set(WORDS)
    assert not wrong, f"{module.name}: say {[WORDS[word] for word in wrong]} instead of {sorted(wrong)}"


def test_import__has_no_side_effects() -> None:
    program = (
        "import os, sys; before = dict(os.environ); import ecgcmr; assert dict(os.environ) == before;"
        "heavy = {'torch', 'pandas', 'matplotlib', 'timm', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_public_names__all_resolve() -> None:
    import ecgcmr

    for name in ecgcmr.__all__:
        assert getattr(ecgcmr, name) is not None
    with pytest.raises(AttributeError, match="public names"):
        _ = ecgcmr.no_such_name


def test_tracked_text__names_nobody_and_no_machine() -> None:
    """A seven-digit number could be a biobank subject; DOIs, hashes and decimals are allowed."""
    subject_like = re.compile(r"(?<![\w./-])[1-9]\d{6}(?![\w./])")
    for path in tracked_text():
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if "doi" in line.lower() or path.name == "constraints.txt":
                continue
            assert not subject_like.search(line), f"{path.relative_to(ROOT)}:{number} holds a seven-digit number"
            assert not re.match(r"(<{7}|>{7}) |={7}$", line), f"{path.relative_to(ROOT)}:{number} was left by a merge"
            assert "/ro" + "ot/" not in line, f"{path.relative_to(ROOT)}:{number} names a path of one machine"


def test_version__is_the_same_everywhere() -> None:
    import ecgcmr

    assert f'version = "{ecgcmr.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {ecgcmr.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"[{ecgcmr.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
