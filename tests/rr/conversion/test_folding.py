"""What is folded keeps all else that users put on a layer: hooks, parameters, modules and methods of its own."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, paper_config
from tests.rr.networks import Net, conv, generic, head

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
    """With a number of its own, a number per input channel and a module of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.scale = nn.Parameter(torch.rand(inputs, 1, 1) + 0.5)
        self.act = nn.PReLU(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.act(x * self.gain * self.scale))


def test_a_layer_with_parameters_and_modules_of_its_own() -> None:
    pruner, slim = pruned(two_layers(b=Gain(8, 8)))
    assert isinstance(slim.b, Gain)
    assert slim.b.weight.shape == (4, 4, 1, 1)
    assert slim.b.gain.item() == 1.5
    assert slim.b.scale.shape == (4, 1, 1)
    assert slim.b.act.weight.shape == (4,)
    assert pruner.report.parameters_after == sum(parameter.numel() for parameter in slim.parameters())
