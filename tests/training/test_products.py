"""The faster float32 products are taken where they are float32, refused where they are not, and given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ecgcmr.training import products
from ecgcmr.training.config import RunConfig
from ecgcmr.training.products import LARGEST_ERROR, float32_products, product_error
from ecgcmr.training.run import pretrain

CPU = torch.device("cpu")


def test_error__tells_float32_from_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert product_error(CPU) < LARGEST_ERROR / 2  # as torch is by default
    linear = torch.nn.functional.linear

    def rounded(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        low = x.dtype == torch.float32
        return linear(x.bfloat16(), weight.bfloat16()).float() if low else linear(x, weight)

    monkeypatch.setattr(torch.nn.functional, "linear", rounded)
    assert product_error(CPU) > 100 * LARGEST_ERROR


@pytest.mark.parametrize(("error", "taken"), [(4e-7, "medium"), (2e-3, "highest")])
def test_setting__follows_the_error_and_is_given_back(
    error: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "product_error", lambda device: error)
    assert torch.get_float32_matmul_precision() == "highest"
    with float32_products("measured", CPU) as setting:
        assert setting == taken == torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), float32_products("measured", CPU):
        raise KeyError
    assert torch.get_float32_matmul_precision() == "highest"
    with float32_products("exact", CPU) as setting:
        assert setting == "highest"


def test_run__says_in_its_log_what_was_decided(make_config: Callable[..., RunConfig]) -> None:
    folder = pretrain(make_config(**{"train.products": "measured", "train.max_steps": 1}))
    line = next(line for line in (folder / "train.log").read_text().splitlines() if "float32 products" in line)
    assert ("taken" in line) != ("refused" in line)
    assert torch.get_float32_matmul_precision() == "highest"
