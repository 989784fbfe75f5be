"""Lets the tests of the evaluation page use the planted cohort of the evaluation's tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))


@pytest.fixture(scope="session")
def evaluations(tmp_path_factory):
    """Folders of evaluations: labels of all sorts, an outcome, and a cohort that knows nothing of its subjects."""
    from planted_cohort import binary, regression, write_planted, write_weights

    from ecgcmr.evaluation import evaluate_weights

    folder = tmp_path_factory.mktemp("evaluations")
    few = {"n_draws": 100, "n_permutations": 20}
    cohort = write_planted(folder / "cohort", 300)
    bare = write_planted(folder / "bare_cohort", 150, known=False)
    labels = [
        regression("mass"),
        binary("old_mi"),
        regression("absent", "ml"),
        binary("one_class"),
        regression("few", "ml"),
    ]
    write_weights(folder / "w<b>", cohort, labels)
    write_weights(folder / "hf", cohort, [regression("hf", "log hazard"), regression("late", "log hazard")])
    write_weights(folder / "bare", bare, [regression("mass"), binary("old_mi")])
    for weights, data in (("w<b>", cohort), ("hf", cohort), ("bare", bare)):
        evaluate_weights(folder / weights, data, "default", folder / f"out_{weights.replace('<b>', '')}", **few)
    return folder
