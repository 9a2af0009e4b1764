"""What a dead channel becomes on its way to the next layer: depthwise layers, BN without a convolution, padding."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, explain, paper_config
from rr.conversion import ConversionError, convert
from rr.graph import ChannelGraph, LiveModel
from rr.graph.dead_constants import dead_constants
from rr.graph.tensors import in_float64, named_tensors
from tests.rr.flows import three
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive


def separable(
    activation: Callable[[Tensor], Tensor] = F.relu,
    eps: float = 1e-5,
    bias: bool = False,
    norm: bool = True,
    kernel: int = 1,
    **options: object,
) -> Net:
    """conv-BN, depthwise conv(-BN) and a kernel x kernel convolution, each with the activation behind it."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = activation(net.bn1(net.conv1(x)))
        x = net.depthwise(x)
        x = activation(net.bn2(x) if norm else x)
        return head(net, activation(net.conv2(x)))

    torch.manual_seed(0)
    modules = {
        "conv1": conv(3, 10, bias=bias),
        "bn1": nn.BatchNorm2d(10, eps=eps),
        "depthwise": conv(10, 10, groups=10, bias=bias),
        "bn2": nn.BatchNorm2d(10, eps=eps) if norm else nn.Identity(),
        "conv2": nn.Conv2d(10, 8, kernel, **options),
        "fc": nn.Linear(8, 3),
    }
    model = generic(Net(forward, **modules)).eval()
    if norm:
        nn.init.uniform_(model.bn2.bias, 1, 2)  # dead channels become constants that no ReLU hides
    return model


IMAGES = torch.randn(3, 3, 7, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": False, "bias": True},
        {"eps": 0.1},
        {"activation": torch.sigmoid},  # a dead channel is 0.5 already in front of the depthwise layer
        {"activation": lambda x: F.dropout(F.leaky_relu(x, 0.1), 0.5, training=False)},
        {"kernel": 3, "stride": 2, "bias": True},
        *(
            pytest.param(options, marks=pytest.mark.long)
            for options in (
                *({"bias": True}, {"norm": False}, {"eps": 1e-3, "bias": True}),
                *({"activation": F.relu6}, {"activation": F.hardswish}),
                *({"kernel": 3}, {"kernel": 3, "padding": "valid"}),
            )
        ),
    ],
    ids=lambda options: re.sub(r" at 0x\w+", "", str(options)),  # the same in every process
)
def test_constants_go_into_the_bias_exactly(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    sigmoid = options.get("activation") is torch.sigmoid
    model = separable(**options)
    graph = ChannelGraph(model, IMAGES)
    units = graph.layers["conv1"].out_units
    assert graph.prunable[units].all()
    assert ("depthwise" in graph.sites) == sigmoid  # ... whose padding cuts that constant at the border
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    _, report = convert(LiveModel(model, graph), IMAGES)
    assert report.float64_difference <= 1e-12
    assert report.dropped == (~alive).sum()
    assert report.macs_after == graph.macs(alive) < report.macs_before
    if "norm" not in options and not sigmoid:
        monkeypatch.setattr("rr.conversion.folding.dead_constants", lambda *_: {})
        with pytest.raises(ConversionError, match="float64_difference"):
            convert(LiveModel(model, graph), IMAGES)


def check(model: nn.Module, graph: ChannelGraph) -> nn.Module:
    """All may go, and half of it goes exactly, behind compactors far from the identity."""
    assert graph.prunable[graph.layers["conv1"].out_units].all()
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), IMAGES)
    assert report.float64_difference <= 1e-12
    assert report.dropped == (~alive).sum() > 0
    return slim


def constants_of(graph: ChannelGraph, model: nn.Module, alive: np.ndarray) -> dict[str, Tensor]:
    tensors = named_tensors(model)
    return dead_constants(graph, alive, lambda name: in_float64(tensors[name]))


def test_the_constant_of_a_mobilenet_block() -> None:
    model = separable(eps=1e-3).double()
    graph = ChannelGraph(model, IMAGES)
    dead = [1, 4, 5, 8]
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["conv1"].out_units[dead]] = False
    found = constants_of(graph, model, alive)
    assert list(found) == ["conv2"]
    bn = model.bn2
    constant = F.relu(bn.bias - bn.running_mean * bn.weight / torch.sqrt(bn.running_var + 1e-3))[dead]
    assert (constant > 0).any()
    torch.testing.assert_close(found["conv2"], model.conv2.weight[:, dead, 0, 0] @ constant, rtol=1e-14, atol=1e-14)
    assert constants_of(graph, model, np.ones(graph.num_units, dtype=bool)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("padding", [1, (0, 1), "same"])
def test_a_padded_consumer_behind_a_depthwise_layer_gets_a_diagonal_compactor(padding: object) -> None:
    model = separable(kernel=3, padding=padding)
    graph = ChannelGraph(model, IMAGES)
    assert [(site.layer, site.host, site.groups) for site in graph.sites.values()] == [
        ("conv1", "bn1" if "bn1" in graph.layers else "conv1", 1),
        ("depthwise", "bn2", len(graph.layers["depthwise"].out_units)),
        ("conv2", "conv2", 1),
        ("fc", "fc", 1),
    ]
    check(model, graph)


def test_where_no_compactor_can_stand_the_constant_makes_units_unprunable() -> None:
    net = Net(
        lambda net, x: head(net, net.conv2(net.conv1(x).sigmoid())),
        **{"conv1": conv(3, 8), "conv2": conv(8, 4), "fc": nn.Linear(4, 2)},
    )
    graph = ChannelGraph(generic(net).eval(), IMAGES)
    for unit in graph.layers["conv1"].out_units:
        assert graph.reasons[int(unit)] == "when dead, a constant that padding cuts at the border reaches conv2"
    assert graph.prunable[graph.layers["conv2"].out_units].all()
    assert "reaches conv2" in explain(graph)


def test_what_can_not_go_in_the_end_has_no_compactor_on_the_way() -> None:
    """The BN's constant could be silenced, the sigmoid's could not: so there is nothing to silence."""
    net = Net(
        lambda net, x: (lambda y: head(net, net.b(net.bn(y.relu())) + net.c(y.sigmoid())))(net.a(x)),
        **{"a": conv(3, 8), "bn": nn.BatchNorm2d(8), "b": conv(8, 4), "c": conv(8, 4), "fc": nn.Linear(4, 2)},
    )
    graph = ChannelGraph(generic(net).eval(), IMAGES)
    assert not graph.prunable[graph.layers["a"].out_units].any()
    assert graph.prunable[graph.layers["b"].out_units].all()
    assert "bn" not in graph.sites


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 7])
@pytest.mark.parametrize("pool", [(3, 2, 1), (2,)])
def test_a_pool_that_counts_its_padding_asks_for_a_diagonal_compactor(pool: tuple[int, ...], size: int) -> None:
    """Also where the example is so small that all of the pool's outputs see the same padding."""
    net = Net(
        lambda net, x: head(net, net.conv2(F.avg_pool2d(net.bn(net.conv1(x).relu()), *pool))),
        **{"conv1": conv(3, 8), "bn": nn.BatchNorm2d(8), "conv2": conv(8, 4, 1), "fc": nn.Linear(4, 2)},
    )
    model = generic(net).eval()
    graph = ChannelGraph(model, torch.randn(1, 3, size, size))
    assert ("bn" in graph.sites) == (len(pool) == 3)
    slim = check(model, graph)
    torch.testing.assert_close(slim(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_a_padded_depthwise_layer_cuts_is_silenced_whatever_the_image_size(size: int) -> None:
    """On a single pixel, or on two by two, a border can't be told from the rest; the network may see larger images."""
    net = Net(
        lambda net, x: head(net, net.conv2(net.d2(F.silu(net.bn(net.d1(net.conv1(x))))))),
        conv1=conv(3, 8),
        d1=conv(8, 8, groups=8),
        bn=nn.BatchNorm2d(8),
        d2=conv(8, 8, groups=8),
        conv2=conv(8, 4, 1),
        fc=nn.Linear(4, 2),
    )
    model = generic(net).eval()
    graph = ChannelGraph(model, torch.randn(1, 3, size, size))
    assert list(graph.sites) == ["conv1", "d2", "conv2", "fc"]
    slim = check(model, graph)
    torch.testing.assert_close(slim(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_depthwise_layer_with_several_outputs_per_channel() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: head(net, net.conv2(F.relu(net.bn(net.depthwise(F.relu(net.conv1(x))))))),
        conv1=conv(3, 6),
        depthwise=conv(6, 18, groups=6),
        bn=nn.BatchNorm2d(18),
        conv2=conv(18, 4, 1),
        fc=nn.Linear(4, 2),
    )
    model = generic(net).eval()
    graph = ChannelGraph(model, IMAGES)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["conv1"].out_units[[0, 3]]] = False
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), IMAGES)
    assert report.float64_difference <= 1e-12
    assert (slim.depthwise.groups, slim.depthwise.out_channels, slim.conv2.in_channels) == (4, 12, 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over_pixels", "is_pruned"),
    [
        (lambda x: x.mean(2), True),
        (lambda x: x.amax(2), True),
        (lambda x: x.sum(2), True),  # with a compactor of the depthwise layer's own, which silences it
        (lambda x: x.softmax(2).amax(2), False),
        (lambda x: x.log_softmax(2).amax(2), False),
    ],
)
def test_a_constant_that_hangs_on_the_image_size_is_none(over_pixels: Callable, is_pruned: bool) -> None:
    """Converted on images of one size, the network is equal on those of another."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.n(net.d(F.relu(net.a(x)))))
        return net.fc(F.relu(net.b(over_pixels(x.flatten(2)))))

    torch.manual_seed(0)
    layers = {"a": conv(3, 8), "d": nn.Conv2d(8, 8, 3, groups=8), "n": nn.BatchNorm2d(8)}
    model = generic(Net(forward, **layers, b=nn.Linear(8, 8), fc=nn.Linear(8, 3)))
    pruner = ResRepPruner(model, torch.randn(2, 3, 12, 12), paper_config(flops_target=0.999))
    alive = random_alive(pruner.graph, pruner.selected, 0.5)
    LiveModel(model, pruner.graph).zero_dead_rows(alive)
    slim = pruner.convert()
    assert (slim.a.out_channels < 8 or slim.d.in_channels < 8) == is_pruned
    assert slim.b.out_features < 8
    for size in (12, 20):
        images = torch.randn(2, 3, size, size)
        torch.testing.assert_close(slim(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_numbers_added_to_dead_channels() -> None:
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.fc(net.conv2(net.conv1(x) * 2 + 3).relu().mean((2, 3)) - 1),
        **{"conv1": conv(3, 8), "conv2": conv(8, 6, 1), "fc": nn.Linear(6, 2)},
    )
    graph = ChannelGraph(model, IMAGES)
    assert graph.prunable[graph.layers["conv1"].out_units].all()
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    assert convert(LiveModel(model, graph), IMAGES)[1].float64_difference <= 1e-12


@pytest.mark.slow
def test_constants_that_are_rounded_differently_from_place_to_place_are_one() -> None:
    """The last elements of a tensor miss the vector unit: Mish of one number isn't the same number everywhere."""
    numbers = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert any(len(F.mish(number.expand(24).clone()).unique()) > 1 for number in numbers)  # else nothing is tested
    net = Net(
        lambda net, x: head(net, net.conv2(F.mish(net.bn(net.conv1(x).relu())))),
        **{"conv1": conv(3, 8, 1), "bn": nn.BatchNorm2d(8), "conv2": conv(8, 4, 1), "fc": nn.Linear(4, 2)},
    ).eval()
    graph = ChannelGraph(net, torch.randn(1, 3, 3, 1))
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["conv1"].out_units[1:]] = False
    for seed in range(60):
        torch.manual_seed(seed)
        model = generic(net).double()
        bias = constants_of(graph, model, alive)["conv2"]
        constants = F.mish(model.bn(torch.zeros(1, 8, 1, 1, dtype=torch.float64)))[0, 1:, 0, 0]
        torch.testing.assert_close(bias, model.conv2.weight[:, 1:, 0, 0] @ constants, rtol=1e-12, atol=1e-12)


def test_constants_that_a_pixel_shuffle_sets_side_by_side_are_no_single_one() -> None:
    """Each channel behind the grouped layer has a constant of its own; shuffled, four of them share one channel."""
    net = Net(
        lambda net, x: head(net, net.conv2(F.pixel_shuffle(net.bn2(net.wide(net.bn1(net.conv1(x)).relu())), 2))),
        **{
            **{"conv1": conv(3, 4), "bn1": nn.BatchNorm2d(4), "wide": nn.Conv2d(4, 16, 1, groups=4)},
            **{"bn2": nn.BatchNorm2d(16), "conv2": conv(4, 6, 1), "fc": nn.Linear(6, 2)},
        },
    )
    torch.manual_seed(0)
    model = generic(net).eval()
    check(model, ChannelGraph(model, IMAGES))


def test_constants_that_are_equal_only_when_all_parameters_are() -> None:
    """What two layers make of a dead channel cancels for some values of the parameters, not for all."""
    net = Net(
        lambda net, x: (lambda y: head(net, net.conv2(net.left(y) - net.right(y))))(net.conv1(x).relu()),
        **{
            **{"conv1": conv(3, 8), "left": nn.BatchNorm2d(8), "right": nn.BatchNorm2d(8)},
            **{"conv2": conv(8, 4), "fc": nn.Linear(4, 2)},
        },
    )
    torch.manual_seed(0)
    model = generic(net).eval()
    check(model, ChannelGraph(model, IMAGES))


def test_what_dead_channels_become_in_eval_mode_alone_counts() -> None:
    """An auxiliary head has the training forward traced; what only eval mode adds is another constant there."""

    def forward(net: nn.Module, x: Tensor) -> object:
        y = F.relu(net.a(x))
        if net.training:
            return head(net, net.b(y)), net.aux(y.mean((2, 3)))
        return head(net, net.b(y + 0.5))

    model = generic(three(forward, aux=nn.Linear(8, 2))).eval()
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    reasons = {graph.reasons.get(int(unit), "") for unit in graph.layers["a"].out_units}
    assert all("in eval mode" in reason for reason in reasons)


def test_what_a_probe_does_not_show_stays_as_zeros_at_the_end() -> None:
    """relu(x - 10) hides every constant that a probe makes, and not what training has made of the shift."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(net.n(net.d(F.relu(net.a(x)))) - 10)
        return head(net, net.b(x))

    torch.manual_seed(0)
    model, images = generic(three(forward, d=conv(8, 8, groups=8), n=nn.BatchNorm2d(8))).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    model.n.bias.data.fill_(20.0)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert slim.a.out_channels == 8
    assert slim.b.out_channels == int(alive[graph.layers["b"].out_units].sum()) < 6
