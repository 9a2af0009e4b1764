"""Limits on what a layer reads: put on it, added to, and found in a file by their shapes."""

from __future__ import annotations

import torch
from torch import nn

from rr.weights.input_bounds import bound_inputs, fit_bounds


def test_limits_add_up_and_come_back_from_shapes() -> None:
    x = torch.randn(2, 3, 4, 4)
    layer = nn.Conv2d(3, 2, 3)
    plain = nn.functional.conv2d
    bound_inputs(layer, "max", torch.tensor([False, True, False]))
    bound_inputs(layer, "min", torch.tensor([True, False, False]))
    bound_inputs(layer, "max", torch.tensor([False, False, True]))
    limited = torch.cat([x[:, :1].clamp(max=0), x[:, 1:].clamp(min=0)], 1)
    torch.testing.assert_close(layer(x), plain(limited, layer.weight, layer.bias))

    again = nn.Conv2d(3, 2, 3)
    fit_bounds(again, {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()})
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), layer(x))


def test_limits_of_another_shape_change_nothing() -> None:
    layer = nn.Linear(3, 2)
    fit_bounds(layer, {"floor_of_extremes": (2,), "ceiling_of_extremes": (3, 1)})
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert not layer._forward_pre_hooks
