"""Study files: what is wrong in one is told by its key, before anything is simulated or trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_cases import write_study

from ecgcmr.study.config import load_study, merged_values
from ecgcmr.study.plan import make_plan

STUDIES = sorted((Path(__file__).parents[2] / "configs/study").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_repository__name_valid_runs(path: Path, tmp_path: Path) -> None:
    assert f"--config configs/study/{path.name} " in path.read_text(), "begins with the command"
    study = load_study(path)
    plan = make_plan(study, path, tmp_path)
    assert len(plan.jobs) == len(study.seeds) * (
        len(study.stages) + len(study.arms) + sum(arm.recipe is not None for arm in study.arms.values())
    )
    assert len({job.key for job in plan.jobs}) == len(plan.jobs)
    assert not any(tmp_path.iterdir())


def test_alignment_study__compares_every_way_to_align() -> None:
    from ecgcmr.objectives.registry import OBJECTIVES

    path = next(path for path in STUDIES if path.stem == "alignment")
    plan = make_plan(load_study(path), path, Path("out"))
    trained = {job.config.objective.name for job in plan.jobs if job.config is not None}
    assert {name for name in OBJECTIVES if name.endswith("_align")} <= trained


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"arm": {}}, ("unknown key 'arm'", "'arms'")),
        ({"arms.clip.receipe": "x"}, ("unknown key 'arms.clip.receipe'", "'arms.clip.recipe'")),
        ({"seeds": [0, 1]}, ("at least 3 different ones",)),
        ({"seeds": [0, 1, 1]}, ("at least 3 different ones",)),
        ({"compare_to": "cilp"}, ("compare_to is 'cilp'", "mae, clip, barlow")),
        ({"arms.mae.stage": "cmr"}, ("arms.mae.stage is 'cmr'", "it has: ecg_mae")),
        ({"arms.clip.start.ecg": "mea"}, ("arms.clip.start.ecg is 'mea'",)),
        ({"arms.mae.recipe": "x.yaml"}, ("either a recipe", "or a stage")),
        ({"stages.ecg_mae.start": {"ecg": "ecg_mae"}}, ("in a circle",)),
        ({"cohort": {}}, ("either path or simulate",)),
        ({"evaluate.counts": [1]}, ("evaluate.counts", "greater than 1")),
        ({"evaluate.labels": []}, ("evaluate.labels",)),
    ],
)
def test_load_study__says_which_key_is_wrong(
    change: dict[str, Any], parts: tuple[str, ...], study_tree: dict[str, Any], tmp_path: Path
) -> None:
    for key, value in change.items():
        *path, last = key.split(".")
        node = study_tree
        for part in path:
            node = node[part]
        node[last] = value
    file = write_study(study_tree, tmp_path / "study.yaml")
    with pytest.raises(ValueError, match=r"study\.yaml") as raised:
        load_study(file)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


def test_make_plan__a_wrong_value_of_a_run_file_names_study_arm_and_key(
    study_tree: dict[str, Any], tmp_path: Path
) -> None:
    study_tree["arms"]["barlow"]["values"] = {"objective": {"off_diagnal": 1.0}}
    file = write_study(study_tree, tmp_path / "study.yaml")
    with pytest.raises(ValueError, match=r"study\.yaml, barlow .*unknown key 'objective.off_diagnal'.*off_diagonal"):
        make_plan(load_study(file), file, tmp_path / "out")
    study_tree["arms"]["barlow"]["recipe"] = "nowhere.yaml"
    file = write_study(study_tree, tmp_path / "study.yaml")
    with pytest.raises(FileNotFoundError, match=r"barlow: there is no run file .*nowhere\.yaml"):
        make_plan(load_study(file), file, tmp_path / "out")


def test_load_study__files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"configs/study/alignment\.yaml"):
        load_study(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"list\.yaml: expected keys and values"):
        load_study(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match=r"broken\.yaml: cannot be read"):
        load_study(tmp_path / "broken.yaml")
    with pytest.raises(ValueError, match="'seeds' is not KEY=VALUE"):
        load_study(STUDIES[0], ["seeds"])


def test_make_plan__folders_follow_what_their_content_depends_on(study_tree: dict[str, Any], tmp_path: Path) -> None:
    def keys(out: str = "out", **change: Any) -> dict[tuple[str, int, str], str]:
        tree = merged_values(study_tree, change)
        file = write_study(tree, tmp_path / "study.yaml")
        plan = make_plan(load_study(file), file, tmp_path / out)
        return {(job.kind, job.seed, job.arm): job.folder.name for job in plan.jobs}

    before = keys()
    assert keys(out="elsewhere") == before
    assert keys(title="Other words", compare_to="mae") == before
    other = keys(arms={"barlow": {"values": {"objective": {"off_diagonal": 0.1}}}})
    assert {key for key in before if before[key] != other[key]} == {key for key in before if key[2] == "barlow"}
    other = keys(stages={"ecg_mae": {"values": {"train": {"max_steps": 3}}}})
    changed = {key[2] for key in before if before[key] != other[key]}
    assert changed == {"ecg_mae", "mae", "clip"}, "what starts from a stage changes with it"
    other = keys(evaluate={"windows": 1})
    assert {key[0] for key in before if before[key] != other[key]} == {"evaluate"}
    more = keys(arms={"vicreg": {"title": "V", "recipe": study_tree["arms"]["barlow"]["recipe"]}})
    assert {key: more[key] for key in before} == before
    assert keys(evaluate={"gallery": 5, "bootstrap_draws": 99}) == before, "scoring is done anew in any case"


def test_merged_values__sections_merge_and_lists_are_replaced() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merged_values(tree, {"a": {"c": [3], "e": {}}}, {"d": {"f": 2}}) == {
        "a": {"b": 1, "c": [3], "e": {}}, "d": {"f": 2},
    }  # fmt: skip
    assert tree == {"a": {"b": 1, "c": [1, 2]}, "d": 1}
