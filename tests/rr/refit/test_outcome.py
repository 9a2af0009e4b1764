"""What is said of a network's outputs and loss, against the same by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rr.graph import ExampleInputs
from rr.refit.feed import Feed
from rr.refit.outcome import outcome
from tests.rr.networks import Net


def networks() -> list[nn.Module]:
    """The full one, one that is further off, and one that is nearer."""
    torch.manual_seed(0)
    full, cut, refitted = (nn.Linear(3, 4) for _ in range(3))
    for network, share in ((cut, 0.5), (refitted, 0.9)):
        network.weight.data.mul_(1 - share).add_(share * full.weight)
        network.bias.data.copy_(full.bias)
    return [full, cut, refitted]


def test_errors_over_the_variance_and_the_mean_loss_over_images() -> None:
    full, cut, refitted = networks()
    batches = [torch.randn(size, 3) for size in (5, 2, 4)]
    feed = Feed(batches, lambda network, batch: network(batch).square().mean(), held_out=2)
    outputs, loss = outcome(full, cut, refitted, feed, feed.unseen)
    wanted = [full(batch) for batch in batches[1:]]
    variance = sum((output - output.mean(0)).square().sum() for output in wanted)
    for network, found in ((cut, outputs.before), (refitted, outputs.after)):
        missed = sum((network(x) - output).square().sum() for x, output in zip(batches[1:], wanted, strict=True))
        assert found == pytest.approx((missed / variance).item())
    for network, found in ((full, loss.full), (cut, loss.before), (refitted, loss.after)):
        assert found == pytest.approx(network(torch.cat(batches[1:])).square().mean().item())


def test_images_one_by_one_have_a_variance_too() -> None:
    full, cut, refitted = networks()
    feed = Feed([ExampleInputs.of(torch.randn(1, 3)) for _ in range(3)])
    outputs, loss = outcome(full, cut, refitted, feed, range(3))
    assert 0 < outputs.after < outputs.before < 100
    assert loss is None


def test_outputs_of_other_shapes_are_not_compared() -> None:
    def positive(net: Net, x: Tensor) -> Tensor:
        found = net.layer(x).flatten()
        return found[found > 0]

    found, _ = outcome(
        *(Net(positive, layer=network) for network in networks()), Feed([ExampleInputs.of(torch.randn(9, 3))]), [0]
    )
    assert found is None
