"""Networks with forwards of every kind, and what must hold of the channels that flow through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import explain
from rr.conversion import convert, rehearse
from rr.graph import ChannelGraph, Inputs, LiveModel
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive

# A forward, its modules, and names of layers.
Case = tuple[Callable[..., object], dict[str, object], str]


def three(forward: Callable[..., Tensor], **modules: object) -> Net:
    """A network with a 3x3 convolution `a` to 8 channels, `b` from 8 to 6 channels and the classifier `fc`."""
    return Net(forward, **{"a": conv(3, 8), "b": conv(8, 6), "fc": nn.Linear(6, 2)} | modules)


def behind_b(function: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """A forward in which `function` gives `b` its input."""
    return lambda net, x: head(net, F.relu(net.b(function(net, x))))


class NormWithActivation(nn.BatchNorm2d):
    """BN and activation in one module, as timm has it: a hook behind it comes after the activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


def check_conversion(model: nn.Module, graph: ChannelGraph, images: Inputs) -> None:
    """Half of the prunable units dead, behind dense compactors: exact, and at the predicted MACs."""
    selected = graph.prunable
    alive = random_alive(graph, selected, 0.5, seed=1)
    insert_generic_compactors(model, graph, selected, alive)
    _, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert report.dropped == (~alive).sum() > 0
    assert report.parameters_after == graph.parameters(alive)


def check_exact(forward: Callable[..., object], modules: Mapping[str, object], prunable: str) -> None:
    """The outputs of these layers may all be pruned, by the rules and in a rehearsal, and a conversion is exact."""
    torch.manual_seed(0)
    model, images = generic(three(forward, **modules)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    by_the_rules = graph.prunable
    graph = rehearse(model, graph, images, graph.prunable)
    assert (graph.prunable == by_the_rules).all(), explain(graph)  # none of these has sizes of its own
    for layer in prunable.split():
        assert graph.prunable[graph.layers[layer].out_units].all(), explain(graph)
    check_conversion(model, graph, images)


def check_unprunable(
    forward: Callable[..., object], modules: Mapping[str, object], unprunable: str, only_rehearsed: bool = False
) -> None:
    """No output of these layers may be pruned, each for a reason; the rules know, or only a rehearsal does."""
    torch.manual_seed(0)
    model, images = generic(three(forward, **modules)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    by_the_rules = graph.prunable
    graph = rehearse(model, graph, images, graph.prunable)
    assert (graph.prunable == by_the_rules).all() == (not only_rehearsed), explain(graph)
    for name in unprunable.split():
        if name in graph.layers:  # an unknown layer is none
            layer = graph.layers[name]
            assert not graph.prunable[layer.out_units].any()
            assert all(len(graph.reasons[int(unit)]) > 10 for unit in layer.out_units)
    assert explain(graph)
    if graph.prunable.any():
        check_conversion(model, graph, images)
