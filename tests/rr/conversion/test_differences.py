"""How far outputs are apart: on each element's own scale, and what must be equal."""

from __future__ import annotations

import math

import pytest
import torch

from rr.conversion.differences import difference_of, difference_on_own_scale, error_floors


def test_differences() -> None:
    one, inf = torch.tensor([1.0, 4.0]), torch.tensor([1.0, math.inf])
    assert difference_of([one], [one + torch.tensor([0.0, 1.0])]) == 0.25
    assert difference_of([inf], [inf]) == 0
    assert difference_of([inf], [-inf]) == math.inf
    assert difference_of([one], [inf]) == math.inf
    assert math.isnan(difference_of([one], [one * math.nan]))
    labels = torch.tensor([1, 2])
    assert difference_of([one, labels], [one, labels]) == 0
    assert difference_of([one, labels], [one, labels + 1]) == math.inf
    assert difference_of([one, labels], [one, labels + 1], rounded=True) == 0
    assert difference_of([one], [torch.ones(3)]) == math.inf


@pytest.mark.parametrize("huge", [-1e9, torch.finfo(torch.float32).min])
def test_a_huge_output_hides_no_other(huge: float) -> None:
    a = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a[:, 2] = huge
    b = a.clone()
    b[1, 3] *= 1.015
    floors = error_floors([a], [a.float()])
    assert difference_on_own_scale([a], [b], floors) == pytest.approx(0.015)
    assert difference_of([a], [b]) == pytest.approx(0.015, rel=1)  # what is the same in both is no scale
    a[:, 3], b[:, 3] = a[:, 2], b[:, 3]
    assert difference_on_own_scale([a], [b], error_floors([a], [a.float()])) == pytest.approx(1)


def test_what_cancels_is_asked_for_no_more_than_it_has() -> None:
    """A sum of large numbers that is near zero: float64's own error there is no difference, a wrong number is one."""
    large = 1e3 * torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small = 1e-3 * torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact, rounded = (large + small) - large, ((large + small).float() - large.float())
    other = ((3 * large + 3 * small) - 3 * large) / 3
    floors = error_floors([exact], [rounded])
    assert difference_on_own_scale([exact], [other], floors) < 1e-12
    assert difference_on_own_scale([exact], [exact * 1.01], floors) > 1e-10
    assert ((other - exact).abs() / exact.abs()).max() > 1e-10  # what a plain relative error would have made of it


def test_an_output_without_any_error_is_compared_as_it_is() -> None:
    whole = torch.tensor([[0.0, 1.0, 2.0]])
    floors = error_floors([whole.double()], [whole])
    assert difference_on_own_scale([whole.double()], [whole.double()], floors) == 0
    assert difference_on_own_scale([whole.double()], [whole.double() + 1e-9], floors) == math.inf
    assert error_floors([torch.zeros(0, 3)], [torch.zeros(0, 3)])[0].shape == ()
    assert error_floors([torch.tensor([1, 2])], [torch.tensor([1, 2])])[0] == 0
