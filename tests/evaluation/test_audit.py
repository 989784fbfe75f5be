import numpy as np
import pytest

from ecgcmr.evaluation.audit import AUDIT_COLUMNS, AuditPlan, audit_groups
from ecgcmr.evaluation.metrics import compute
from ecgcmr.evaluation.predictions import make_predictions


def planted(gap, seed=0, sizes=(300, 80, 6)):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    group = np.repeat(["a", "b", "tiny"], sizes).astype(object)
    group[:3] = None
    truth = rng.normal(size=n)
    prediction = truth + rng.normal(0, np.where(group == "b", 0.5 + gap, 0.5), n)
    return make_predictions(np.arange(n), ["LVM"], (truth, prediction), "test", groups={"site": group})


PLAN = AuditPlan("LVM", "mae", "site", n_draws=500, n_permutations=300)


def test_audit_groups__values_suppression_and_order():
    table = planted(0.5)
    found = audit_groups(table, PLAN, np.random.default_rng(0))
    assert tuple(found.columns) == AUDIT_COLUMNS
    assert list(found["level"]) == ["a", "b", "tiny", "unknown", "gap"]
    rows = found.set_index("level")
    part = table[table["site"] == "b"]
    assert rows.loc["b", "value"] == pytest.approx(compute("mae", part["truth"], part["prediction"]))
    for small in ("tiny", "unknown"):
        assert np.isnan(rows.loc[small, "value"])
        assert np.isnan(rows.loc[small, "prevalence"])
        assert "not reported" in rows.loc[small, "flags"]
    assert rows.loc["gap", "value"] == pytest.approx(rows.loc["b", "value"] - rows.loc["a", "value"])


def test_audit_groups__finds_a_planted_gap_and_no_absent_one():
    gap = audit_groups(planted(0.5), PLAN, np.random.default_rng(0)).set_index("level").loc["gap"]
    assert gap["p"] < 0.01
    assert gap["lo"] > gap["null_gap"]
    none = [
        audit_groups(planted(0.0, seed), PLAN, np.random.default_rng(0)).set_index("level").loc["gap", "p"]
        for seed in range(6)
    ]
    assert min(none) > 0.01
    assert np.mean(none) > 0.2


def test_audit_groups__deterministic():
    one, two = (audit_groups(planted(0.2), PLAN, np.random.default_rng(3)) for _ in range(2))
    assert one.equals(two)


def test_audit_groups__errors():
    table = planted(0.1)
    with pytest.raises(ValueError, match="no group column 'sex'"):
        audit_groups(table, AuditPlan("LVM", "mae", "sex"), np.random.default_rng(0))
    with pytest.raises(ValueError, match="no test row"):
        audit_groups(table, AuditPlan("RVM", "mae", "site"), np.random.default_rng(0))
    twice = make_predictions([1, 1], ["LVM"], ([0.0, 1.0], [0.0, 1.0]), "test", groups={"site": ["a", "b"]})
    with pytest.raises(ValueError, match="two levels"):
        audit_groups(twice, PLAN, np.random.default_rng(0))
