"""How much memory activations take, against what a chain of layers is known to hold."""

from __future__ import annotations

import torch
from torch import nn

from rr.graph import ChannelGraph, ExampleInputs
from rr.refit.feed import Feed
from rr.refit.memory import bytes_side_by_side
from rr.refit.rows import Reader, reader_of

PLACE = 100 * 4  # bytes of a channel of 10 x 10 pixels


def reader(model: nn.Module, images: torch.Tensor, name: str) -> Reader:
    return reader_of(ChannelGraph(model, images).layers[name], model.get_submodule(name))


def test_images_wait_with_a_layers_input_and_output_and_one_batch_runs() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 2, 1),
        nn.ReLU(),
        nn.Conv2d(2, 32, 1),
        nn.ReLU(),
        nn.Conv2d(32, 1, 1),
    )
    batches = [torch.randn(count, 3, 10, 10) for count in (4, 2)]
    feed = Feed([ExampleInputs.of(batch) for batch in batches])
    of = reader(model, batches[0], "2")
    found = bytes_side_by_side(model, [of], 1, feed)
    rows = 4 * 8 * 4  # what was seen at one place of each image
    inputs = (4 + 2) * 3  # each run has its own, which its forward may change
    assert abs(found - (4 * (32 + 32) + 2 * (8 + 2) + inputs) * PLACE) <= 8 * rows


def test_views_take_nothing_and_weights_are_not_activations() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 5), nn.Unflatten(1, (5, 1)), nn.Flatten(), nn.Linear(5, 2))
    images = torch.randn(2, 3, 10, 10)
    found = bytes_side_by_side(model, [reader(model, images, "4")], 1, Feed([ExampleInputs.of(images)]))
    assert found <= 2 * (300 + 5 + 2) * 4 + 100
