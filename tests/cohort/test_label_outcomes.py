"""Prevalent and incident disease: stated cases, and every rule against a day-by-day reading of the same words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cohort.label_building.concepts import Codes, Disease, Option
from ecgcmr.cohort.label_building.dates import Counts
from ecgcmr.cohort.label_building.outcomes import FollowUpDays, death_outcome, outcome_of, within

NAN = float("nan")


def disease(include: bool = False) -> Disease:
    return Disease(
        name="mi",
        title="infarction",
        codes=Codes(icd10=("I21",)),
        options={"old": Option(icd10=("I25.2",), include=include, dated=False, why="no date of its own")},
        not_controls=Codes(icd10=("I23",)),
        controls="all others",
        source=("test",),
    )


def follow(starts, ends, linked=None, death=None, administrative=NAN) -> FollowUpDays:
    starts, ends = np.array(starts, dtype=float), np.array(ends, dtype=float)
    known = np.ones(len(starts), dtype=bool) if linked is None else np.array(linked)
    died = np.full(len(starts), np.nan) if death is None else np.array(death, dtype=float)
    return FollowUpDays(starts, ends, died, administrative, known)


def run(events, starts=(100,), ends=(1000,), include=False, linked=None):
    table = pd.DataFrame(events, columns=["subject", "code", "day"]).astype({"day": float})
    table["system"] = "icd10"
    subjects = pd.Series(["s"] * len(starts))
    counts = Counts()
    outcome = outcome_of(disease(include), table, subjects, follow(starts, ends, linked), counts)
    first = (outcome.prevalent[0], outcome.time_years[0], outcome.event[0])
    return [None if np.isnan(value) else round(float(value), 6) for value in first], counts.numbers


YEARS = round(900 / 365.25, 6)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], [0, YEARS, 0]),
        ([("s", "I219", 99)], [1, None, None]),
        ([("s", "I219", 100)], [1, None, None]),  # on the day of the recording
        ([("s", "I219", 101)], [0, round(1 / 365.25, 6), 1]),
        ([("s", "I219", 1000)], [0, YEARS, 1]),  # on the last day of follow-up
        ([("s", "I219", 1001)], [0, YEARS, 0]),  # after it: censored
        ([("s", "I219", NAN)], [None, None, None]),  # an infarction, nobody knows when
        ([("s", "I219", NAN), ("s", "I219", 50)], [1, None, None]),
        ([("s", "I219", NAN), ("s", "I219", 500)], [None, None, None]),
        ([("s", "I251", 50)], [0, YEARS, 0]),  # chronic ischaemic heart disease is no infarction
        ([("s", "I252", 50)], [None, None, None]),  # an old infarction bars from the controls
        ([("s", "I252", 500)], [None, None, None]),  # it may have been there at the recording
        ([("s", "I252", 500), ("s", "I219", 400)], [0, round(300 / 365.25, 6), 1]),
        ([("s", "I230", 50)], [None, None, None]),
        ([("s", "I230", 500)], [0, round(400 / 365.25, 6), 0]),  # followed up to the code that bars
        ([("s", "I230", 500), ("s", "I219", 500)], [0, round(400 / 365.25, 6), 1]),
        ([("s", "I230", 50), ("s", "I219", 40)], [1, None, None]),
        ([("other", "I219", 50)], [0, YEARS, 0]),
    ],
)
def test_outcome__follows_its_rules(events, expected):
    assert run(events)[0] == expected


def test_option__makes_the_old_infarction_a_prevalent_case_but_never_an_event():
    assert run([("s", "I252", 50)], include=True)[0] == [1, None, None]
    assert run([("s", "I252", 500)], include=True)[0] == [None, None, None]


def test_outcome__without_linkage_date_or_follow_up_is_missing():
    assert run([], linked=[False])[0] == [None, None, None]
    assert run([("s", "I219", 5)], starts=(NAN,))[0] == [None, None, None]
    assert run([], ends=(100,))[0] == [0, None, None]
    assert run([], ends=(NAN,))[0] == [0, None, None]


def test_outcome__every_recording_of_a_subject_has_its_own_view():
    table = pd.DataFrame({"subject": ["s"], "system": "icd10", "code": "I214", "day": [200.0]})
    outcome = outcome_of(disease(), table, pd.Series(["s", "s"]), follow([100, 300], [1000, 1000]), Counts())
    np.testing.assert_array_equal(outcome.prevalent, [0, 1])
    np.testing.assert_array_equal(outcome.event, [1, np.nan])


def oracle(events: list[tuple[str, float]], start: int, end: int) -> tuple[float, float, float]:
    """The same words read day by day, without any sorting or joining."""
    by_day = {day: {code for code, when in events if when == day} for day in range(61)}
    unknown = {code for code, day in events if np.isnan(day)}
    past = set().union(*(by_day[day] for day in range(start + 1)))
    if "I21" in past:
        return 1.0, NAN, NAN
    if "I21" in unknown or {"I252", "I23"} & (past | unknown):
        return NAN, NAN, NAN
    for day in range(start + 1, 61):
        if "I21" in by_day[day]:
            break
        if "I252" in by_day[day]:
            return NAN, NAN, NAN
    time = 0
    for day in range(start + 1, end + 1):
        time += 1
        if "I21" in by_day[day]:
            return 0.0, time / 365.25, 1.0
        if "I23" in by_day[day]:
            break
    return (0.0, time / 365.25, 0.0) if time else (0.0, NAN, NAN)


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["I21", "I252", "I23", "I251"]), st.integers(0, 60) | st.just(NAN)), max_size=6
    ),
    start=st.integers(0, 50),
    length=st.integers(0, 30),
)
def test_outcome__equals_the_words_read_day_by_day(events, start, length):
    end = min(60, start + length)
    table = pd.DataFrame(events, columns=["code", "day"]).astype({"code": object, "day": float})
    table = table.assign(subject="s", system="icd10")
    found = outcome_of(disease(), table, pd.Series(["s"]), follow([start], [end]), Counts())
    values = (found.prevalent[0], found.time_years[0], found.event[0])
    np.testing.assert_allclose(values, oracle(events, start, end))


def test_within__needs_the_whole_time_even_for_an_event():
    table = pd.DataFrame({"subject": ["a", "b"], "system": "icd10", "code": "I21", "day": [400.0, 9_500.0]})
    subjects, watched = (
        pd.Series(["a", "b", "c", "d"]),
        follow([0, 9_000, 0, 0], [10_000, 10_000, 10_000, 900], administrative=10_000),
    )
    outcome = outcome_of(disease(), table, subjects, watched, Counts())
    # a: event in time; b: event, but nobody recorded so late is watched five years; c: watched; d: lost after 900 days.
    np.testing.assert_array_equal(within(outcome, 5, watched), [1, np.nan, 0, np.nan])


def test_death__is_an_outcome_without_prevalence():
    found = death_outcome(follow([100, 100, 100], [465.25, 1000, 800], death=[465.25, np.nan, 900]))
    assert found.prevalent is None
    np.testing.assert_allclose(found.time_years, [1, 900 / 365.25, 700 / 365.25])
    np.testing.assert_array_equal(found.event, [1, 0, 0])
