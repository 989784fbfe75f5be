"""A card says what was measured on what, and what kind of data is behind the weights."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.hub.card import PROVENANCE_KINDS, Card, Metric, is_stated, needs_approval, provenance_kinds
from ecgcmr.hub.card_page import add_approval, render_card

FIELDS: dict[str, Any] = {"name": "a", "stage": "b", "license": "MIT", "provenance": "simulated", "trained_on": "c"}
CONFIG: dict[str, Any] = {
    "modules": {}, "labels": [], "ecg": None, "cmr": None, "ecgcmr_version": "0", "storage": {"dtype": "float32"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("provenance", "kinds", "approval"),
    [
        ("simulated", ("simulated",), False),
        ("public: PTB-XL", ("public",), False),
        ("public+simulated: PTB-XL and hearts", ("simulated", "public"), False),
        ("Simulated, public", ("simulated", "public"), False),
        ("participant-derived: UK Biobank", ("participant-derived",), True),
        ("simulated + participant-derived", ("simulated", "participant-derived"), True),
        ("ptbxl", (), True),
        ("ingested", (), True),
        ("simulated and UK Biobank", (), True),
        ("not public", (), True),
        ("UK Biobank: simulated", (), True),
        ("public + other: x", (), True),
    ],
)
def test_provenance__only_what_is_known_to_be_free_is_free(
    provenance: str, kinds: tuple[str, ...], approval: bool
) -> None:
    assert provenance_kinds(provenance) == kinds
    assert needs_approval(provenance) is approval


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_needs_approval__no_text_slips_through(text: str) -> None:
    free = not needs_approval(text)
    words = {part.strip().lower() for part in text.partition(":")[0].replace(",", "+").split("+")}
    assert free == (words <= {"simulated", "public"})


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(PROVENANCE_KINDS), min_size=1), st.text(max_size=10))
def test_provenance_kinds__are_found_in_any_order(kinds: list[str], rest: str) -> None:
    assert set(provenance_kinds(f"{' + '.join(kinds)}: {rest}")) == set(kinds)


def test_is_stated() -> None:
    assert is_stated("MIT")
    assert not any(is_stated(text) for text in ("", "  ", "not stated", "Unknown", "TBD"))


def test_metrics__the_old_mapping_is_still_read() -> None:
    card = Card.model_validate({**FIELDS, "metrics": {"loss": 0.5}})
    assert card.metrics == (Metric(name="loss", value=0.5, where="validation subjects of the run"),)
    assert Card.from_config({**card.to_config(), "modules": {}, "sha256": "x"}) == card


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"name": "r", "value": 0.5, "lo": 0.4}, "an interval has both lo and hi"),
        ({"name": "r", "value": 0.5, "lo": 0.6, "hi": 0.4}, "lo 0.6 is above hi 0.4"),
        ({"name": "r", "value": float("nan")}, "finite"),
        ({"name": "r", "value": 0.5, "n": 0}, "greater than or equal to 1"),
        ({"name": "r", "value": 0.5, "low": 0.4}, "Extra inputs"),
        ({"name": "", "value": 0.5}, "at least 1 character"),
    ],
)
def test_metric__what_makes_no_sense_is_refused(metric: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Card.model_validate({**FIELDS, "metrics": [metric]})


def test_render_card__head_is_yaml_and_tables_hold_any_text() -> None:
    metrics = [{"name": "AUROC | MI", "value": 0.91, "lo": 0.88, "hi": 0.935, "note": "two\nlines"}]
    page = render_card(Card.model_validate({**FIELDS, "license": "Own Terms 1", "metrics": metrics}), CONFIG)
    head = yaml.safe_load(page.split("---")[1])
    assert (head["license"], head["license_name"], head["library_name"]) == ("other", "own-terms-1", "ecgcmr")
    assert "| AUROC \\| MI | 0.91 | 0.88 to 0.935 | - | - | two lines |" in page


@pytest.mark.parametrize(
    ("provenance", "banner"),
    [
        ("simulated", "**Trained on simulated data.**"),
        ("simulated + public: x", "**Trained in part on simulated data.**"),
    ],
)
def test_render_card__simulation_is_labelled(provenance: str, banner: str) -> None:
    assert banner in render_card(Card.model_validate({**FIELDS, "provenance": provenance}), CONFIG)
    assert "simulated data" not in render_card(Card.model_validate({**FIELDS, "provenance": "public: x"}), CONFIG)


def test_add_approval__keeps_what_a_person_wrote() -> None:
    page = render_card(Card.model_validate(FIELDS), CONFIG) + "\nWritten by hand.\n"
    once = add_approval(page, "board 12/3")
    assert once.count("- Approval for publishing: board 12/3") == 1
    assert add_approval(add_approval(page, "older"), "board 12/3") == once
    assert [line for line in once.splitlines() if not line.startswith("- Approval")] == page.splitlines()
    assert (
        once == render_card(Card.model_validate({**FIELDS, "approval": "board 12/3"}), CONFIG) + "\nWritten by hand.\n"
    )
