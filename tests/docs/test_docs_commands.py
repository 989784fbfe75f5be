"""Every command and every Python block of README and docs runs, page by page, from the top to the bottom.

Sizes are cut down by the rules in `SMALLER`; the words of a command are otherwise untouched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALLER = [
    (r"--subjects \d{3,}", "--subjects 40"),
    (r"--preset (standard|full)", "--preset quick"),
    (r"max_steps=\d+", "max_steps=2"),
    (r"(scripts/(?:pretrain|finetune)\.py .*)$", r"\1 train.max_steps=2"),
    (r"(ecgcmr finetune .*)$", r"\1 train.max_steps=2 --draws 50"),
    (r"(scripts/real_ecg_study\.py .*)$", r"\1 --steps 2"),
    (r"--draws \d+", "--draws 50"),
]
# Not run here, and why: they make an environment of their own; CI runs them on a fresh machine.
ELSEWHERE = re.compile(r"^(git clone|cd ecgcmr$|make |pip install|python3? -m venv|python3? -m pip)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and code; Python blocks with no command between them are one program, as they are to a reader."""
    found = FENCE.findall(page.read_text())
    joined = groupby(found, key=lambda block: (block[0], None if block[0] == "python" else object()))
    return [(kind, "\n".join(code for _, code in group)) for (kind, _), group in joined]


def shell(block: str) -> str:
    lines = block.replace("\\\n", " ").splitlines()
    kept = [line for line in lines if line.strip() and not ELSEWHERE.match(line.strip())]
    for pattern, replacement in SMALLER:
        kept = [re.sub(pattern, replacement, line) for line in kept]
    return "\n".join(kept)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_page__every_command_runs(page: Path, tmp_path: Path) -> None:
    for name in ("configs", "scripts", "weights", "docs", "benchmarks", "ecgcmr"):
        (tmp_path / name).symlink_to(ROOT / name)
    shared = Path(os.environ.get("ECGCMR_SHARED_DATA", ROOT.parent / "shared" / "data"))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ECGCMR_SHARED_DATA": str(shared),
        "PYTHONPATH": str(ROOT),
    }
    left_out = 0
    for kind, block in blocks(page):
        if "ECGCMR_SHARED_DATA" in block and not shared.is_dir():
            left_out += 1
            continue
        program = ["bash", "-euo", "pipefail", "-c", shell(block)] if kind == "bash" else [sys.executable, "-c", block]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (
            f"{page.name}:\n{block}\n--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}"
        )
    if left_out:
        pytest.skip(f"{left_out} block(s) of {page.name} need real files, which are not here: set ECGCMR_SHARED_DATA")


def test_pages__relative_links_resolve() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
