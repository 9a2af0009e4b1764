"""Reasons: what an operation without a rule does to channels, and why a layer is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rr import explain
from rr.graph import ChannelGraph
from tests.rr.flows import behind_b, three
from tests.rr.networks import Net, conv, head

IMAGES = torch.zeros(2, 3, 6, 6)


class Scaled(nn.Module):
    """A parametrisation with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.ones(1))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.by


def of_one_weight(part: Callable[[nn.Module, nn.Module], None]) -> dict[str, nn.Module]:
    """Two convolutions, `c` and `d`, that have something in common."""
    c, d = conv(8, 8, 1), conv(8, 8, 1)
    part(c, d)
    return {"c": c, "d": d}


def tied(c: nn.Module, d: nn.Module) -> None:
    d.weight = c.weight


def parametrized_alike(c: nn.Module, d: nn.Module) -> None:
    scaled = Scaled()
    for layer in (c, d):
        parametrize.register_parametrization(layer, "weight", scaled)


def attention(net: Net, x: Tensor) -> Tensor:
    tokens = net.a(x).flatten(2).mT
    return F.scaled_dot_product_attention(tokens, tokens, tokens).mT.unflatten(2, (6, 6))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda net, x: net.a(x) * net.a(x).kthvalue(3, 1, keepdim=True)[0], "kthvalue in the model, which puts the"),
        (lambda net, x: net.a(x) / net.a(x).var(1, keepdim=True), "var in the model, which divides by how many"),
        (attention, "scaled_dot_product_attention in the model, which divides by the root of how many channels"),
    ],
)
def test_a_reason_says_what_becomes_of_the_other_channels(
    function: Callable[[Net, Tensor], Tensor], reason: str
) -> None:
    assert f"passes through {reason}" in explain(ChannelGraph(three(behind_b(function)), IMAGES))


@pytest.mark.parametrize(
    ("part", "why"),
    [(tied, "its weight is that of d as well"), (parametrized_alike, "its weight is computed, and not by")],
)
def test_what_runs_a_convolution_but_is_no_layer_is_explained(
    part: Callable[[nn.Module, nn.Module], None], why: str
) -> None:
    model = three(lambda net, x: head(net, net.b(net.d(F.relu(net.c(net.a(x)))))), **of_one_weight(part))
    lines = explain(ChannelGraph(model, IMAGES)).splitlines()
    assert [line.split()[0] for line in lines] == ["layer", "a", "b", "fc", "c", "d"]
    assert f"no plain layer: {why}" in lines[-2]


def test_what_is_made_of_parameters_is_told_apart_from_channels() -> None:
    """Places that are learnt, at the size of the images: nothing is pooled there over channels."""
    model = three(
        behind_b(lambda net, x: net.a(x) + F.interpolate(net.places, x.shape[2:])),
        places=nn.Parameter(torch.randn(1, 8, 3, 3)),
    )
    assert "meets what upsample_nearest2d in the model makes of parameters" in explain(ChannelGraph(model, IMAGES))


class Blur(nn.Module):
    """As timm's BlurPool2d: a kernel in a buffer, the same for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(8, 1, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.kernel, groups=8)


@pytest.mark.parametrize(
    ("function", "more", "why"),
    [
        (lambda net, x: net.n(net.a(x)), Blur(), "its weight is kernel of a module that is none of torch's layers"),
        (lambda net, x: net.n(net.a(x).mean((0, 2, 3))) * net.a(x), nn.Linear(8, 1), "what it reads has no batch"),
    ],
)
def test_what_a_layer_is_not(function: Callable[[Net, Tensor], Tensor], more: nn.Module, why: str) -> None:
    assert f"no plain layer: {why}" in explain(ChannelGraph(three(behind_b(function), n=more), IMAGES))


def test_an_order_along_the_pixels_lets_channels_go() -> None:
    model = three(behind_b(lambda net, x: net.a(x) * net.a(x).kthvalue(3)[0][..., None]))
    graph = ChannelGraph(model, IMAGES)
    assert graph.prunable[graph.layers["a"].out_units].all(), explain(graph)
