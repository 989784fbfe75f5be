"""The page of the reference recipes: every test, switch and file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ecgcmr.cmr.augmentation import CmrAugmentConfig
from ecgcmr.config_errors import valid_names
from ecgcmr.ecg.augmentation import AugmentConfig
from ecgcmr.objectives.registry import OBJECTIVES
from ecgcmr.training.config import RunConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference_recipes.md"
POINTS = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)


def test_page__has_the_sixteen_points_each_with_a_test() -> None:
    assert [int(number) for number, _ in POINTS] == list(range(1, 17))
    for number, row in POINTS:
        assert "::test_" in row.split("|")[-1], f"point {number} names no test"


def test_page__every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 50
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def test_page__every_test_file_that_it_names_is_named_with_a_test() -> None:
    assert not re.findall(r"tests/[\w/]+\.py(?!::test_)", PAGE.read_text())


def test_page__every_switch_that_it_names_is_a_key_of_a_run_file() -> None:
    known = {name for objective in OBJECTIVES for name in valid_names(RunConfig, {"objective": {"name": objective}})}
    known |= {f"objective.ecg_augment.{name}" for name in AugmentConfig.__dataclass_fields__}
    known |= {f"objective.cmr_augment.{name}" for name in CmrAugmentConfig.__dataclass_fields__}
    for number, row in POINTS:
        for name in re.findall(r"`((?:data|model|objective|init|optim|train)\.[\w.]+)`", row):
            assert name in known, f"point {number} names {name!r}, which no run file has"


@pytest.mark.parametrize("number", range(1, 17))
def test_page__every_module_that_it_names_exists(number: int) -> None:
    where = POINTS[number - 1][1].split("|")[1]
    files = re.findall(r"`([\w/]+\.py)`", where)
    assert files
    assert all((ROOT / "ecgcmr" / name).is_file() for name in files)


def test_page__names_every_recipe() -> None:
    text = PAGE.read_text()
    for path in sorted((ROOT / "configs").glob("*/reference/*.yaml")):
        assert path.name in text
    for name in re.findall(r"`(configs/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
