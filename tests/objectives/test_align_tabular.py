"""Three towers: each pair is the CLIP loss over those who have both sides; corruption keeps what is unknown."""

from __future__ import annotations

import pytest
import torch
from objective_cases import MARGINALS, build, generator, make_batch, model_config
from torch.testing import assert_close

from ecgcmr.models.distributed import part_of_draw
from ecgcmr.objectives.align_tabular import PAIRS, TOWERS, corrupt
from ecgcmr.objectives.contrast import unit_rows

MODEL = model_config(image_norm="groupnorm1")
TABLE = torch.tensor(MARGINALS, dtype=torch.float64)
COLUMN = torch.tensor([0, 1, 1, 2])


def by_hand(a: torch.Tensor, b: torch.Tensor, valid: torch.Tensor, subject: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy over the subset that has both sides, without others of the same subject."""
    rows = valid.nonzero()[:, 0]
    logits = 10 * a[rows] @ b[rows].T
    same = (subject[rows][:, None] == subject[rows][None]) & ~torch.eye(len(rows), dtype=torch.bool)
    loss = torch.zeros(len(a), dtype=a.dtype)
    for one in (logits.masked_fill(same, -torch.inf), logits.T.masked_fill(same, -torch.inf)):
        loss[rows] += 0.5 * (one.logsumexp(1) - one.diagonal())
    return loss


def test_losses__are_the_clip_losses_of_the_pairs_that_are_there() -> None:
    objective = build({"name": "tabular_align"}, MODEL).double().eval()
    batch = make_batch(8, torch.float64)
    rows = objective(batch, generator(0), rows_only=True)
    out = objective.compare(rows, batch)
    has = {"cmr": batch["has_cmr"], "ecg": batch["has_ecg"], "tabular": batch["tabular_mask"].any(1)}
    assert not has["tabular"][3], "nothing is known of one subject"
    assert has["tabular"][4], "of another only a part"
    for first, second in PAIRS:
        name, valid = f"{first}_{second}", has[first] & has[second]
        assert torch.equal(out.valid[name], valid)
        expected = by_hand(rows[TOWERS[first]], rows[TOWERS[second]], valid, batch["subject"])
        assert_close(out.losses[name], expected)


def test_cmr_ecg__is_the_loss_of_two_towers() -> None:
    three = build({"name": "tabular_align"}, MODEL).double().eval()
    two = build({"name": "clip_align"}, MODEL).double().eval()
    two.load_state_dict({key: value for key, value in three.state_dict().items() if key in two.state_dict()})
    batch = make_batch(8, torch.float64)
    assert_close(three(batch).losses["cmr_ecg"], two(batch).losses["clip"])


def test_tabular_tower__tells_missing_from_the_mean() -> None:
    objective = build({"name": "tabular_align"}, MODEL).eval()
    batch = make_batch(8)
    batch["tabular"][:] = 0
    batch["tabular_mask"][:] = True
    mean = objective.represent(batch)["tabular"]
    batch["tabular_mask"][:, 0] = False
    missing = objective.represent(batch)["tabular"]
    assert not torch.allclose(mean, missing)
    batch["tabular"][:, 0] = torch.nan  # what is missing may hold anything
    assert torch.equal(objective.represent(batch)["tabular"], missing)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"cmr_tabular": 0, "ecg_tabular": 0}, "pairs with tabular are 0"),
        ({"cmr_ecg": 0, "cmr_tabular": 0}, "pairs with cmr are 0"),
    ],
)
def test_config__each_tower_meets_another(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build({"name": "tabular_align", **weights})
    assert set(build({"name": "tabular_align", "ecg_tabular": 0}).loss_weights) == {"cmr_ecg", "cmr_tabular"}


def many(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that no marginal has, and masks."""
    values = torch.full((rows, 4), 7.0, dtype=torch.float64)
    known = torch.ones(rows, 4, dtype=torch.bool)
    known[: rows // 4, 1:3] = False
    return values, known


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.9])
def test_corrupt__replaces_whole_columns_by_their_marginal(chance: float) -> None:
    values, known = many(20_000)
    found = corrupt(values, known, (TABLE, COLUMN), chance, generator(1))
    replaced = found != values
    assert not replaced[~known].any()
    assert torch.equal(replaced[:, 1], replaced[:, 2]), "all levels of a text together"
    for feature in (0, 1, 3):
        share = replaced[known[:, feature], feature].double().mean().item()
        assert share == pytest.approx(chance, abs=0.015)
        if chance:
            drawn = found[replaced[:, feature], feature]
            assert drawn.mean().item() == pytest.approx(TABLE[:, feature].mean().item(), abs=0.03)
            assert set(drawn.tolist()) == set(TABLE[:, feature].tolist())
    if chance:
        assert (found[replaced[:, 1], 1:3].sum(1) == 1).all()
        both = replaced[5000:, 0] & replaced[5000:, 3]
        assert both.double().mean().item() == pytest.approx(chance**2, abs=0.015), "columns are drawn apart"


def test_corrupt__in_pieces_draws_what_the_whole_draws() -> None:
    values, known = many(32)
    whole = corrupt(values, known, (TABLE, COLUMN), 0.5, generator(2))
    pieces = []
    for part in range(4):
        with part_of_draw(part, 4):
            rows = slice(8 * part, 8 * part + 8)
            pieces.append(corrupt(values[rows], known[rows], (TABLE, COLUMN), 0.5, generator(2)))
    assert torch.equal(torch.cat(pieces), whole)


def test_corruption__is_for_training_only() -> None:
    objective = build({"name": "tabular_align", "corruption": 0.9}, MODEL)
    batch = make_batch(8)
    quiet = [objective.eval().represent(batch, generator(seed))["tabular"] for seed in (0, 1)]
    loud = [objective.train().represent(batch, generator(seed))["tabular"] for seed in (0, 1)]
    assert torch.equal(*quiet)
    assert not torch.equal(*loud)


def test_marginals__are_in_no_file() -> None:
    """They are of the data: neither a checkpoint nor an export holds them."""
    objective = build({"name": "tabular_align"}, MODEL)
    assert not [key for key in objective.state_dict() if "marginals" in key]


def test_late_fusion__reads_signal_and_covariates() -> None:
    objective = build({"name": "supervised", "covariates": True}, MODEL).eval()
    batch = make_batch(8)
    before = objective.represent(batch)["raw"]
    assert objective.head.config["in_features"] == objective.encoder.embed_dim + objective.tabular.embed_dim
    changed = make_batch(8)
    changed["tabular"][0, 0] += 3
    after = objective.represent(changed)["raw"]
    assert not torch.allclose(after[0], before[0])
    assert torch.equal(after[1:], before[1:])
    embedding = objective.embed(batch, generator(0))
    beside = objective.tabular(torch.cat([batch["tabular"], batch["tabular_mask"].float()], 1))
    assert_close(objective.head(torch.cat([embedding, beside], 1)), before)


def test_tabular_align__learns_a_planted_match() -> None:
    """Covariates that say which ECG it is are matched with it; the ECG is one constant voltage for each subject."""
    objective = build({"name": "tabular_align", "corruption": 0.0, "ecg_augment": "none"}, MODEL)
    batch = make_batch(8)
    level = torch.linspace(-1.5, 1.5, 8)
    batch["ecg"][:] = level[:, None, None]
    batch["tabular"][:, 0], batch["tabular_mask"][:] = level, True
    batch["subject"] = torch.arange(8)
    batch["has_ecg"][:] = batch["has_cmr"][:] = True
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    for step in range(60):
        optimizer.zero_grad()
        objective.train()(batch, generator(step)).losses["ecg_tabular"].mean().backward()
        optimizer.step()
    with torch.no_grad():
        out = objective.eval()(batch)
    assert out.metrics["tabular_to_ecg_top1"].value >= 0.75, "chance is 0.125"


def test_unit_rows__of_all_towers() -> None:
    rows = build({"name": "tabular_align"}, MODEL).eval().represent(make_batch(8))
    for name in TOWERS.values():
        assert_close(rows[name], unit_rows(rows[name]))
