"""How much memory activations take, against what a chain of layers is known to hold."""

from __future__ import annotations

import torch
from torch import nn

from rr.graph import ExampleInputs
from rr.refit.feed import Feed
from rr.refit.memory import bytes_side_by_side


def test_two_neighbouring_activations_are_held_at_a_time() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 2, 1))
    feed = Feed([ExampleInputs.of(torch.randn(count, 3, 10, 10)) for count in (4, 2)])
    assert bytes_side_by_side(model, feed) == 6 * (8 + 16) * 100 * 4  # the input isn't made by the network


def test_views_take_nothing_and_weights_are_not_activations() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 5), nn.Unflatten(1, (5, 1)))
    feed = Feed([ExampleInputs.of(torch.randn(2, 3, 10, 10))])
    assert bytes_side_by_side(model, feed) <= 2 * (300 + 5) * 4
