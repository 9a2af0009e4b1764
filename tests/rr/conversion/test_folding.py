"""Folding: BN of every kind, channels with several pixels, buffers and frozen parameters."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from tests.rr.networks import Networks, conv, generic, insert_generic_compactors, random_alive, trained_tiny


def test_buffers_of_a_folded_layer_are_its_own() -> None:
    """Also those that its class has beside weight and bias: in the model's type, not rounded to float32 on the way."""

    class Conv(nn.Conv2d):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            self.register_buffer("table", torch.full((1,), 1 / 3, dtype=torch.float64))

    torch.manual_seed(0)
    model = nn.Sequential(Conv(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    images = torch.randn(2, 1, 8, 8)
    slim, _ = convert(LiveModel(model, ChannelGraph(model, images)), images)
    assert slim[0].table.item() == 1 / 3
    slim[0].table.zero_()
    assert model[0].table.item() == 1 / 3


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.5])
def test_the_bns_own_eps_counts(eps: float) -> None:
    model, graph, images, _ = trained_tiny()
    model[1].eps = model[4].eps = eps
    model[1].running_var.uniform_(0, 1e-3)
    assert convert(LiveModel(model, graph), images)[1].float64_difference <= 1e-12


def test_a_bn_that_stands_alone_is_narrowed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(1, 8), nn.ReLU(), nn.BatchNorm2d(8), conv(8, 4, 1), nn.Flatten(), nn.Linear(144, 2))
    generic(model).eval()
    images = torch.randn(2, 1, 6, 6)
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert slim[2].num_features == len(slim[2].running_mean) == slim[3].in_channels == report.widths[0] < 8


def test_what_was_frozen_stays_so_and_nothing_else() -> None:
    """For training on: in each layer, BN that stands alone and parameter per channel, half of it dead."""
    torch.manual_seed(0)
    layers = [conv(1, 8), nn.PReLU(8), nn.BatchNorm2d(8), conv(8, 8, 1), nn.PReLU(8), nn.BatchNorm2d(8), conv(8, 4, 1)]
    model = generic(nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 2))).eval()
    model[:3].requires_grad_(False)
    images = torch.randn(2, 1, 6, 6)
    graph = ChannelGraph(model, images)
    insert_generic_compactors(model, graph, graph.prunable, random_alive(graph, graph.prunable, 0.5))
    slim, _ = convert(LiveModel(model, graph), images)
    assert slim[1].num_parameters == len(slim[1].weight) < 8
    assert {name for name, parameter in slim.named_parameters() if not parameter.requires_grad} == {
        name for name, _ in slim.named_parameters() if int(name.split(".")[0]) < 3
    }


def test_flatten_with_several_pixels_per_channel(traced: Networks) -> None:
    """LeNet's second convolution leaves 4 x 4 pixels: a dead channel takes 16 columns of the linear layer."""
    plain, images, graph = traced["lenet5bn"]
    model = copy.deepcopy(plain)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["conv2.conv"].out_units[[0, 7, 49]]] = False
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert slim.linear1.in_features == 47 * 16
    assert report.float64_difference <= 1e-12
