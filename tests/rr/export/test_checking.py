"""The check of an exported network: what passes, and what doesn't."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rr.export import check_export
from tests.rr.small_network import small_network


def network() -> nn.Module:
    torch.manual_seed(0)
    return small_network().eval()


def test_the_model_itself_is_equal_and_a_slightly_other_one_is_not() -> None:
    model = network()
    same = check_export(model, lambda x: [model(x).detach()], 3, 8, any_size=True)
    assert same.is_equal
    assert {one.images for one in same.outputs} == {(1, 3, 8, 8), (3, 3, 8, 8), (1, 3, 13, 10), (3, 3, 13, 10)}
    assert all(one.difference == one.own_error > 0 for one in same.outputs)

    def off_at_one_size(x: Tensor) -> list[Tensor]:
        return [model(x).detach() * (1 + 1e-4 * (x.shape[2] != 8))]

    other = check_export(model, off_at_one_size, 3, 8, any_size=True)
    assert not other.is_equal
    assert "NOT equal" in str(other)
    assert check_export(model, off_at_one_size, 3, 8, any_size=False).is_equal


def test_no_number_and_another_shape_are_not_equal() -> None:
    model = network()
    assert not check_export(model, lambda x: [model(x).detach() * float("nan")], 3, 8, any_size=False).is_equal
    assert not check_export(model, lambda x: [model(x).detach()[:, :2]], 3, 8, any_size=False).is_equal
