"""Channels through networks as a whole: what has no rule is unprunable, and its reason says where."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from rr import explain
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from tests.rr.flows import Case, behind_b, check_conversion, check_unprunable, three
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive

# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "fft": (behind_b(lambda net, x: torch.fft.fft(net.a(x), dim=1).real), {}, "a"),
    "cumsum": (behind_b(lambda net, x: net.a(x).cumsum(1)), {}, "a"),
    "comparison": (behind_b(lambda net, x: (lambda y: torch.where(y > 0, y, 0.1))(net.a(x))), {}, "a"),
    "layer norm": (behind_b(lambda net, x: net.n(net.a(x))), {"n": nn.GroupNorm(1, 8)}, "a"),
    "reordered by index": (behind_b(lambda net, x: net.a(x)[:, torch.tensor([1, 0, 3, 2, 4, 5, 6, 7])]), {}, "a"),
    "network's output": (lambda net, x: (head(net, net.b(net.a(x))), net.c(x)), {"c": conv(3, 4)}, "c fc"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


def test_reasons_say_where() -> None:
    model = three(behind_b(lambda net, x: net.soft(net.a(x))), soft=nn.Softmax(1))
    graph = ChannelGraph(model, torch.randn(1, 3, 6, 6))
    assert {graph.reasons[int(unit)] for unit in graph.layers["a"].out_units} == {
        "passes through softmax in soft, which adds up exp(x) of the channels, which is 1 for a dead one's zero"
    }
    line = next(line for line in explain(graph).splitlines() if line.startswith("a "))
    assert line.endswith("which is 1 for a dead one's zero")


def test_part_of_a_layer_may_be_unprunable() -> None:
    """Concatenated, then one half of the layers through an unknown operation: the others stay prunable."""
    model = Net(
        lambda net, x: head(net, net.b(torch.cat([F.relu(net.a(x)), net.c(x).renorm(2, 1, 1.0)], 1))),
        **{"a": conv(3, 8), "c": conv(3, 5), "b": conv(13, 6), "fc": nn.Linear(6, 2)},
    )
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert graph.prunable[graph.layers["a"].out_units].all()
    assert not graph.prunable[graph.layers["c"].out_units].any()


def test_several_inputs_and_integers() -> None:
    torch.manual_seed(0)
    model = Net(
        lambda net, words, x: net.fc(F.relu(net.a(net.e(words))).mean(1) * F.relu(net.b(x))),
        **{"e": nn.Embedding(10, 8), "a": nn.Linear(8, 6), "b": nn.Linear(4, 6), "fc": nn.Linear(6, 2)},
    )
    inputs = (torch.randint(0, 10, (2, 5)), torch.randn(2, 4))
    graph = ChannelGraph(model, inputs)
    assert graph.prunable.sum() == 6
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    assert convert(LiveModel(model, graph), inputs)[1].float64_difference <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "squeezenet1_1",
        pytest.param("mobilenet_v2", marks=pytest.mark.long),
        pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.long),
    ],
)
def test_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    model = generic(torchvision.models.get_model(name, weights=None, num_classes=10)).eval()
    images = torch.randn(2, 3, 64, 64)
    graph = ChannelGraph(model, images)
    units = sum(len(group.units) for group in graph.groups if group.producers)
    assert graph.prunable.sum() == units - 10  # all but the classes
    check_conversion(model, graph, images)
