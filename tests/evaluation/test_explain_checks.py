"""The sanity checks find what is planted, and do not find what is not there."""

from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.cmr.preprocessing import named_pipeline
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.leads import LEADS
from ecgcmr.evaluation.explain import planted_leads, planted_wall, sanity_check
from ecgcmr.evaluation.explain import scar_leads as leads_module
from ecgcmr.evaluation.explain import scar_wall as wall_module
from ecgcmr.evaluation.explain.planted import compare
from ecgcmr.evaluation.explain.scar_wall import MID_SEGMENTS, wall_sectors
from ecgcmr.evaluation.explain.targets import Target
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.heart import TERRITORIES, Heart
from ecgcmr.simulation.population import draw_heart
from ecgcmr.simulation.scar_truth import contiguous, scar_by_lead, scar_change


@pytest.fixture(scope="module")
def infarcted(tmp_path_factory):
    """A cohort in which everybody had an infarction."""
    design = replace(
        Design(), prevalence_mi=0.9, prevalence_cad=0.95, prevalence_dcm=0.0, prevalence_hcm=0.0, prevalence_hhd=0.0
    )
    folder = simulate_cohort(tmp_path_factory.mktemp("mi") / "mi", 40, 11, cine="mid3", design=design)
    return Cohort.open(folder)


def test_sanity_check__cascade_ends_in_random_weights(small_model, tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    items = [cohort.recording(i) for i in range(3)]
    before = small_model["both"].embed(items)
    found = sanity_check(small_model["both"], items, "mi", "occlusion", by="window", window_ms=500)
    assert found.steps == ("none", "head", "+ blocks.1", "+ blocks.0", "+ input")
    assert np.allclose(found.sizes[0], 1)
    assert np.allclose(found.signed[0], 1)
    assert found.sizes.shape == (5, 3)
    assert np.abs(found.signed[-1]).max() < 0.9
    again = sanity_check(small_model["both"], items, "mi", "occlusion", by="window", window_ms=500)
    assert np.array_equal(found.signed, again.signed)
    assert np.array_equal(small_model["both"].embed(items), before)  # the model itself is as it was
    table = found.table()
    assert list(table["random"]) == list(found.steps)
    assert (table["sizes_lo"] <= table["sizes"]).all()


def test_sanity_check__a_map_of_the_input_alone_does_not_pass(small_model, tiny_cohort, monkeypatch):
    from ecgcmr.evaluation.explain import checks

    cohort = Cohort.open(tiny_cohort)

    def edges(model, item, target, method, **options):
        found = leads_module.explain(model, item, "mi", "occlusion", by="lead")
        return replace(found, values=np.abs(item.samples[:, :200]).astype(float))

    monkeypatch.setattr(checks, "explain", edges)
    found = sanity_check(small_model["both"], [cohort.recording(0), cohort.recording(1)], "mi")
    assert not found.passed
    assert np.allclose(found.sizes, 1)


def test_sanity_check__of_the_image_tower_and_bad_input(small_model, tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    target = Target("first", "", "cmr", lambda e: e[:, 0])
    found = sanity_check(small_model["both"], [cohort.cine(0), cohort.cine(1)], target, "occlusion", patches=4)
    assert found.steps[1].startswith("+ backbone.")
    assert found.steps[-1] == "+ input"
    with pytest.raises(ValueError, match="at least one recording"):
        sanity_check(small_model["both"], [], "mi")
    with pytest.raises(ValueError, match="localisation has no target"):
        sanity_check(small_model["both"], [cohort.recording(0)], "mi", "localisation")


def test_scar_change__is_zero_without_scar_and_largest_where_the_wall_looks():
    assert (scar_by_lead(Heart()) == 0).all()
    shares = {}
    for artery, members in TERRITORIES.items():
        scar = np.zeros(17)
        scar[list(members)] = 0.8
        change = scar_by_lead(replace(Heart(), scar=scar, old_mi=True, territory=artery))
        shares[artery] = {lead: change[LEADS.index(lead)] for lead in LEADS}
    assert shares["LAD"]["V3"] > 2 * shares["RCA"]["V3"]
    assert shares["RCA"]["III"] > shares["RCA"]["I"]
    assert shares["RCA"]["III"] / shares["RCA"]["V3"] > 2 * shares["LAD"]["III"] / shares["LAD"]["V3"]
    change = scar_change(replace(Heart(), scar=np.full(17, 0.5), old_mi=True, territory="LAD"))
    assert np.allclose(change[0] + change[2], change[1], atol=1e-9)  # Einthoven: I + III = II
    assert contiguous("RCA").sum() == 3
    with pytest.raises(ValueError, match="territory is 'XYZ'"):
        contiguous("XYZ")


@pytest.mark.parametrize("statistic", ["rank correlation", "share"])
def test_compare__tells_planted_from_random(statistic):
    rng = np.random.default_rng(0)
    truth = np.zeros((30, 12))
    truth[np.arange(30), rng.integers(0, 12, 30)] = 1.0
    about = ("m", "mi", statistic)
    good = compare(about, np.arange(30), truth + 0.5 * rng.random((30, 12)), truth, 500)
    assert good.points_to_scar
    assert good.verdict == "points to the scar"
    away = compare(about, np.arange(30), 1.5 - truth + 0.5 * rng.random((30, 12)), truth, 500)
    assert away.verdict == "points away from the scar"
    # the same place in everybody: right more often than not, and still about nobody's own scar
    always = np.tile(truth.mean(axis=0) + 0.01 * np.arange(12), (30, 1))
    fixed = compare(about, np.arange(30), always, truth, 500)
    assert fixed.p_own == 1.0
    assert not fixed.points_to_scar
    with pytest.raises(ValueError, match="needs at least 3"):
        compare(about, np.arange(2), truth[:2], truth[:2])


def test_compare__p_values_are_uniform_without_an_effect():
    rng = np.random.default_rng(3)
    p = [
        compare(("m", "t", "rank correlation"), np.arange(15), rng.random((15, 12)), rng.random((15, 12)), 200, i).p_own
        for i in range(200)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_planted_leads__finds_a_model_that_reads_the_scar(small_model, infarcted, monkeypatch):
    """The map of an oracle, which knows the scar, passes; the amplitude of the signal is only a control."""
    hearts = {s: draw_heart(Design.from_dict(infarcted.schema.origin["design"]), 11, s) for s in range(40)}
    order = iter([s for s in range(40) if hearts[s].old_mi])

    def oracle(model, item, target, method, **options):
        found = original(model, item, "mi", "occlusion", by="lead")
        change = scar_by_lead(hearts[next(order)])
        regions = tuple(replace(one, effect=float(v)) for one, v in zip(found.regions, change, strict=True))
        return replace(found, regions=regions)

    original = leads_module.explain
    monkeypatch.setattr(leads_module, "explain", oracle)
    checks = planted_leads(small_model["both"], infarcted, permutations=300)
    assert [one.statistic for one in checks] == ["rank correlation", "share"] * 2
    assert checks[0].value == pytest.approx(1.0)
    assert all(one.points_to_scar for one in checks)
    monkeypatch.undo()
    random = planted_leads(small_model["both"], infarcted, permutations=300)
    assert abs(random[0].value) < 0.5
    control = planted_leads(small_model["both"], infarcted, method="amplitude", permutations=300)
    assert [one.target for one in control] == ["none", "none"]
    assert len(control[0].subjects) == sum(heart.old_mi for heart in hearts.values())


def test_planted_wall__sectors_lie_where_the_heart_has_its_segments(small_model, infarcted, monkeypatch):
    """Wall thickness by sixth of the prepared image follows that of the latent heart, segment by segment."""
    pipeline = named_pipeline("three_frames", size=64)
    area, thickness = [], []
    for subject in range(40):
        cine = infarcted.cine(subject)
        wall = wall_sectors(cine, pipeline)
        area.append([(wall == k).sum() for k in range(6)])
        heart = draw_heart(Design.from_dict(infarcted.schema.origin["design"]), 11, subject)
        thickness.append(heart.wall_mm[list(MID_SEGMENTS)])
    area, thickness = np.array(area, float), np.array(thickness)
    area, thickness = area / area.mean(1, keepdims=True), thickness / thickness.mean(1, keepdims=True)
    own = np.corrcoef((area - area.mean(0)).ravel(), (thickness - thickness.mean(0)).ravel())[0, 1]
    assert own > 0.6
    for shift in (1, 3, 5):
        rolled = np.roll(area, shift, axis=1)
        assert np.corrcoef((rolled - rolled.mean(0)).ravel(), (thickness - thickness.mean(0)).ravel())[0, 1] < own - 0.3

    model = small_model["both"]
    target = Target("first", "", "cmr", lambda e: e[:, 0])
    checks = planted_wall(model, infarcted, target, patches=4, permutations=200)
    assert {one.statistic for one in checks} == {"rank correlation", "share"}
    assert all(one.truth.shape == one.profiles.shape for one in checks)

    def oracle(model, cine, target, method, **options):
        sectors = wall_sectors(cine, model.weights.cmr_pipeline)
        found = original(model, cine, target, "occlusion", patches=4)
        return replace(found, values=np.where(sectors >= 0, next(scars)[np.maximum(sectors, 0)], 0.0))

    hearts = [draw_heart(Design.from_dict(infarcted.schema.origin["design"]), 11, s) for s in range(40)]
    mid = [heart.scar[list(MID_SEGMENTS)] for heart in hearts if heart.old_mi]
    scars = iter([scar for scar in mid if scar.max() > 0])
    original = wall_module.explain
    monkeypatch.setattr(wall_module, "explain", oracle)
    found = planted_wall(model, infarcted, target, permutations=200)
    assert all(one.points_to_scar for one in found)


def test_planted__bad_input(small_model, tiny_cohort, monkeypatch):
    cohort = Cohort.open(tiny_cohort)
    healthy = cohort.labels.index[cohort.labels["mi"] == 0].to_numpy()
    with pytest.raises(ValueError, match="has a scar; simulate more"):
        planted_leads(small_model["both"], cohort, subjects=healthy)
    target = Target("first", "", "cmr", lambda e: e[:, 0])
    with pytest.raises(ValueError, match="have no CMR tower"):
        planted_wall(small_model["ecg_only"], cohort, target)
    monkeypatch.setattr(cohort, "schema", replace(cohort.schema, origin={"kind": "ingested"}))
    with pytest.raises(ValueError, match="not a simulated cohort"):
        planted_leads(small_model["both"], cohort)
    bare = replace(cohort.cine(0), masks=None)
    with pytest.raises(ValueError, match="no masks"):
        wall_sectors(bare, named_pipeline("three_frames"))
