"""Draw every figure of the docs anew, or some: python scripts/draw_all.py [NAME ...]; --list says what makes what."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
MADE_BY = {
    "overview.png": ("draw_overview.py", "--only", "overview"),
    "sheet.png": ("draw_overview.py", "--only", "sheet"),
    "explanation.svg": ("draw_examples.py",),
    "similar_hearts.png": ("draw_examples.py",),
    "added_value.svg": ("draw_examples.py",),
}
"""Figure -> script in scripts/ and its arguments. Pictures within notebooks are made by running the notebook."""


def main() -> int:
    """Run each script once; 1 when one of them failed or did not write its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(MADE_BY)}; all by default")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    parser.add_argument("--list", action="store_true", help="say what makes what, and draw nothing")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - MADE_BY.keys())
    if unknown:
        parser.error(f"no figure {unknown[0]!r}; there are {', '.join(MADE_BY)}")
    names = given.names or list(MADE_BY)
    if given.list:
        for name in names:
            print(f"{name:<20} python scripts/{' '.join(MADE_BY[name])}")
        return 0
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    }
    out = given.out.resolve()
    for script, *words in dict.fromkeys(MADE_BY[name] for name in names):
        command = [sys.executable, str(ROOT / "scripts" / script), *words, "--out", str(out)]
        print(f"scripts/{script} {' '.join(words)}".strip(), flush=True)
        if code := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            print(f"scripts/{script} ended with exit code {code}", file=sys.stderr)
            return 1
    missing = [name for name in names if not (out / name).is_file()]
    if missing:
        print(f"not written: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    raise SystemExit(main())
