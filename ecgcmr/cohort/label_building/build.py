"""Build labels: tables and a definition file in, labels and a report of what was set aside out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_building.codes import CodeSet
from ecgcmr.cohort.label_building.concepts import Disease
from ecgcmr.cohort.label_building.dates import Counts, day_of
from ecgcmr.cohort.label_building.definition_files import checked, read_yaml
from ecgcmr.cohort.label_building.definitions import OutcomeDefinitions
from ecgcmr.cohort.label_building.events import Events, read_events
from ecgcmr.cohort.label_building.outcomes import (
    FollowUpDays,
    Outcome,
    death_outcome,
    outcome_of,
    wanted_codes,
    within,
)
from ecgcmr.cohort.label_building.phenotypes import read_phenotypes
from ecgcmr.cohort.label_building.recordings import People
from ecgcmr.cohort.label_building.source_tables import SourceTables
from ecgcmr.cohort.label_building.statements import StatementDefinitions, build_statements
from ecgcmr.cohort.label_file import LabelColumns
from ecgcmr.cohort.schema import LabelSpec

MIN_IMPLAUSIBLE = 5  # so few dates before birth never stop a build
LEDGER_COLUMNS = ("subject", "label", "value", "reason")


@dataclass(frozen=True)
class BuildOptions:
    """Choices of one build that a definition file leaves open.

    Attributes:
        censor_date: Day up to which the diagnoses are complete; replaces follow_up.administrative.
        include: DISEASE:OPTION of the diseases whose optional codes are cases.
        withdrawn: File with one subject in each row; these are left out.
        strict: Whether a date that cannot be right stops the build.
    """

    censor_date: date | None = None
    include: tuple[str, ...] = ()
    withdrawn: Path | None = None
    strict: bool = False


@dataclass
class LabelBuild:
    """Built labels.

    Attributes:
        table: One row for each recording or subject: keys, what is known of the subject, labels.
        columns: What the columns are.
        counts: What was set aside -> how often.
        statements: What was found and decided, one sentence each.
        ledger: One row for each value that was set aside, with the subject; to be kept with the data, never shared.
    """

    table: pd.DataFrame
    columns: LabelColumns
    counts: dict[str, int]
    statements: list[str] = field(default_factory=list)
    ledger: pd.DataFrame = field(default_factory=pd.DataFrame)

    def summary(self) -> list[dict[str, Any]]:
        """One row for each label: kind, unit, how many are observed and missing, cases or mean."""
        rows = []
        for spec in self.columns.specs:
            values = self.table[spec.name].to_numpy(dtype=np.float64)
            seen = values[~np.isnan(values)]
            binary = spec.kind in ("binary", "event")
            mean = float(seen.mean()) if len(seen) and not binary else float("nan")
            cases = int(seen.sum()) if binary else ""
            missing = len(values) - len(seen)
            row = {"label": spec.name, "kind": spec.kind, "unit": spec.unit, "observed": len(seen), "missing": missing}
            rows.append({**row, "cases": cases, "mean": mean})
        return rows


def build_labels(definitions: Path, tables: Sequence[str], options: BuildOptions | None = None) -> LabelBuild:
    """Build the labels of a definition file from tables.

    Args:
        definitions: Definition file of kind "outcomes" or "statements".
        tables: NAME=FILE, FILE or FOLDER, each.
        options: What the file leaves open.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: Definitions, tables and options do not fit together; names the file and the field.
    """
    chosen = options or BuildOptions()
    data = read_yaml(definitions)
    if data.get("kind") == "statements":
        rules = checked(StatementDefinitions, data, definitions)
        if chosen.include or chosen.censor_date:
            raise ValueError(f"{definitions}: statements about recordings have no options and no follow-up")
        counts = Counts()
        table, columns, statements = build_statements(rules, tables, counts)
        return LabelBuild(table, columns, counts.numbers, statements)
    outcomes: OutcomeDefinitions = checked(OutcomeDefinitions, data, definitions)
    return build_outcomes(with_options(outcomes, chosen), SourceTables.parse(tables), chosen)


def write_ledger(path: Path, ledger: pd.DataFrame) -> None:
    """Write what was set aside, readable by its owner only: it names subjects as the tables do."""
    partial = path.with_name(path.name + ".partial")
    with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", newline="") as stream:  # noqa: PTH123
        ledger.to_csv(stream, index=False, lineterminator="\n")
    partial.replace(path)


def with_options(definitions: OutcomeDefinitions, options: BuildOptions) -> OutcomeDefinitions:
    """The definitions with the choices made.

    Raises:
        ValueError: An unknown disease or option; names those that there are.
    """
    diseases = list(definitions.diseases.diseases) if definitions.diseases else []
    known = {f"{disease.name}:{name}": (k, name) for k, disease in enumerate(diseases) for name in disease.options}
    for text in options.include:
        if text not in known:
            raise ValueError(f"--include {text}: no such option; there are {', '.join(known) or 'none'}")
        position, name = known[text]
        changed = {**diseases[position].options}
        changed[name] = changed[name].model_copy(update={"include": True})
        diseases[position] = diseases[position].model_copy(update={"options": changed})
    update: dict[str, Any] = {}
    if definitions.diseases:
        update["diseases"] = definitions.diseases.model_copy(update={"diseases": tuple(diseases)})
    if options.censor_date:
        update["follow_up"] = definitions.follow_up.model_copy(update={"administrative": options.censor_date})
    return definitions.model_copy(update=update)


def build_outcomes(definitions: OutcomeDefinitions, tables: SourceTables, options: BuildOptions) -> LabelBuild:
    """Build phenotypes, and diseases with follow-up; arguments, result and errors as `build_labels`."""
    counts = Counts()
    people = People(tables, definitions, counts)
    _leave_out(people, options, counts)
    keys = [name for name in ("item", "subject") if name in people.rows]
    table = people.rows[keys].copy()
    for subject_field, column in definitions.subject_fields.items():
        table[subject_field] = people.texts(column)
    if definitions.anchored_age:
        table["age_years"] = people.ages()
    for name in definitions.recordings.keep:
        table[name] = people.rows[name]
    specs: list[LabelSpec] = []
    labels: dict[str, NDArray[np.float64]] = {}
    ledger = [pd.DataFrame(columns=list(LEDGER_COLUMNS))]
    statements = [f"{len(people.rows)} recordings of {len(people.subjects)} subjects"]
    if definitions.phenotypes:
        values, aside = read_phenotypes(definitions.phenotypes, people, counts)
        labels |= values
        for item in definitions.phenotypes.fields:
            if item.name in values:
                about = (item.unit, item.description, item.field)
                specs.append(LabelSpec(item.name, "regression", *about, low=item.low, high=item.high))
        if len(aside):
            subject = people.rows["subject"].iloc[aside["row"]].to_numpy()
            ledger.append(aside.assign(subject=subject)[list(LEDGER_COLUMNS)])
    if definitions.diseases:
        found, events, follow_up, problems = _diseases(definitions, people, options, counts)
        ledger.append(problems)
        statements += [f"diagnoses from {name}" for name in events.used]
        statements += [f"no {name} in the tables: not used" for name in events.missing]
        for title, name, outcome in found:
            new = _outcome_labels(title, name, outcome, definitions, follow_up)
            specs += [spec for spec, _ in new]
            labels |= {spec.name: values for spec, values in new}
    if not specs:
        raise ValueError("the definitions ask for no label: give diseases, phenotypes or both")
    table = pd.concat([table, pd.DataFrame(labels, index=table.index)], axis=1)
    item_column = "item" if "item" in table else None
    columns = LabelColumns(tuple(specs), "subject", item_column, definitions.provenance)
    return LabelBuild(table, columns, counts.numbers, statements, pd.concat(ledger, ignore_index=True))


def _leave_out(people: People, options: BuildOptions, counts: Counts) -> None:
    if options.withdrawn is None:
        return
    if not options.withdrawn.is_file():
        raise FileNotFoundError(f"--withdrawn {options.withdrawn}: there is no such file")
    gone = {line.strip().strip('"') for line in options.withdrawn.read_text(encoding="utf-8-sig").splitlines()} - {""}
    left = ~people.rows["subject"].isin(gone)
    counts.add("recordings of withdrawn subjects, left out", int((~left).sum()))
    people.rows = people.rows[left].reset_index(drop=True)
    people.subjects = pd.Index(people.rows["subject"].unique(), name="subject")


def _diseases(
    definitions: OutcomeDefinitions, people: People, options: BuildOptions, counts: Counts
) -> tuple[list[tuple[str, str, Outcome]], Events, FollowUpDays, pd.DataFrame]:
    rules = definitions.follow_up
    if rules.administrative is None and rules.last_contact is None:
        raise ValueError(
            "incident disease needs an end of follow-up: give --censor-date YYYY-MM-DD, the day up to which the "
            "diagnoses of your release are complete (UK Biobank lists it under Data_providers_and_dates), or "
            "follow_up.administrative in the definitions"
        )
    diseases: tuple[Disease, ...] = definitions.diseases.diseases if definitions.diseases else ()
    wanted = CodeSet({})
    for disease in diseases:
        wanted = wanted | wanted_codes(disease)
    events = read_events(people.tables, definitions, wanted, people.subjects, counts)
    nothing = np.full(len(people.rows), np.nan)
    birth = _birth(people, definitions)
    death = people.subject_days(rules.death) if rules.death else nothing
    lost = people.subject_days(rules.lost) if rules.lost else nothing
    contact = people.subject_days(rules.last_contact, latest=True) if rules.last_contact else nothing
    end = np.fmin(np.fmin(death, lost), contact)
    if rules.administrative:
        end = np.fmin(end, day_of(rules.administrative))
    last_day = day_of(rules.administrative) if rules.administrative else float("nan")
    events.table, problems = _believable(events.table, people, birth, death, definitions, options, counts)
    linked = people.rows["subject"].isin(events.linked).to_numpy(dtype=bool)
    if definitions.without_diagnoses == "control":
        linked[:] = True
    counts.add("recordings of subjects without any linked diagnosis or visit: diseases unknown", int((~linked).sum()))
    start = people.rows["day"].to_numpy(dtype=np.float64)
    follow_up = FollowUpDays(start, np.where(linked, end, np.nan), death, last_day, linked)
    subjects = people.rows["subject"]
    found = [(d.title, d.name, outcome_of(d, events.table, subjects, follow_up, counts)) for d in diseases]
    if rules.death_outcome:
        found.append(("death of any cause", "death", death_outcome(replace(follow_up, end=end))))
    return found, events, follow_up, problems


def _birth(people: People, definitions: OutcomeDefinitions) -> NDArray[np.float64]:
    """First possible day of birth for each recording (n,), NaN if unknown."""
    rules = definitions.follow_up
    if rules.birth is None:
        return np.full(len(people.rows), np.nan)
    if rules.birth_month is None:
        return people.subject_days(rules.birth)
    year = pd.to_numeric(people.texts(rules.birth), errors="coerce")
    month = pd.to_numeric(people.texts(rules.birth_month), errors="coerce").fillna(1)
    first = pd.to_datetime(pd.DataFrame({"year": year, "month": month, "day": 1}), errors="coerce")
    days = (first - pd.Timestamp(1970, 1, 1)).dt.days
    return np.asarray(days.to_numpy(dtype=np.float64))


def _believable(
    events: pd.DataFrame,
    people: People,
    birth: NDArray[np.float64],
    death: NDArray[np.float64],
    definitions: OutcomeDefinitions,
    options: BuildOptions,
    counts: Counts,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Diagnoses whose days before birth and after death are set to unknown, and the list of these."""
    limits = pd.DataFrame({"subject": people.rows["subject"], "birth": birth, "death": death})
    limits = limits.drop_duplicates("subject").set_index("subject").reindex(events["subject"])
    day = events["day"].to_numpy(dtype=np.float64)
    early, late = day < limits["birth"].to_numpy(), day > limits["death"].to_numpy()
    dated, bad = int((~np.isnan(day)).sum()), early | late
    by_source = ", ".join(f"{count} in {name}" for name, count in events.loc[bad, "source"].value_counts().items())
    words = f"{int(early.sum())} diagnoses are dated before birth and {int(late.sum())} after death ({by_source})"
    if bad.any() and options.strict:
        raise ValueError(
            f"{words}; --strict refuses them: mend the tables, or build without --strict and with --ledger FILE"
        )
    if bad.sum() >= MIN_IMPLAUSIBLE and bad.sum() > definitions.dates.implausible_limit * dated:
        raise ValueError(
            f"{words}, of {dated} in all: more than {definitions.dates.implausible_limit:.0%} cannot be chance. Are "
            "day and month exchanged (dates.formats), or is it another column? To take such dates as unknown all the "
            "same, raise dates.implausible_limit in the definitions"
        )
    counts.add("diagnosis dated before birth, date taken as unknown", int(early.sum()))
    counts.add("diagnosis dated after death, date taken as unknown", int(late.sum()))
    listed = events[bad].assign(
        label=events.loc[bad, "system"] + " " + events.loc[bad, "code"],
        value=(pd.Timestamp(1970, 1, 1) + pd.to_timedelta(day[bad], unit="D")).strftime("%Y-%m-%d"),
        reason=np.where(early[bad], "dated before birth", "dated after death"),
    )
    return events.assign(day=np.where(bad, np.nan, day)), listed[list(LEDGER_COLUMNS)]


def _outcome_labels(
    title: str, name: str, outcome: Outcome, definitions: OutcomeDefinitions, follow_up: FollowUpDays
) -> list[tuple[LabelSpec, NDArray[np.float64]]]:
    at_risk = "missing if not at risk"
    pair = [
        (
            LabelSpec(f"{name}_time_years", "time", "years", f"follow-up time of incident {title}; {at_risk}"),
            outcome.time_years,
        ),
        (LabelSpec(f"{name}_event", "event", "", f"incident {title} seen during follow-up; {at_risk}"), outcome.event),
    ]
    if outcome.prevalent is not None:
        words = f"prevalent {title}: diagnosed on or before the day of the recording"
        pair.insert(0, (LabelSpec(name, "binary", "", words), outcome.prevalent))
    for years in definitions.follow_up.horizons_years:
        words = f"incident {title} within {years:g} years; missing if not watched that long or not at risk"
        label = f"{name}_within_{years:g}y".replace(".", "_")
        pair.append((LabelSpec(label, "binary", "", words), within(outcome, years, follow_up)))
    return pair
