"""Salts, pseudonyms and day offsets."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgcmr.cohort.privacy import Pseudonymizer, load_or_create_salt
from ecgcmr.cohort.privacy_patterns import looks_identifying

NAMES = Pseudonymizer(b"a salt for tests, 32 bytes long.")
days = st.dates(date(1900, 1, 1), date(2100, 1, 1))
identifiers = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=1, max_size=12).filter(str.strip)


def test_salt__is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "salt"
    salt = load_or_create_salt(path)
    assert len(salt) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_salt(path) == salt
    assert [entry.name for entry in tmp_path.iterdir()] == ["salt"]
    assert load_or_create_salt(tmp_path / "other") != salt


def test_salt__two_processes_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        salts = list(pool.map(lambda _: load_or_create_salt(tmp_path / "salt"), range(8)))
    assert len(set(salts)) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_salt__that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "salt"
    load_or_create_salt(path)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="others can read this salt; run `chmod 600"):
        load_or_create_salt(path)


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "AB" * 32 + "\nmore"])
def test_salt__a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "salt"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="expected a salt of 64 hexadecimal digits"):
        load_or_create_salt(path)


def test_salt__never_lies_where_it_would_be_shared(tmp_path: Path, tiny_cohort: Path) -> None:
    for place in (tiny_cohort / "salt", tiny_cohort / "arrays" / "salt"):
        with pytest.raises(ValueError, match="the salt would lie inside"):
            load_or_create_salt(place)
        assert not place.exists()
    future = tmp_path / "cohort"
    for place in (future / "salt", tmp_path / "cohort.partial" / "salt"):
        with pytest.raises(ValueError, match="the salt would lie inside"):
            load_or_create_salt(place, cohort=future)
    link = tmp_path / "link"
    link.symlink_to(tiny_cohort)
    with pytest.raises(ValueError, match="the salt would lie inside"):
        load_or_create_salt(link / "salt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_or_create_salt(tmp_path / "absent" / "salt")


def test_pseudonym__is_an_hmac_of_the_identifier() -> None:
    digest = hmac.new(b"a salt for tests, 32 bytes long.", b"ecgcmr name\0A-17", hashlib.sha256).digest()
    number, letters = int.from_bytes(digest, "big"), ""
    for _ in range(16):
        number, digit = divmod(number, 20)
        letters += "bcdfghjkmnpqrstvwxyz"[digit]
    assert NAMES.pseudonym("A-17") == NAMES.pseudonym(" A-17\n") == letters
    assert NAMES.pseudonym(17) == NAMES.pseudonym("17") != NAMES.pseudonym("017")


@given(identifiers, identifiers)
def test_pseudonym__tells_two_apart_and_is_no_identifier_itself(first: str, second: str) -> None:
    name = NAMES.pseudonym(first)
    assert (name == NAMES.pseudonym(second)) == (first.strip() == second.strip())
    assert len(name) == 16
    assert not list(looks_identifying(name))


def test_pseudonyms__of_another_salt_are_others_and_repr_hides_it() -> None:
    other = Pseudonymizer(b"a salt for tests, 32 bytes too..")
    assert not {NAMES.pseudonym(k) for k in range(100)} & {other.pseudonym(k) for k in range(100)}
    assert len(set(NAMES.pseudonyms(range(2000)))) == 2000
    assert "salt for tests" not in repr(NAMES)
    with pytest.raises(ValueError, match="at least 16"):
        Pseudonymizer(b"short")


@pytest.mark.parametrize("wrong", ["", "  ", None, 1.5, True, b"x"])
def test_pseudonym__refuses_what_is_no_identifier(wrong: object) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        NAMES.pseudonym(wrong)  # type: ignore[arg-type]
    assert "identifier" in str(caught.value)


@given(identifiers, days, days)
def test_day_offset__keeps_intervals_exactly(subject: str, first: date, second: date) -> None:
    assert NAMES.day_offset(subject, second) - NAMES.day_offset(subject, first) == (second - first).days
    assert NAMES.day_offset(subject, first.isoformat()) == NAMES.day_offset(subject, f"{first:%Y%m%d}")
    assert NAMES.day_offset(subject, datetime(first.year, first.month, first.day, 23, 59)) == NAMES.day_offset(
        subject, f"{first.isoformat()}T00:00:00"
    )


def test_day_offset__tells_nothing_about_the_year_or_the_weekday() -> None:
    """The offsets of one day for many subjects spread over a century, evenly over the days of the week."""
    offsets = [NAMES.day_offset(subject, date(2020, 3, 1)) for subject in range(4000)]
    assert max(offsets) - min(offsets) > 36_000
    weekdays = [offset % 7 for offset in offsets]
    assert all(480 < weekdays.count(k) < 670 for k in range(7))
    assert NAMES.day_offset(1, date(2020, 3, 1) + timedelta(1)) == offsets[1] + 1


@pytest.mark.parametrize("wrong", ["", "yesterday", "2020-13-01", "01.03.2020", "2020-02-30", "202003011", "None"])
def test_day_offset__does_not_repeat_what_is_no_date(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a date") as caught:
        NAMES.day_offset("A", wrong)
    assert not wrong or wrong not in str(caught.value)
