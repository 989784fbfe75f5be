"""Privacy: salted pseudonyms and day offsets in place of identifiers and dates.

A pseudonym is HMAC-SHA256 of the identifier under a secret salt (RFC 2104). Without the salt nobody can try all
seven-digit numbers, which is why the salt never lies in a folder that is shared.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path

SALT_BYTES = 32
PSEUDONYM_LETTERS = 16  # 69 bits: among ten million subjects two share a pseudonym with a chance of 1e-7
SHIFT_DAYS = 36_525  # a century: an offset tells nothing about the year

# Consonants only: no run of digits that looks like a number of a hospital, and no words.
_ALPHABET = "bcdfghjkmnpqrstvwxyz"
_SHARED = ("cohort.json", "metrics.jsonl", "model.safetensors", "preprocess.json", "identity.json")


def load_or_create_salt(path: str | Path, cohort: str | Path | None = None) -> bytes:
    """Read the salt of a site, or draw a new one and keep it in a file that only its owner can read.

    Args:
        path: File of the salt; keep it, because pseudonyms cannot be made again without it.
        cohort: Folder that is going to be written; the salt must not lie in it.

    Returns:
        32 bytes.

    Raises:
        ValueError: The path lies inside a cohort, run or weights folder; the file is no salt; others may read it.
        FileNotFoundError: The folder of the path does not exist.
    """
    path = Path(path)
    _refuse_inside(path, cohort)
    if not path.exists():
        _create(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: others can read this salt; run `chmod 600 {path}`, or delete it and start anew")
    text = path.read_text(errors="replace").strip()
    if not re.fullmatch(rf"[0-9a-f]{{{2 * SALT_BYTES}}}", text):
        raise ValueError(f"{path}: expected a salt of {2 * SALT_BYTES} hexadecimal digits and nothing else")
    return bytes.fromhex(text)


def _refuse_inside(path: Path, cohort: str | Path | None) -> None:
    place = path.resolve()
    inside = [folder for folder in place.parents if any((folder / name).is_file() for name in _SHARED)]
    if cohort is not None:
        target = Path(cohort).resolve()
        inside += [folder for folder in place.parents if folder in (target, target.with_name(target.name + ".partial"))]
    if inside:
        raise ValueError(
            f"{path}: the salt would lie inside {inside[0]}, which is made to be shared; keep it elsewhere"
        )


def _create(path: Path) -> None:
    """Write a new salt; of two processes that try, one wins and the other reads what the winner wrote."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:  # noqa: PTH123
        stream.write(secrets.token_hex(SALT_BYTES) + "\n")
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Pseudonymizer:
    """Stable pseudonyms and day offsets under one salt.

    Example:
        >>> names = Pseudonymizer(bytes(32))
        >>> names.pseudonym("A-17") == names.pseudonym(" A-17 ")
        True
        >>> names.day_offset("A-17", "2020-03-01") - names.day_offset("A-17", "2020-02-28")
        2
    """

    def __init__(self, salt: bytes) -> None:
        if len(salt) < 16:
            raise ValueError(f"the salt has {len(salt)} bytes; at least 16 are needed, see load_or_create_salt")
        self._salt = bytes(salt)

    def __repr__(self) -> str:
        return "Pseudonymizer(salt=hidden)"

    def pseudonym(self, identifier: str | int) -> str:
        """Return 16 letters that stand for an identifier; the same salt always gives the same ones."""
        number = self._number("name", identifier)
        letters = []
        for _ in range(PSEUDONYM_LETTERS):
            number, digit = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return "".join(letters)

    def pseudonyms(self, identifiers: Iterable[str | int]) -> list[str]:
        """Return a pseudonym for each identifier.

        Raises:
            ValueError: Two different identifiers share a pseudonym.
        """
        made: dict[str, str] = {}
        out = []
        for identifier in identifiers:
            key = _key(identifier)
            name = self.pseudonym(key)
            if made.setdefault(name, key) != key:
                raise ValueError(f"two identifiers have the pseudonym {name}; use another salt")
            out.append(name)
        return out

    def day_offset(self, identifier: str | int, day: date | datetime | str) -> int:
        """Return the days from the subject's secret reference day to `day`.

        The reference is the same for all dates of one subject, so that intervals stay exact.

        Args:
            identifier: The subject.
            day: A date, or text that begins with one as `YYYY-MM-DD` or `YYYYMMDD`.

        Raises:
            ValueError: `day` is no date; the message does not repeat it.
        """
        shift = self._number("day", identifier) % SHIFT_DAYS
        return _ordinal(day) - date(1950, 1, 1).toordinal() - shift

    def _number(self, purpose: str, identifier: str | int) -> int:
        message = f"ecgcmr {purpose}\0{_key(identifier)}".encode()
        return int.from_bytes(hmac.new(self._salt, message, hashlib.sha256).digest())


def _key(identifier: str | int) -> str:
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        raise TypeError(f"an identifier is text or a whole number, got {type(identifier).__name__}")
    key = str(identifier).strip()
    if not key:
        raise ValueError("an identifier is empty")
    return key


def _ordinal(day: date | datetime | str) -> int:
    if isinstance(day, datetime):
        return day.date().toordinal()
    if isinstance(day, date):
        return day.toordinal()
    match = re.match(r"(\d{4})-?(\d\d)-?(\d\d)(?!\d)", str(day).strip())
    try:
        if match:
            return date(*map(int, match.groups())).toordinal()
    except ValueError:
        pass
    raise ValueError("not a date; expected YYYY-MM-DD (the value is not repeated here, because dates are private)")
