"""Parameters against those of the converted network, targets, and the multiples in which widths go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from base_model import build_model
from rr.compactors import insert_compactors
from rr.conversion import fold
from rr.graph import ChannelGraph, LayerKind, LiveModel
from rr.graph.costs import Target
from tests.rr.networks import Net, Networks, conv, generic, head, insert_generic_compactors, random_alive
from tests.rr.random_networks import EXAMPLES, RandomNet


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def everything(graph: ChannelGraph) -> np.ndarray:
    return np.ones(graph.num_units, dtype=bool)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["src20", "vc", "lenet5bn", "smi1", "smi1_cifar", "sres50"])
@pytest.mark.parametrize("layers", ["internal", "all"])
def test_parameters_are_those_of_the_converted_network(name: str, layers: str, traced: Networks) -> None:
    model, _, graph = traced[name]
    assert graph.parameters.full == numbers(model)
    for dead in (0.0, 0.3, 1.0):
        alive = random_alive(graph, graph.select(layers), dead)
        assert graph.parameters(alive) == numbers(fold(LiveModel(model, graph), alive))


def biases_that_may_come(model: nn.Module, slim: nn.Module, graph: ChannelGraph, alive: np.ndarray) -> int:
    """How many biases the count allows for that the conversion didn't need: no dead input left a constant."""
    layers = [
        layer
        for layer in graph.layers.values()
        if layer.kind in (LayerKind.CONV, LayerKind.LINEAR) and layer.norm is None
    ]
    layers = [layer for layer in layers if len(layer.nodes) == 1]
    without = [layer for layer in layers if model.get_submodule(layer.name).bias is None]
    unused = [layer for layer in without if slim.get_submodule(layer.name).bias is None]
    return sum(int(alive[layer.out_units].sum()) for layer in unused if not alive[layer.in_units].all())


@pytest.mark.long
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**16), dead=st.sampled_from([0.2, 0.5, 0.9]))
def test_parameters_of_random_networks(data: st.DataObject, seed: int, dead: float) -> None:
    torch.manual_seed(seed)
    model = generic(data.draw(st.composite(RandomNet)())).eval()
    graph = ChannelGraph(model, torch.randn(2, 3, 8, 8))
    cost = graph.parameters
    assert cost.full == numbers(model)
    assert cost(everything(graph)) == numbers(fold(LiveModel(model, graph), everything(graph)))
    if not graph.prunable.any():
        event("nothing prunable")
        return
    alive = random_alive(graph, graph.prunable, dead, seed)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim = fold(LiveModel(model, graph), alive)
    unused = biases_that_may_come(model, slim, graph, alive)
    assert cost(alive) == numbers(slim) + unused
    event(f"exact: {unused == 0}")

    costs = [cost(everything(graph))]
    going = everything(graph)
    for unit in np.random.default_rng(seed).permutation(np.flatnonzero(graph.prunable)):
        going[unit] = False
        costs.append(cost(going))
    assert costs == sorted(costs, reverse=True)


def test_a_bias_that_dead_inputs_bring_is_counted() -> None:
    """`b` has neither bias nor BN, and dead channels of `a` reach it as sigmoid(0)."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: head(net, F.relu(net.b(net.a(x).sigmoid()))),
        a=conv(3, 8),
        b=conv(8, 6, kernel=1, bias=False),
        fc=nn.Linear(6, 2),
    )
    graph = ChannelGraph(model, torch.randn(1, 3, 6, 6))
    alive = everything(graph)
    assert graph.parameters(alive) == numbers(model)
    alive[graph.layers["a"].out_units[:3]] = False
    slim = fold(LiveModel(model, graph), alive)
    assert slim.b.bias.shape == (6,)
    assert graph.parameters(alive) == numbers(slim)


def test_parameters_beside_the_layers_are_counted_once() -> None:
    """Of a layer called twice, one never called, one tied to another, and the model's own."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.twice(F.relu(net.twice(F.relu(net.a(x))))))
        return net.scale * head(net, F.relu(net.b(x)))

    modules = {"a": conv(3, 8), "twice": conv(8, 8), "b": conv(8, 6), "idle": conv(8, 6), "fc": nn.Linear(6, 2)}
    model = Net(forward, **modules, scale=nn.Parameter(torch.ones(())), spare=nn.Linear(6, 2))
    model.idle.bias = model.b.bias
    graph = ChannelGraph(model, torch.randn(1, 3, 6, 6))
    assert graph.parameters.full == numbers(model)
    alive = random_alive(graph, graph.prunable, 0.5)
    assert not alive.all()
    for tried in (everything(graph), alive):
        assert graph.parameters(tried) == numbers(fold(LiveModel(model, graph), tried))


@pytest.mark.slow
def test_compactors_do_not_count() -> None:
    model = build_model("src20")
    images = torch.randn(1, 3, 16, 16)
    plain = ChannelGraph(model, images)
    insert_compactors(model, {site.host: len(site.units) for site in plain.sites.values()})
    graph = ChannelGraph(model, images)
    alive = random_alive(plain, plain.select("all"), 0.5)
    assert graph.parameters.full == plain.parameters.full
    assert graph.parameters(alive) == plain.parameters(alive)


@pytest.mark.parametrize(("value", "limit"), [(0.25, 250), (1.0, 1000), (2, 2), (640, 640), (3e6, 3e6)])
def test_targets_are_shares_or_numbers(value: float, limit: float) -> None:
    class Cost:
        full = 1000

        @staticmethod
        def of_group_widths(widths: np.ndarray) -> float:
            return float(widths.sum())

    target = Target("flops_target", value, Cost(), "MACs")
    assert target.limit == limit
    assert target.met(np.array([limit - 1, 1]))
    assert not target.met(np.array([limit, 1]))
    assert target.describe(np.array([100, 25])) == "0.1250 of the MACs (125)"


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 6, 8, 12, 16])
@pytest.mark.parametrize("outputs", [12, 36, 48, 96])
def test_multiples_in_units_of_several_channels(multiple: int, outputs: int) -> None:
    """A unit is a whole group of `g` with its four inputs out of `a`; `b` has units of one channel."""
    model = Net(
        lambda net, x: head(net, F.relu(net.b(F.relu(net.g(F.relu(net.a(x))))))),
        a=conv(3, 48),
        g=conv(48, outputs, groups=12),
        b=conv(outputs, 40),
        fc=nn.Linear(40, 2),
    )
    graph = ChannelGraph(model, torch.randn(1, 3, 6, 6))
    multiples = graph.multiples_in_units(multiple)
    (of_b,) = set(multiples[graph.macs.group_of_unit[graph.layers["b"].out_units]])
    (of_a,) = set(multiples[graph.macs.group_of_unit[graph.layers["a"].out_units]])
    assert of_b == multiple
    fits = [units for units in range(1, 49) if 4 * units % multiple == 0 and outputs // 12 * units % multiple == 0]
    assert of_a == fits[0]


def test_a_network_without_a_layer_that_is_understood_costs_what_it_costs() -> None:
    """Weights of one bit: every convolution computes its own."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(F.conv2d(x, net.a.weight.sign())), net.b.weight.sign())

    model = Net(forward, a=conv(3, 8, bias=False), b=conv(8, 4, bias=False))
    graph = ChannelGraph(model, torch.randn(1, 3, 8, 8))
    assert not graph.prunable.any()
    assert graph.macs(everything(graph)) == 9 * (3 * 8 * 6 * 6 + 8 * 4 * 4 * 4)
    assert graph.parameters(everything(graph)) == numbers(model)
