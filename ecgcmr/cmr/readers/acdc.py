"""The ACDC layout: NAME_4d.nii.gz, NAME_frameNN.nii.gz with NAME_frameNN_gt.nii.gz, Info.cfg.

Automated Cardiac Diagnosis Challenge (doi:10.1109/TMI.2018.2837502). Frames are numbered from 1 in file names and in
Info.cfg. Masks are of ED and ES only: 1 right ventricular cavity, 2 left ventricular myocardium, 3 left ventricular
cavity. Headers have lost the orientation in the body and the frame times.
"""

from __future__ import annotations

import re
from pathlib import Path

from ecgcmr.cmr.readers.study import (
    Study,
    Volume,
    find,
    make_cine,
    masked,
    pair_of_frames,
    phases_by_volume,
    read_mask,
    read_volume,
    same_frame,
)

FRAME = re.compile(r"^(.+)_frame(\d{1,3})(_gt)?\.nii(\.gz)?$", re.IGNORECASE)


def read_acdc(folder: Path, max_bytes: int) -> Study:
    """Read one subject's folder.

    Raises:
        ValueError: For a file that does not fit: frames beyond the cine, a frame that is another one than its number
            says, mask values other than 0 to 3, Info.cfg that contradicts the files.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    frames = {int(match[2]): folder / match[0] for name in names if (match := FRAME.match(name)) and not match[3]}
    drawn = {int(match[2]): folder / match[0] for name in names if (match := FRAME.match(name)) and match[3]}
    stems = {re.sub(r"_(4d|frame\d+(_gt)?)\.nii(\.gz)?$", "", name) for name in names if ".nii" in name.lower()}
    if len(stems) != 1:
        raise ValueError(f"{folder}: an ACDC folder holds the files of one subject, found those of {len(stems)}")
    facts = read_info(folder / "Info.cfg")
    whole = find(folder, f"{next(iter(stems))}_4d")
    notes: list[str] = [] if facts else ["no Info.cfg: end-diastole and end-systole are told by the masks"]
    if whole is not None:
        image = read_volume(whole, max_bytes)
        number = {frame: frame - 1 for frame in drawn}
        for frame, path in frames.items():
            _inside(frame, image, path)
            _, note = same_frame(read_volume(path, max_bytes).pixels[:, 0], image, frame - 1, path.name)
            notes += [note] if note else []
        promised = facts.get("NbFrame", "")
        if promised.isdigit() and int(promised) != image.pixels.shape[1]:
            raise ValueError(
                f"{folder / 'Info.cfg'}: NbFrame is {promised}, but {whole.name} has {image.pixels.shape[1]} frames"
            )
    elif frames:
        ordered = sorted(frames)
        image = pair_of_frames({f"frame {frame}": read_volume(frames[frame], max_bytes) for frame in ordered})
        number = {frame: ordered.index(frame) for frame in drawn if frame in frames}
    else:
        raise ValueError(f"{folder}: neither a _4d.nii.gz nor a _frameNN.nii.gz in it")
    parts = {}
    for frame, path in drawn.items():
        if frame not in number:
            raise ValueError(f"{path}: a mask of frame {frame}, whose image is not in the folder")
        _inside(number[frame] + 1, image, path)
        parts[number[frame]], note_tuple = read_mask(path, image, "acdc", max_bytes)
        notes += note_tuple
    masks = masked(image.pixels.shape, parts) if parts else None
    labeled = tuple(sorted(parts))
    phases = _phases(folder, facts, image, {frame: frame - 1 for frame in range(1, 1000)} if whole else number)
    if not phases and masks is not None:
        phases = phases_by_volume(masks, labeled)
    cine = make_cine(image, masks, labeled if parts else None, "sax", tuple(notes))
    return Study("acdc", (cine,), (phases,), facts)


def _inside(frame: int, image: Volume, path: Path) -> None:
    if not 1 <= frame <= image.pixels.shape[1]:
        raise ValueError(f"{path}: frame {frame}, but {image.path.name} has frames 1 to {image.pixels.shape[1]}")


def _phases(folder: Path, facts: dict[str, str], image: Volume, number: dict[int, int]) -> dict[str, int]:
    found = {}
    for name in ("ED", "ES"):
        text = facts.get(name, "")
        if not text:
            continue
        if not text.isdigit() or (int(text) in number and number[int(text)] >= image.pixels.shape[1]) or int(text) < 1:
            raise ValueError(
                f"{folder / 'Info.cfg'}: {name} is {text!r}, but the frames are 1 to {image.pixels.shape[1]}"
            )
        if int(text) in number:
            found[name.lower()] = number[int(text)]
    return found if len(found) == 2 else {}


def read_info(path: Path) -> dict[str, str]:
    """Keys and values of Info.cfg; empty when there is none.

    Raises:
        ValueError: For a line that is not `key: value`.
    """
    if not path.is_file():
        return {}
    facts = {}
    for number, line in enumerate(path.read_text(errors="replace")[:65536].splitlines(), start=1):
        if not line.strip():
            continue
        key, separator, value = line.partition(":")
        if not separator:
            raise ValueError(f"{path}: line {number} is not 'key: value'")
        facts[key.strip()] = value.strip()
    return facts
