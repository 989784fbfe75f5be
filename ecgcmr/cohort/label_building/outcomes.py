"""Prevalent and incident disease relative to the day of the recording, and follow-up for survival.

The rules, for one recording on day r of a subject; every case code has a day or an unknown one.

- Prevalent is 1 if a case code is dated on or before r: a diagnosis on the day of the recording is prevalent.
- It is NaN if that cannot be known: no day of recording; no linkage to diagnoses where that is not taken as health; a
  case code of unknown day; a code that tells of the disease but not since when ("old infarction") after r with no dated
  code before it; or, without a case code, a code that bars from the controls on or before r.
- Else it is 0.
- Incident disease is only defined where prevalent is 0 and follow-up is longer than nothing. The event is the first
  case code after r and not after the end of follow-up; the time runs from r to it, else to the end. The end is the
  earliest of the administrative date, death, loss, last contact, and a first code that bars from the controls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_building.codes import CodeSet
from ecgcmr.cohort.label_building.concepts import Disease
from ecgcmr.cohort.label_building.dates import DAYS_PER_YEAR, Counts

Days = NDArray[np.float64]


@dataclass(frozen=True)
class FollowUpDays:
    """From when to when each recording (n,) is followed [days since 1970-01-01].

    Attributes:
        start: Day of the recording, NaN if unknown.
        end: Last day on which a diagnosis would have been seen; NaN for subjects that are not followed.
        death: Day of death, NaN for the living.
        administrative: Day up to which diagnoses are complete for everybody, NaN where there is no such day.
        linked: Whether the subject's diagnoses are known at all.
    """

    start: Days
    end: Days
    death: Days
    administrative: float
    linked: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """Labels of one disease (n,); NaN is unknown or not at risk, `prevalent` is None where nobody can be."""

    prevalent: Days | None
    time_years: Days
    event: Days


@dataclass(frozen=True)
class _Roles:
    cases: CodeSet
    undated: CodeSet
    barred: CodeSet
    barred_undated: CodeSet


def roles(disease: Disease) -> _Roles:
    """What each code of a definition means, after its options were chosen."""
    sets = {name: CodeSet({}) for name in ("cases", "undated", "barred", "barred_undated")}
    sets["cases"] = disease.codes.code_set()
    sets["barred"] = disease.not_controls.code_set()
    for option in disease.options.values():
        name = {(1, 1): "cases", (1, 0): "undated", (0, 1): "barred", (0, 0): "barred_undated"}[
            int(option.include), int(option.dated)
        ]
        sets[name] = sets[name] | option.code_set()
    return _Roles(**sets)


def wanted_codes(disease: Disease) -> CodeSet:
    """Every code that a definition mentions."""
    found = roles(disease)
    return found.cases | found.undated | found.barred | found.barred_undated


def outcome_of(
    disease: Disease, events: pd.DataFrame, subjects: pd.Series, follow_up: FollowUpDays, counts: Counts
) -> Outcome:
    """Labels of a disease for each recording.

    Args:
        disease: The definition.
        events: Diagnoses (subject, system, code, day), days already freed of what cannot be believed.
        subjects: Subject of each recording (n,).
        follow_up: Follow-up of each recording.
        counts: What is set aside is counted here.
    """
    meaning = roles(disease)
    case, undated = _of(meaning.cases, events), _of(meaning.undated, events)
    # A code that is a case is no bar, whatever not_controls says: E11 bars from type 1 only if it is not a case itself.
    barred = _of(meaning.barred, events, unless=(case, undated))
    barred_undated = _of(meaning.barred_undated, events, unless=(case, undated))
    start, count = follow_up.start, len(subjects)

    def days(chosen: NDArray[np.bool_]) -> _Days:
        return _Days(events[chosen], subjects, start)

    cases, olds, bars, old_bars = days(case), days(undated), days(barred), days(barred_undated)
    prior = cases.before | olds.before
    vague = cases.unknown | olds.unknown | _without_case_before(olds, cases)
    not_control = (
        bars.before | bars.unknown | old_bars.before | old_bars.unknown | _without_case_before(old_bars, cases)
    )
    unknown = np.isnan(start) | ~follow_up.linked
    prevalent = np.where(prior, 1.0, np.where(vague | not_control | unknown, np.nan, 0.0))
    prevalent[np.isnan(start)] = np.nan
    title = disease.name
    counts.add(f"{title}: date of the diagnosis unknown, neither case nor control", int((vague & ~prior).sum()))
    counts.add(f"{title}: barred from the controls by another code", int((not_control & ~prior & ~vague).sum()))

    end = np.fmin(follow_up.end, bars.after)
    seen = cases.after <= end  # on one day with a code that bars, the case counts
    late = (prevalent == 0) & ~np.isnan(cases.after) & (cases.after > follow_up.end)
    counts.add(f"{title}: diagnosis after the end of follow-up, censored before it", int(late.sum()))
    stop = np.where(seen, cases.after, end)
    at_risk = (prevalent == 0) & (stop > start)
    counts.add(
        f"{title}: no follow-up after the recording, no incident label", int(((prevalent == 0) & ~at_risk).sum())
    )
    time, event = np.full(count, np.nan), np.full(count, np.nan)
    time[at_risk] = (stop - start)[at_risk] / DAYS_PER_YEAR
    event[at_risk] = seen[at_risk]
    return Outcome(prevalent, time, event)


def death_outcome(follow_up: FollowUpDays) -> Outcome:
    """Death of any cause as an outcome; nobody is prevalent."""
    start, death = follow_up.start, follow_up.death
    seen = death <= follow_up.end
    stop = np.where(seen, death, follow_up.end)
    at_risk = stop > start
    time = np.where(at_risk, (stop - start) / DAYS_PER_YEAR, np.nan)
    return Outcome(None, time, np.where(at_risk, seen.astype(float), np.nan))


def within(outcome: Outcome, years: float, follow_up: FollowUpDays) -> Days:
    """1 if the event came within so many years, 0 if that long was watched without it, NaN if censored before.

    Recordings so late that nobody could be watched that long are NaN with and without event: keeping their events alone
    would make the outcome look more frequent than it is.
    """
    yes = (outcome.event == 1) & (outcome.time_years <= years)
    no = outcome.time_years >= years
    late = follow_up.administrative - follow_up.start < years * DAYS_PER_YEAR
    return np.where(late, np.nan, np.where(yes, 1.0, np.where(no, 0.0, np.nan)))


def _of(codes: CodeSet, events: pd.DataFrame, unless: tuple[NDArray[np.bool_], ...] = ()) -> NDArray[np.bool_]:
    hit = np.zeros(len(events), dtype=bool)
    for system in codes.prefixes:
        here = (events["system"] == system).to_numpy()
        hit[here] = codes.matches(system, events["code"][here])
    for other in unless:
        hit &= ~other
    return hit


class _Days:
    """When codes of one role stand, relative to each recording.

    Attributes:
        before: A code on or before the day of the recording (n,).
        unknown: A code of unknown day (n,).
        after: First day after the recording with a code (n,), NaN without.
    """

    def __init__(self, events: pd.DataFrame, subjects: pd.Series, start: Days) -> None:
        known = events[events["day"].notna()]
        first = known.groupby("subject")["day"].min().reindex(subjects).to_numpy(dtype=np.float64)
        self.before = first <= start
        self.unknown = subjects.isin(events.loc[events["day"].isna(), "subject"]).to_numpy(dtype=bool)
        rows = pd.DataFrame({"subject": subjects.to_numpy(), "row": np.arange(len(subjects)), "start": start})
        pairs = rows.merge(known[["subject", "day"]], on="subject")
        later = pairs[pairs["day"] > pairs["start"]].groupby("row")["day"].min()
        self.after = later.reindex(np.arange(len(subjects))).to_numpy(dtype=np.float64)


def _without_case_before(undated: _Days, cases: _Days) -> NDArray[np.bool_]:
    """An undated code after the recording that no dated case code explains: the disease may have been there already."""
    unexplained: NDArray[np.bool_] = ~np.isnan(undated.after) & ~(cases.after <= undated.after)
    return unexplained
