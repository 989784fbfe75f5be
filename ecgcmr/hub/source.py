"""From what a user writes to a weights folder: a released name, a folder, or an address on a model hub.

Nothing here imports torch, and nothing but an address `hf-hub:` imports the client of the hub: names and folders load
on machines without a network.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from ecgcmr.hub.download import hub_folder

FILES = ("README.md", "config.json", "expected.json", "model.safetensors", "preprocess.json")
INDEX = "index.json"
KNOWN = "a released name, local-dir:PATH, hf-hub:ORG/NAME, or a path"

_PREFIX = re.compile(r"([a-z][a-z0-9+.-]+):(?!\\)")  # two letters at least: C:\weights is a path


def resolve_source(source: str | Path) -> Path:
    """Find the folder that a source means.

    Args:
        source: One of: a released name, looked for in `released_folders()` and then in `cache_folder()`;
            `local-dir:PATH`; `hf-hub:ORG/NAME` or `hf-hub:ORG/NAME@REVISION`; a path. A `Path` is never a name.

    Returns:
        The folder; whether it is whole is for `load_weights` to say. A path may lead nowhere, a name may not.

    Raises:
        ValueError: For an unknown prefix, or a name that is also another folder here.
        FileNotFoundError: If no released weights have this name (near names are given), or a hub cannot be reached and
            its cache has no copy.
    """
    if isinstance(source, Path):
        return source.expanduser()
    text = source.strip()
    if not text:
        raise ValueError(f"the source of weights is empty, expected {KNOWN}")
    prefix, _, rest = text.partition(":")
    if prefix == "local-dir":
        return Path(rest).expanduser()
    if prefix == "hf-hub":
        return hub_folder(rest, FILES)
    path = Path(text).expanduser()
    if _PREFIX.match(text) and not path.exists():
        raise ValueError(f"{text!r}: the prefix {prefix!r} is not known, expected {KNOWN}")
    return path if _looks_like_path(text) else _named(text, path)


def named_folders() -> dict[str, Path]:
    """Give all weights that have a name on this machine; of two with one name the released one counts."""
    found: dict[str, Path] = {}
    for place in (*released_folders(), cache_folder()):
        if place.is_dir():
            for folder in sorted(place.iterdir()):
                if (folder / "config.json").is_file() and not folder.name.startswith("."):
                    found.setdefault(folder.name, folder)
    return found


def released_folders() -> list[Path]:
    """Give the places of released weights: inside the installed package, or beside it in a checkout.

    A folder `weights` beside the package counts only with an index: in site-packages it may be somebody else's.
    """
    package = Path(str(files("ecgcmr")))
    return [place for place in (package / "weights", package.parent / "weights") if (place / INDEX).is_file()]


def cache_folder() -> Path:
    """Give the place where a user keeps more weights by name: $ECGCMR_CACHE/weights, by default in ~/.cache/ecgcmr."""
    set_by_user = os.environ.get("ECGCMR_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecgcmr"
    return (Path(set_by_user).expanduser() if set_by_user else base) / "weights"


def _named(name: str, path: Path) -> Path:
    known = named_folders()
    if name in known:
        if path.is_dir() and path.resolve() != known[name].resolve():
            raise ValueError(
                f"{name!r} is both a name ({known[name]}) and a folder here ({path.resolve()}); "
                f"say local-dir:{name} for the folder, or call from another place for the name"
            )
        return known[name]
    if path.exists():
        return path
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known names: {', '.join(known) or 'none'}"
    raise FileNotFoundError(
        f"{name!r}: no weights folder there, and no weights of this name in "
        f"{', '.join(map(str, (*released_folders(), cache_folder())))}; {hint} (ecgcmr weights list shows all)"
    )


def _looks_like_path(text: str) -> bool:
    separators = {"/", os.sep, os.altsep or "/"}
    return text.startswith((".", "~")) or any(separator in text for separator in separators)
