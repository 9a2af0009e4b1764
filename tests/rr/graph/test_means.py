"""Means over channels that a module divides by."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rr import explain
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from rr.narrowing.take_out import silent_units
from rr.weights import load_converted, save_converted
from tests.rr.flows import behind_b, check_unprunable, three
from tests.rr.networks import generic, insert_generic_compactors, random_alive

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class ResponseNorm(nn.Module):
    """Each channel by its norm over the mean of all channels' norms (ConvNeXt-v2)."""

    def __init__(self, channels: int, *, shifts: bool = True) -> None:
        super().__init__()
        self.eps = 0.1
        self.weight, self.bias = nn.Parameter(torch.randn(channels)), None
        if shifts:
            self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        norms = x.norm(p=2, dim=(2, 3), keepdim=True)
        norms = norms / (norms.mean(dim=1, keepdim=True) + self.eps)
        x = x + self.weight.view(1, -1, 1, 1) * (x * norms)
        return x if self.bias is None else x + self.bias.view(1, -1, 1, 1)


class WithoutEpsilon(ResponseNorm):
    """The same, where the forward has a number that no conversion can change."""

    def forward(self, x: Tensor) -> Tensor:
        norms = x.norm(p=2, dim=(2, 3), keepdim=True)
        norms = norms / (norms.mean(dim=1, keepdim=True) + 0.1)
        return x + self.weight.view(1, -1, 1, 1) * (x * norms) + self.bias.view(1, -1, 1, 1)


@pytest.mark.slow
def test_a_norm_by_the_mean_of_all_channels_is_exact_with_fewer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = generic(three(behind_b(lambda net, x: net.r(net.a(x))), b=nn.Conv2d(8, 6, 1)))
    model.r = ResponseNorm(8)
    full = copy.deepcopy(model)
    graph = ChannelGraph(model.eval(), IMAGES)
    units = graph.layers["a"].out_units
    assert graph.prunable[units].all(), explain(graph)
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), IMAGES)
    assert report.float64_difference <= 1e-12
    assert slim.r.eps > model.r.eps

    again = ChannelGraph(slim, IMAGES)
    dead = np.ones(again.num_units, dtype=bool)
    dead[again.layers["a"].out_units[0]] = False
    insert_generic_compactors(slim, again, again.prunable, dead)
    slimmer, report = convert(LiveModel(slim, again), IMAGES)
    assert report.float64_difference <= 1e-12
    save_converted(tmp_path / "slimmer.hdf5", slimmer)
    torch.testing.assert_close(load_converted(tmp_path / "slimmer.hdf5", full)(IMAGES), slimmer(IMAGES))


def test_in_mid_run_the_channels_stay() -> None:
    """Scale and `eps` are the full network's until the end."""
    model = three(behind_b(lambda net, x: net.r(net.a(x))), r=ResponseNorm(8, shifts=False))
    graph = ChannelGraph(model.eval(), IMAGES)
    units = graph.layers["a"].out_units
    assert graph.prunable[units].all()
    assert not silent_units(graph, model)[units].any()


@pytest.mark.slow
def test_a_mean_whose_module_can_not_be_told_keeps_the_channels() -> None:
    model = three(behind_b(lambda net, x: net.r(net.a(x))), r=WithoutEpsilon(8))
    graph = ChannelGraph(model, IMAGES)
    assert "mean in r, which divides by how many channels there are" in explain(graph)
    check_unprunable(model.function, {"r": WithoutEpsilon(8)}, "a")
    spatial = behind_b(lambda net, x: (lambda y: y * y.amax(1, keepdim=True).sigmoid())(net.a(x)))
    assert "amax in the model, which takes the extreme of the channels" in explain(ChannelGraph(three(spatial), IMAGES))
