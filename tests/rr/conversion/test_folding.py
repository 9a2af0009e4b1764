"""Folding: BN of every kind, channels with several pixels, frozen parameters, and what users put on a layer."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, paper_config
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from tests.rr.networks import Net, Networks, conv, generic, head, insert_generic_compactors, random_alive, trained_tiny


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


@pytest.mark.slow
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


@pytest.mark.slow
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


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def pruned(model: nn.Module, **settings: object) -> tuple[ResRepPruner, nn.Module]:
    """Half of what may go is dead, and gone."""
    pruner = ResRepPruner(generic(model).eval(), IMAGES, paper_config(flops_target=0.95, layers="all", **settings))
    units = np.arange(pruner.graph.num_units)
    pruner.live.zero_dead_rows(~pruner.selected | (units % 2 == 0))
    slim = pruner.convert()
    with torch.no_grad():
        torch.testing.assert_close(slim(IMAGES), model(IMAGES), rtol=1e-3, atol=1e-3)
    return pruner, slim


def two_layers(**modules: nn.Module) -> Net:
    torch.manual_seed(0)
    modules = {"a": conv(3, 8), "n": nn.BatchNorm2d(8), "b": conv(8, 8), "fc": nn.Linear(8, 3)} | modules
    return Net(lambda net, x: head(net, F.relu(net.b(F.relu(net.n(net.a(x)))))), **modules)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "n", "b", "fc"])
def test_users_hooks_go_on_and_this_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, seen = two_layers(), []
    layer = model.get_submodule(name)
    layer.register_forward_hook(lambda module, inputs, output: seen.append((module, output.shape[1])))
    layer.register_forward_pre_hook(lambda module, inputs, kwargs: seen.append("before"), with_kwargs=True)
    with caplog.at_level(logging.WARNING):
        _, slim = pruned(model)
    assert f"your hooks on {name} are in the converted model too" in caplog.text
    seen.clear()
    slim(IMAGES)
    assert seen == ["before", (slim.get_submodule(name), 3 if name == "fc" else 4)]
    seen.clear()
    model(IMAGES)
    assert seen == ["before", (layer, 3 if name == "fc" else 8)]


def test_a_hook_that_is_bound_to_the_model_is_bound_to_the_converted_one() -> None:
    class Keeping(Net):
        def keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
            self.kept = output.shape[1]

    plain = two_layers()
    model = Keeping(plain.function, **dict(plain.named_children()))
    model.b.register_forward_hook(model.keep)
    _, slim = pruned(model)
    model.kept = None
    slim(IMAGES)
    assert (slim.kept, model.kept) == (4, None)


def test_backward_hooks_go_on() -> None:
    model, seen = two_layers(), []
    model.b.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0].shape[1]))
    _, slim = pruned(model)
    seen.clear()
    slim(IMAGES).sum().backward()
    assert seen == [4]


class Gain(nn.Conv2d):
    """With a number of its own, a number per input channel and modules of its own, one of them linear."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.scale = nn.Parameter(torch.rand(inputs, 1, 1) + 0.5)
        self.act, self.linear = nn.PReLU(inputs), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.act(x * self.gain * self.scale))


@pytest.mark.slow
def test_a_layer_with_parameters_and_modules_of_its_own() -> None:
    pruner, slim = pruned(two_layers(b=Gain(8, 8)))
    assert isinstance(slim.b, Gain)
    assert slim.b.weight.shape == (4, 4, 1, 1)
    assert slim.b.gain.item() == 1.5
    assert slim.b.scale.shape == (4, 1, 1)
    assert slim.b.act.weight.shape == (4,)
    assert pruner.report.parameters_after == sum(parameter.numel() for parameter in slim.parameters())
