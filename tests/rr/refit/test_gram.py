"""Roots of Gram matrices."""

from __future__ import annotations

import pytest
import torch

from rr.errors import InputError
from rr.refit.gram import root_of


@pytest.mark.parametrize("rank", [6, 2, 0])
def test_a_root_of_a_matrix_that_may_be_singular(rank: int) -> None:
    torch.manual_seed(0)
    factor = torch.randn(6, rank, dtype=torch.float64)
    root = root_of(factor @ factor.T)
    torch.testing.assert_close(root @ root.T, factor @ factor.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_has_none(bad: float) -> None:
    """There is no end to looking for one."""
    with pytest.raises(InputError, match="aren't finite"):
        root_of(torch.full((3, 3), bad, dtype=torch.float64))
