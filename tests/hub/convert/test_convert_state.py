"""Keys are placed, or set aside with a reason, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecgcmr.hub.convert.state import State, open_state


def state(**tensors: torch.Tensor) -> State:
    return State(Path("file.pth"), {key.replace("__", "."): value for key, value in tensors.items()})


def test_open_state__unwraps_and_takes_wrappers_off(tmp_path: Path) -> None:
    for name in ("model", "state_dict", "model_state_dict"):
        torch.save({name: {"module.model.w": torch.ones(2)}, "epoch": 4}, tmp_path / "a.pth")
        found = open_state(tmp_path / "a.pth")
        assert list(found.tensors) == ["w"]
        assert found.dropped == {"epoch": "state of the training, not weights"}
        assert found.top == {"epoch": 4}


def test_open_state__takes_a_bare_state_dict(tmp_path: Path) -> None:
    torch.save({"model.w": torch.ones(2), "other": torch.ones(1)}, tmp_path / "a.pth")
    assert list(open_state(tmp_path / "a.pth").tensors) == ["model.w", "other"]


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({"weights": {"w": torch.ones(1)}}, "no state dict under model, state_dict, model_state_dict.*weights"),
        ({"model": {"w": [1.0]}}, "'w' is a list"),
        ({"model": {3: torch.ones(1)}}, "key 3 is no name"),
        ({"model": {}}, "'model' holds nothing"),
        ({}, "holds nothing"),
        ({"model": torch.ones(2), "epoch": 3}, "no state dict under"),
    ],
)
def test_open_state__says_what_is_wrong(tmp_path: Path, top: dict, said: str) -> None:
    torch.save(top, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=said):
        open_state(tmp_path / "a.pth")


def test_exactly__lists_everything_that_does_not_fit() -> None:
    given = state(a=torch.ones(2), b=torch.ones(3), c=torch.ones(1), d=torch.ones(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"missing: e; unexpected: c; of another shape: b \(3,\) instead of \(3, 1\)"):
        given.exactly({"a": (2,), "b": (3, 1), "d": (2,), "e": (1,)})
    with pytest.raises(ValueError, match=r"holds no weights: d torch\.complex64"):
        given.exactly({"a": (2,), "b": (3,), "c": (1,), "d": (2,)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_exactly__refuses_values_that_are_not_finite_by_key(bad: float) -> None:
    given = state(a=torch.ones(2), b__weight=torch.tensor([1.0, bad], dtype=torch.float16))
    with pytest.raises(ValueError, match=r"not finite: b\.weight"):
        given.exactly({"a": (2,), "b.weight": (2,)})


def test_exactly__gives_float32_in_memory_of_its_own() -> None:
    values = torch.tensor([0.5, 1.5, -3.0])
    source = {kind: values.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64, torch.float32)}
    for kind, value in source.items():
        out = state(a=value, n=torch.tensor(3)).exactly({"a": (3,), "n": ()})
        assert out["a"].dtype == torch.float32
        assert torch.equal(out["a"], values), kind
        assert out["n"].dtype == torch.int64
        assert out["a"].data_ptr() != value.data_ptr()


def test_without__takes_the_reason_of_the_longest_prefix() -> None:
    left = state(head__w=torch.ones(1), head__bn__w=torch.ones(1), x=torch.ones(1)).without(
        {"head.": "a head", "head.bn.": "its norm"}
    )
    assert left.dropped == {"head.w": "a head", "head.bn.w": "its norm"}
    assert list(left.tensors) == ["x"]


def test_under__keeps_one_tower_and_names_the_rest() -> None:
    given = state(E__w=torch.ones(1), C__w=torch.ones(1))
    kept = given.under("E.", "another tower")
    assert list(kept.tensors) == ["w"]
    assert kept.dropped == {"C.w": "another tower"}
    with pytest.raises(ValueError, match=r"no key begins with 'Z\.'; there are E\.w, C\.w"):
        given.under("Z.", "")


def test_count__refuses_a_gap() -> None:
    blocks = {f"blocks__{i}__w": torch.ones(1) for i in (0, 1, 3)}
    with pytest.raises(ValueError, match=r"missing: blocks\.2\.\*, although there is 3"):
        state(**blocks).count("blocks.{}.")
    assert state(**{key: blocks[key] for key in list(blocks)[:2]}).count("blocks.{}.") == 2
    with pytest.raises(ValueError, match=r"no key like block0\.\*"):
        state(**blocks).count("block{}.")


def test_shape__refuses_missing_empty_and_flat_tensors() -> None:
    given = state(a=torch.ones(2, 3), b=torch.ones(0, 3))
    assert given.shape("a", 2) == (2, 3)
    for key, dims in (("a", 3), ("b", 2), ("c", 2)):
        with pytest.raises(ValueError, match=rf"file\.pth: {key} "):
            given.shape(key, dims)
