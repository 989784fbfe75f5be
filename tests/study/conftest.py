"""The small study, and a path on which spawned workers find what they do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def study_tree(tiny_cohort: Path) -> dict[str, Any]:
    from study_cases import small_study

    return small_study(tiny_cohort)
