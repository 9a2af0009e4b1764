"""The channel graph: the original's tables, units, MACs against torch's counter, the choice of layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from base_model import build_model, full_widths
from rr import explain
from rr.compactors import find_compactors
from rr.graph import ChannelGraph, LayerKind
from rr.graph.costs import macs_of_layer
from tests.long_cases import every_value_once
from tests.rr.networks import SIZES, Net, Networks, conv, generic, head, random_alive

Tables = tuple[dict[int, list[int]], dict[int, int]]


def cifar_resnet_tables(blocks: int) -> Tables:
    """Stem 0, then per stage (its projection and) the blocks' two convolutions; the classifier is last."""
    successors, leaders, layer = {}, {}, 0
    for stage in range(3):
        if stage > 0:
            layer += 1  # the projection reads what the last block of the stage before reads
            successors[layer - 1] = [layer, layer + 1]
        leader = layer
        for block in range(blocks):
            conv1, conv2 = layer + 1, layer + 2
            if block > 0 or stage == 0:
                successors[layer] = [conv1]
            successors[conv1] = [conv2]
            leaders[conv2] = leader
            layer = conv2
    successors[layer] = [layer + 1]
    return successors, leaders


def imagenet_resnet_tables(blocks_per_stage: tuple[int, ...]) -> Tables:
    """Stem 0, then per stage its projection and the blocks' three convolutions; the classifier is last."""
    successors, leaders, layer = {}, {}, 0
    for blocks in blocks_per_stage:
        projection = layer + 1
        successors[layer] = [projection, projection + 1]
        layer = projection
        for block in range(blocks):
            if block > 0:
                successors[layer] = [layer + 1]
            successors[layer + 1] = [layer + 2]
            successors[layer + 2] = [layer + 3]
            layer += 3
            leaders[layer] = projection
    successors[layer] = [layer + 1]
    return successors, leaders


def chain(layers: int) -> dict[int, list[int]]:
    return {layer: [layer + 1] for layer in range(layers - 1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("src56", cifar_resnet_tables(9)),
        ("sres50", imagenet_resnet_tables((3, 4, 6, 3))),
        ("vc", (chain(15), {})),
        ("smi1", (chain(28), {depthwise: depthwise - 1 for depthwise in range(1, 27, 2)})),
    ],
)
def test_the_traced_tables_are_the_originals(name: str, tables: Tables, traced: Networks) -> None:
    graph = traced[name][2]
    assert (graph.succeeding_strategy(), graph.follow_dict()) == tables
    assert graph.widths(np.ones(graph.num_units, dtype=bool)) == full_widths(name)


@pytest.mark.slow
def test_the_tables_of_resnet56_hold_the_documented_entries(traced: Networks) -> None:
    graph = traced["src56"][2]
    documented = {1: [2], 3: [4], 18: [19, 20], 37: [38, 39], 56: [57]}
    assert documented.items() <= graph.succeeding_strategy().items()
    assert {2: 0, 4: 0, 18: 0, 21: 19}.items() <= graph.follow_dict().items()
    assert len(graph.widths(graph.prunable)) == 57


@pytest.mark.slow
def test_the_units_of_resnet50(traced: Networks) -> None:
    model, _, graph = traced["sres50"]
    assert sum(len(group.units) for group in graph.groups if len(group.producers) > 1) == 256 + 512 + 1024 + 2048
    internal = graph.select("internal")
    assert internal.sum() == 7616  # with the stem's 64
    paper = graph.select("internal", exclude=("conv1.*",))
    assert paper.sum() == 7552
    names = {
        layer.name for layer in graph.layers.values() if paper[layer.out_units].any() and layer.kind is LayerKind.CONV
    }
    assert names == {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and ".block" in name and ("conv1" in name or "conv2" in name)
    }
    everything = graph.select("all")
    assert everything.sum() == 7616 + 256 + 512 + 1024 + 2048


@pytest.mark.slow
def test_internal_layers_of_resnet56_are_the_first_of_each_block(traced: Networks) -> None:
    graph = traced["src56"][2]
    selected = graph.select("internal")
    names = [
        layer.name
        for layer in graph.layers.values()
        if selected[layer.out_units].any() and layer.kind is LayerKind.CONV
    ]
    assert names == [f"stage{stage}.block{block}.conv1.conv" for stage in (1, 2, 3) for block in range(9)]


@pytest.mark.slow
@pytest.mark.parametrize(
    *every_value_once(
        {"name": ["src20", "vc", "lenet5bn", "smi1", "smi1_cifar", "sres50"], "layers": ["internal", "all"]}
    )
)
def test_macs_are_half_of_torchs_flops_of_the_narrow_network(name: str, layers: str, traced: Networks) -> None:
    _, images, graph = traced[name]
    selected = graph.select(layers)
    for dead in (0.0, 0.3, 0.8, 1.0):
        alive = random_alive(graph, selected, dead, seed=int(10 * dead))
        with torch.device("meta"):
            narrow = build_model(name, widths=graph.widths(alive), num_classes=10, image_size=SIZES[name]).eval()
        with FlopCounterMode(display=False) as counter:
            narrow(images[:1].to("meta"))
        assert graph.macs(alive) == counter.get_total_flops() // 2
        layer_macs = sum(
            macs_of_layer(item, alive) for item in graph.layers.values() if item.kind is not LayerKind.NORM
        )
        assert layer_macs == graph.macs(alive)


def test_macs_of_grouped_convolutions() -> None:
    model = Net(
        lambda net, x: head(net, F.relu(net.grouped(F.relu(net.a(x))))),
        a=conv(3, 8),
        grouped=conv(8, 12, groups=4),
        fc=nn.Linear(12, 2),
    )
    images = torch.randn(1, 3, 7, 5)
    graph = ChannelGraph(model, images)
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == counter.get_total_flops() // 2


def test_macs_of_transposed_convolutions() -> None:
    """By the input's pixels, each of which meets the whole kernel; so much goes with half of the channels, too."""
    model = Net(lambda net, x: head(net, net.t(x)), t=nn.ConvTranspose2d(3, 8, 3, stride=2), fc=nn.Linear(8, 2))
    images = torch.randn(1, 3, 7, 5)
    graph = ChannelGraph(model, images)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["t"].out_units[:4]] = False
    model.t, model.fc = nn.ConvTranspose2d(3, 4, 3, stride=2), nn.Linear(4, 2)
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert graph.macs(alive) == counter.get_total_flops() // 2


def test_macs_of_images_that_are_stacked_into_the_batch() -> None:
    """Two frames, a clip's frames: each layer runs on more images than there are examples."""

    def forward(net: Net, x: Tensor) -> Tensor:
        both = F.relu(net.t(F.relu(net.a(torch.cat([x, x.flip(3)])))))
        return net.fc((both[: len(x)] * both[len(x) :]).mean((2, 3)))

    model = Net(forward, a=conv(3, 8), t=nn.ConvTranspose2d(8, 6, 2, 2), fc=nn.Linear(6, 2))
    images = torch.randn(2, 3, 7, 5)
    graph = ChannelGraph(model, images)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["a"].out_units[:4]] = False
    alive[graph.layers["t"].out_units[:3]] = False
    model.a, model.t, model.fc = conv(3, 4), nn.ConvTranspose2d(4, 3, 2, 2), nn.Linear(3, 2)
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert graph.macs(alive) == counter.get_total_flops() // (2 * len(images))


def test_macs_of_layers_without_a_rule_are_counted_too() -> None:
    """A convolution called twice can't be pruned, but it costs; what is pruned beside it is taken off exactly."""
    model = Net(
        lambda net, x: head(net, F.relu(net.b(F.relu(net.twice(F.relu(net.twice(net.a(x)))))))),
        a=conv(3, 8),
        twice=conv(8, 8),
        b=conv(8, 6),
        fc=nn.Linear(6, 2),
    )
    images = torch.randn(2, 3, 7, 5)
    graph = ChannelGraph(model, images)

    def counted() -> int:
        with FlopCounterMode(display=False) as counter:
            model(images)
        return counter.get_total_flops() // (2 * len(images))

    alive = np.ones(graph.num_units, dtype=bool)
    assert graph.macs(alive) == counted()
    alive[graph.layers["b"].out_units[:4]] = False
    model.b, model.fc = conv(8, 2), nn.Linear(2, 2)
    assert graph.macs(alive) == counted()


@pytest.mark.slow
def test_a_graph_is_the_same_with_compactors_in_the_model() -> None:
    model = generic(build_model("src20"))
    images = torch.randn(1, 3, 16, 16)
    plain = ChannelGraph(model, images)
    plain.insert_compactors(model, np.ones(plain.num_units, dtype=bool))
    names, modes = list(model.state_dict()), [module.training for module in model.modules()]
    graph = ChannelGraph(model, images)
    assert explain(graph) == explain(plain)
    assert {name: site.units.tolist() for name, site in graph.sites.items()} == {
        name: site.units.tolist() for name, site in plain.sites.items()
    }
    assert list(model.state_dict()) == names
    assert [module.training for module in model.modules()] == modes
    assert not any(compactor.bypassed for compactor in find_compactors(model).values())


@pytest.mark.slow
def test_hosts_are_the_conv_bn_modules(traced: Networks) -> None:
    for name in ("src20", "smi1_cifar", "sres50", "lenet5bn"):
        graph = traced[name][2]
        for site in graph.sites.values():
            expected = site.layer.removesuffix(".conv") if site.layer.endswith(".conv") else site.layer
            assert site.host == expected


@pytest.mark.slow
def test_nobody_writes_into_a_graph(traced: Networks) -> None:
    graph = traced["src20"][2]
    layer, site = graph.layers["stage1.conv1.conv"], next(iter(graph.sites.values()))
    arrays = [layer.out_units, layer.in_units, site.units, graph.groups[0].units]
    for array in (*arrays, graph.macs.group_of_unit, graph.macs.group_sizes, graph.parameters.group_sizes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    for names in (graph.layers, graph.sites, graph.reasons):
        with pytest.raises(TypeError):
            names["another"] = "thing"


@pytest.mark.slow
def test_select_by_patterns(traced: Networks) -> None:
    graph = traced["src20"][2]

    def names(**choice: object) -> list[str]:
        selected = graph.select(**choice)
        return [site.layer.removesuffix(".conv") for site in graph.sites.values() if selected[site.units].any()]

    assert names(include=("stage1.*",)) == [f"stage1.block{block}.conv1" for block in range(3)]
    assert names(include=("stage?.block0*",), exclude=("stage2.*",)) == ["stage1.block0.conv1", "stage3.block0.conv1"]
    stream = ["stage1.conv1", *(f"stage1.block{block}.conv2" for block in range(3))]
    assert sorted(set(names(layers="all")) - set(names(layers="all", exclude=("stage1.conv1.conv",)))) == sorted(stream)
    assert names(layers="all", include=("stage1.conv1.*", "stage1.block*.conv2.*")) == stream
    for choice, message in [
        ({"layers": "tricky"}, "'internal' or 'all'"),
        ({"include": ("stage9.*",)}, r"include has a pattern that fits no layer, 'stage9\.\*'; layers are"),
        ({"exclude": ("block0",)}, "exclude has a pattern that fits no layer"),
        ({"include": ("linear",)}, "no prunable channels"),
        ({"include": ("stage1.conv1.*",), "layers": "all"}, "leave no layer to prune with"),  # a part of a stream
    ]:
        with pytest.raises(ValueError, match=message):
            graph.select(**choice)


def test_a_gate_makes_no_stream() -> None:
    """What multiplies goes together, and is inside of its block all the same: only additions run past blocks."""
    model = Net(
        lambda net, x: head(net, net.a(x) * torch.sigmoid(net.gate(x))),
        **{"a": conv(3, 8), "gate": conv(3, 8), "fc": nn.Linear(8, 2)},
    )
    graph = ChannelGraph(model, torch.randn(1, 3, 6, 6))
    assert graph.layers["a"].out_units.tolist() == graph.layers["gate"].out_units.tolist()
    assert graph.streams == set()
    assert graph.select("internal")[graph.layers["a"].out_units].all()


def test_counted_are_the_units_that_the_forward_cuts_or_groups() -> None:
    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        first, second = net.cut(x).chunk(2, 1)
        grouped = net.grouped(x).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        return head(net, net.plain(F.relu(first * second)) + net.b(grouped))

    modules = {"cut": conv(3, 8), "grouped": conv(3, 8), "plain": conv(4, 6), "b": conv(8, 6), "fc": nn.Linear(6, 2)}
    graph = ChannelGraph(Net(forward, **modules), torch.randn(1, 3, 6, 6))
    assert graph.counted == {int(unit) for name in ("cut", "grouped") for unit in graph.layers[name].out_units}


def test_explain_has_a_line_per_layer(traced: Networks) -> None:
    model, _, graph = traced["src20"]
    lines = explain(graph).splitlines()
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert [line.split()[0] for line in lines] == ["layer", *layers]
    by_name = dict(zip(layers, lines[1:], strict=True))
    assert by_name["stage1.block0.conv1.conv"].endswith(" yes")
    assert "with stage1.block0.conv2.conv, stage1.block1.conv2.conv" in by_name["stage1.conv1.conv"]
    assert by_name["linear"].endswith("a channel of the network's output")
    shares = [float(line.split("%")[0].split()[-1]) for line in lines[1:]]
    assert sum(shares) == pytest.approx(100, abs=1)
