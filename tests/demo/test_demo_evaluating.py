"""The sections about the fine-tuned model: honest words for what the scar check found, links that lead somewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.context import DemoContext
from ecgcmr.demo.evaluating import FEWEST_SCARS, check_scars, held_out_scars, outcomes, phenotypes, read_scars
from ecgcmr.demo.model_sections import evaluation_link, group_sentence, scar_sentence
from ecgcmr.demo.pictures import typical_queries
from ecgcmr.demo.presets import PRESETS
from ecgcmr.evaluation.evaluate import REPORT
from ecgcmr.evaluation.evaluated import Evaluated
from ecgcmr.evaluation.explain.planted import PlantedCheck, compare

METHOD = "occlusion, by lead (raising)"
WHO = np.arange(30)
TRUTH = np.eye(12)[WHO % 12]
"""Each subject's scar is in one of twelve leads."""


def checked(profiles: np.ndarray, method: str = METHOD) -> PlantedCheck:
    return compare((method, "mi", "share"), WHO, profiles, TRUTH, permutations=500)


def test_scar_sentence__says_yes_only_for_maps_that_follow_the_scar() -> None:
    noise = np.random.default_rng(0).random((30, 12))
    assert scar_sentence([checked(TRUTH + 0.1)]).startswith("Yes, by this check: in 30 held-out subjects")
    assert "48% [48%, 48%]" in scar_sentence([checked(TRUTH + 0.1 * (1 - TRUTH))])
    assert scar_sentence([checked(noise)]).startswith("Not shown")
    assert scar_sentence([checked(np.tile(np.eye(12)[0] + 0.1, (30, 1)))]).startswith("Not shown"), "same map for all"
    assert scar_sentence([checked(1.1 - TRUTH)]).startswith("No, they point elsewhere")


def test_scar_sentence__does_not_take_a_control_for_the_model() -> None:
    assert "Too few" in scar_sentence([])
    assert "Too few" in scar_sentence([checked(TRUTH + 0.1, "amplitude (size)")])


def test_group_sentence__names_the_gaps_that_are_not_chance() -> None:
    def told(*rows: tuple[str, str, str, float | None]) -> str:
        audit = [dict(zip(("level", "target", "attribute", "q"), row, strict=True)) | {"metric": "mae"} for row in rows]
        return group_sentence(Evaluated(Path(), {}, pd.DataFrame(), audit, {}))

    level, chance, untold = ("female", "LVM", "sex", 0.001), ("gap", "LVM", "sex", 0.4), ("gap", "mi", "site", None)
    assert told(level, chance, untold) == "Groups by sex, site were audited: none of 2 gaps has q below 0.05."
    wide = ("gap", "LVEDV", "age_band", 0.01)
    assert told(wide, chance).endswith("1 of 2 gaps have q below 0.05: MAE of LVEDV by age band.")
    assert told(*[wide] * 6).endswith("; and others.")
    assert told(level) == "No group was large enough to be compared with another."


def test_typical_queries__cut_the_ranks_evenly() -> None:
    ranks = np.array([9.0, 1, 8, 2, 7, 3, 6, 4, 5])
    assert [ranks[one] for one in typical_queries(ranks, 2)] == [4, 7]
    assert ranks[typical_queries(ranks, 1)] == [5]


@pytest.fixture
def context(tiny_cohort: Path, tmp_path: Path) -> DemoContext:
    shutil.copytree(tiny_cohort, tmp_path / "cohort", ignore=shutil.ignore_patterns("cache"))
    return DemoContext(tmp_path, PRESETS["quick"], 0, 1)


def test_links__are_the_pages_that_evaluations_write(context: DemoContext) -> None:
    for tuned in (phenotypes(context), outcomes(context)):
        assert context.out / evaluation_link(tuned).path == tuned.folder / REPORT
    assert phenotypes(context).folder != outcomes(context).folder


def test_scars__are_those_of_held_out_subjects(context: DemoContext) -> None:
    cohort = Cohort.open(context.cohort)
    who = held_out_scars(context)
    assert set(who) <= set(open_split(cohort).test)
    assert (cohort.labels.loc[who, "mi"] == 1).all()
    others = np.setdiff1d(open_split(cohort).test, who)
    assert not (cohort.labels.loc[others, "mi"] == 1).any()


def test_check_scars__with_too_few_writes_an_empty_list_and_no_number(context: DemoContext) -> None:
    assert len(held_out_scars(context)) < FEWEST_SCARS
    path = context.out / "evaluation" / "scar_check.json"
    path.parent.mkdir()
    assert check_scars(context) == path
    assert json.loads(path.read_text()) == []
    assert read_scars(context) == []


def test_read_scars__keeps_every_number_and_the_verdict(context: DemoContext) -> None:
    check = checked(TRUTH + 0.1)
    path = context.out / "evaluation" / "scar_check.json"
    path.parent.mkdir()
    path.write_text(json.dumps([check.row() | {"subjects": check.subjects.tolist()}]))
    before = path.read_bytes()
    check_scars(context)  # what is done is kept
    assert path.read_bytes() == before
    (read,) = read_scars(context)
    assert read.row() == check.row()
    np.testing.assert_array_equal(read.subjects, WHO)
