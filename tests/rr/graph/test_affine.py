"""Norms that end in a scale and a shift of their own: a compactor behind them silences dead channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from rr import load_converted, save_converted
from rr.conversion import convert
from rr.graph import ChannelGraph, LayerKind, LiveModel
from tests.rr.flows import behind_b, check_conversion, three
from tests.rr.networks import conv, generic, insert_generic_compactors, random_alive


class GroupNormWithActivation(nn.GroupNorm):
    """Norm and activation in one module, as timm has it."""

    def __init__(self, groups: int, channels: int, act: nn.Module) -> None:
        super().__init__(groups, channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class ActivationOfItsOwn(nn.GroupNorm):
    """The activation is no module: no hook can stand before it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x) - 0.1)


class ScaleAndShift(nn.Module):
    """A user's own, with the usual names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


NORMS: dict[str, Callable[[], nn.Module]] = {
    "group": lambda: nn.GroupNorm(4, 8),
    "by channel": lambda: nn.GroupNorm(8, 8),
    "instance": lambda: nn.InstanceNorm2d(8, affine=True),
    "instance, with statistics": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "frozen": lambda: FrozenBatchNorm2d(8),
    "of the batch": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "with an activation": lambda: GroupNormWithActivation(4, 8, nn.ReLU()),
    "a user's own": lambda: ScaleAndShift(8),
}


def build(norm: Callable[[], nn.Module]) -> nn.Module:
    """A norm whose shift reaches a padded convolution, with generic numbers."""
    torch.manual_seed(0)
    model = three(behind_b(lambda net, x: F.leaky_relu(net.n(net.a(x)))), n=norm())
    for own in (*model.n.parameters(), *model.n.buffers()):
        if own.is_floating_point():
            own.data.uniform_(0.5, 1.5)
    return generic(model).eval()


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_dead_channels_are_silenced_before_padding(norm: str, tmp_path: Path) -> None:
    model, images = build(NORMS[norm]), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert graph.layers["n"].kind is LayerKind.AFFINE
    assert graph.sites["n"].is_diagonal
    assert graph.prunable[graph.layers["a"].out_units].all()
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert report.dropped == (~alive).sum() > 0
    assert report.parameters_after == graph.parameters(alive)
    save_converted(tmp_path / "narrow.hdf5", slim)
    assert torch.equal(load_converted(tmp_path / "narrow.hdf5", build(NORMS[norm]))(images), slim(images))


def test_without_need_there_is_no_compactor() -> None:
    model = three(behind_b(lambda net, x: net.n(net.a(x))), n=nn.GroupNorm(4, 8), b=nn.Conv2d(8, 6, 1)).eval()
    graph, images = ChannelGraph(model, torch.randn(2, 3, 6, 6)), torch.randn(2, 3, 6, 6)
    assert "n" in graph.layers
    assert "n" not in graph.sites
    check_conversion(model, graph, images)


def test_where_an_activation_comes_first_the_channels_stay() -> None:
    model = build(lambda: ActivationOfItsOwn(4, 8))
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    units = graph.layers["a"].out_units
    assert "n" not in graph.layers
    assert not graph.prunable[units].any()
    assert all("padding" in graph.reasons[int(unit)] for unit in units)


def test_a_frozen_norm_makes_no_stream() -> None:
    """Its shift is added, but of no layer's channels: the layers before it are internal ones."""
    graph = ChannelGraph(build(NORMS["frozen"]), torch.randn(2, 3, 6, 6))
    assert graph.select("internal")[graph.layers["a"].out_units].all()


class Limited(nn.GroupNorm):
    """Against overflow in half precision: what is limited isn't proportional to the scale any more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1000, 1000)


class ActivatedFirst(nn.GroupNorm):
    """An activation of its own comes before the norm."""

    def __init__(self) -> None:
        super().__init__(4, 8)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.act(x))


def test_a_limit_behind_the_norm_or_a_hook_there_makes_it_none() -> None:
    assert "n" not in ChannelGraph(build(lambda: Limited(4, 8)), torch.randn(2, 3, 6, 6)).layers
    model = build(NORMS["group"])
    model.n.register_forward_hook(lambda module, inputs, output: output.clamp(-1000, 1000))
    assert "n" not in ChannelGraph(model, torch.randn(2, 3, 6, 6)).layers


def test_an_activation_before_the_norm_stays() -> None:
    model, images = build(ActivatedFirst), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert graph.layers["n"].kind is LayerKind.AFFINE
    check_conversion(model, graph, images)


class Counted(nn.GroupNorm):
    """Takes note of its runs in float64."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.runs += x.dtype == torch.float64
        return super().forward(x)


def test_a_norm_is_tried_once_for_all_walks() -> None:
    """The groups of `g` are added up, so the ids flow twice; constants need a trace at another size."""
    model = three(
        behind_b(lambda net, x: net.g(net.n(net.a(x))).unflatten(1, (2, 4)).sum(1)),
        n=Counted(4, 8),
        g=conv(8, 8, groups=2),
        b=conv(4, 6),
    )
    graph = ChannelGraph(model.eval(), torch.randn(2, 3, 6, 6))
    assert graph.layers["g"].kind is LayerKind.ALIKE
    assert Counted.runs == 6  # three scales of the input, each with two scales of weight and bias
