"""Networks and numbers for the tests of the method: nothing in them is zero, one or the identity by chance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from base_model import build_model
from rr.compactors import Compactor
from rr.graph import ChannelGraph, LiveModel


class Net(nn.Module):
    """A network out of a forward function: `Net(lambda net, x: net.b(net.a(x)), a=..., b=...)`."""

    def __init__(self, forward: Callable[..., Tensor], **modules: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def head(net: Net, x: Tensor) -> Tensor:
    """Mean over the pixels, then the classifier `fc`."""
    return net.fc(x.mean((2, 3)))


def network(name: str, image_size: int, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network of base_model with generic statistics, in eval mode, and example inputs."""
    torch.manual_seed(seed)
    model = generic(build_model(name, image_size=image_size, num_classes=10)).eval()
    channels = next(model.parameters()).shape[1]
    return model, torch.randn(2, channels, image_size, image_size)


def generic(model: nn.Module) -> nn.Module:
    """Give each BN statistics of a trained network and worse: means, variances, signs of gamma and beta at random."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                if module.track_running_stats:
                    module.running_mean.normal_(0, 0.5)
                    module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5).mul_(torch.where(torch.rand_like(module.weight) < 0.3, -1, 1))
                    module.bias.normal_(0, 0.5)
    return model


def random_alive(graph: ChannelGraph, selected: np.ndarray, dead: float, seed: int = 0) -> np.ndarray:
    """[num_units] of bool: a share `dead` of the selected units is dead, at least one of each group lives."""
    alive = ~selected | (np.random.default_rng(seed).random(graph.num_units) >= dead)
    for group in graph.groups:
        if not alive[group.units].any():
            alive[group.units[0]] = True
    return alive


def insert_generic_compactors(
    model: nn.Module, graph: ChannelGraph, selected: np.ndarray, alive: np.ndarray
) -> Mapping[str, Compactor]:
    """Dense, far from orthogonal compactors at every site with selected units; dead units' rows are zero."""
    compactors = graph.insert_compactors(model, selected)
    with torch.no_grad():
        for compactor in compactors.values():
            weight = compactor.pwc.weight
            weight.copy_(0.5 * weight + torch.randn_like(weight) * weight.shape[1] ** -0.5)
    LiveModel(model, graph).zero_dead_rows(alive)
    return compactors


def tiny(channels: int = 6, bias: bool = False) -> nn.Sequential:
    """Two convolutions with BN and a classifier for [N, 1, 8, 8] images."""
    return nn.Sequential(
        conv(1, channels, bias=bias),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        conv(channels, channels + 2, bias=bias),
        nn.BatchNorm2d(channels + 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels + 2, 3),
    )


def trained_tiny(dead: float = 0.5) -> tuple[nn.Module, ChannelGraph, Tensor, np.ndarray]:
    """The tiny network with dense compactors, a share `dead` of whose rows is zero."""
    torch.manual_seed(0)
    model, images = generic(tiny()).eval(), torch.randn(4, 1, 8, 8)
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, dead)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    return model, graph, images, alive


def small_model() -> nn.Sequential:
    """A conv, a batch norm with generic statistics and a linear layer."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model(torch.randn(5, 3, 3, 3))
    return model


SIZES = {"src20": 16, "src56": 16, "vc": 32, "lenet5bn": 28, "smi1": 32, "smi1_cifar": 16, "sres50": 32}
Traced = tuple[nn.Module, Tensor, ChannelGraph]


class Networks(dict[str, Traced]):
    """Model, inputs and graph by name; only to be read, since all tests share them."""

    def __missing__(self, name: str) -> Traced:
        model, images = network(name, SIZES[name])
        self[name] = model, images, ChannelGraph(model, images)
        return self[name]


@functools.cache
def graph_of(build: Callable[[], nn.Module], shape: tuple[int, ...], silence: bool, diagonal: bool) -> ChannelGraph:
    """The graph of what `build` makes, traced once for all tests that prune it; the same for any weights."""
    with torch.random.fork_rng(devices=[]):
        return ChannelGraph(build(), torch.zeros(shape), silence=silence, diagonal=diagonal)
