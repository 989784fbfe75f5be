import numpy as np
import pandas as pd
import pytest

from ecgcmr.app.references import MIN_SUBJECTS, References
from ecgcmr.cohort.schema import LabelSpec

N = 400


class Planted:
    """A cohort of which sex, age, a diagnosis and a mass are known; the mass names age and sex."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.subjects = pd.DataFrame(
            {
                "subject": np.arange(N) + 7,
                "sex": np.where(np.arange(N) % 2, "male", "female"),
                "age_years": 40 + np.arange(N) % 40,
            }
        ).sample(frac=1, random_state=1)
        table = self.subjects.set_index("subject").sort_index()
        mass = 80 + 40.0 * (table["sex"] == "male") + table["age_years"] + rng.normal(size=N)
        ill = pd.Series(rng.random(N) < 0.3, index=table.index)
        self.labels = pd.DataFrame({"LVM": mass.where(~ill, 999.0), "mi": ill.astype(float)})
        self.labels.loc[table.index[:5], "mi"] = np.nan
        self.label_specs = {"LVM": LabelSpec("LVM", "regression", "g"), "mi": LabelSpec("mi", "binary")}


def test_reference__is_the_central_95_percent_of_healthy_subjects_of_that_sex_and_age():
    cohort = Planted()
    found = References(cohort).find(["LVM"], "Male", 60.0)["LVM"]
    table = cohort.subjects.set_index("subject").sort_index()
    chosen = (cohort.labels["mi"] == 0) & (table["sex"] == "male") & ((table["age_years"] - 60).abs() <= 5)
    assert found.n == chosen.sum() >= MIN_SUBJECTS
    assert (found.low, found.high) == tuple(np.percentile(cohort.labels["LVM"][chosen], [2.5, 97.5]))
    assert "male" in found.who
    assert "55 to 65" in found.who


def test_reference__subjects_with_a_diagnosis_or_an_unknown_one_never_count():
    cohort = Planted()
    references = References(cohort)
    assert references.n_healthy == (cohort.labels["mi"] == 0).sum()
    assert references.find(["LVM"], None, None)["LVM"].high < 999


def test_reference__window_grows_until_there_are_enough_and_is_left_out_without():
    cohort = Planted()
    edge = References(cohort).find(["LVM"], "female", 40.0)["LVM"]
    assert edge.n >= MIN_SUBJECTS
    cohort.labels.loc[:, "LVM"] = np.where(np.arange(N) < MIN_SUBJECTS - 1, 100.0, np.nan)
    assert References(cohort).find(["LVM", "RVEDV"], None, 50.0) == {}


@pytest.mark.parametrize(("sex", "age", "words"), [("male", -3.0, "0 to 130"), ("m", 50.0, "female, male")])
def test_reference__what_is_no_age_or_sex_is_refused(sex, age, words):
    with pytest.raises(ValueError, match=words):
        References(Planted()).find(["LVM"], sex, age)
