"""Blocks past which a residual runs leave altogether, exactly; everything else keeps a channel."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from base_model import build_any
from rr import ResRepPruner, paper_config
from rr.compactors import find_compactors
from rr.conversion import convert, rehearse_vanishing
from rr.graph import ChannelGraph, LiveModel
from rr.graph.vanishing import may_vanish, without_unread
from rr.weights import Constant, Gone, load_converted, save_converted
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, network


def macs_of(model: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() // (2 * len(images))


def vanishing_layers(graph: ChannelGraph, vanishing: np.ndarray) -> set[str]:
    return {name for group, gone in zip(graph.groups, vanishing, strict=True) if gone for name in group.producers}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "src20",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("torchvision/mobilenet_v3_small", "timm/resnext26ts")
        ),
    ],
)
def test_blocks_leave_exactly_and_come_back_from_a_file(name: str, tmp_path) -> None:
    """Every second block of the network, in its own way of blocks: basic, with squeeze-excite, with grouped layers."""
    torch.manual_seed(0)
    model = generic(build_any(name)).eval()
    full = copy.deepcopy(model)
    images = torch.randn(2, 3, 64, 64) if "/" in name else torch.randn(2, 3, 32, 32)
    graph = ChannelGraph(model, images)
    selected = graph.prunable
    vanishing = rehearse_vanishing(model, graph, images, selected)
    assert vanishing.any()
    alive = np.ones(graph.num_units, dtype=bool)
    for group in [group for group, gone in zip(graph.groups, vanishing, strict=True) if gone][::2]:
        alive[group.units] = False
    alive = without_unread(graph, alive, selected)
    insert_generic_compactors(model, graph, selected, alive)
    slim, report = convert(LiveModel(model, graph), images, min_width=np.where(vanishing, 0, 1))
    assert report.float64_difference <= 1e-12
    kinds = [type(module) for module in slim.modules()]
    assert Gone in kinds
    assert Constant in kinds
    assert 0 in report.widths
    assert macs_of(slim, images) == report.macs_after == graph.macs(alive)
    assert sum(parameter.numel() for parameter in slim.parameters()) == graph.parameters(alive)

    torch.export.export(slim, (images,))
    save_converted(tmp_path / "slim.hdf5", slim)
    assert torch.equal(load_converted(tmp_path / "slim.hdf5", full)(images), slim(images))
    slim.train()(images).sum().backward()
    assert [name for name, parameter in slim.named_parameters() if parameter.grad is None] == []


@pytest.mark.slow
def test_what_may_vanish_and_what_may_not() -> None:
    """src20's inner layers may, its streams may not; nor may VGG's layers, past which nothing runs."""
    model, images = network("src20", 32)
    graph = ChannelGraph(model, images)
    found = vanishing_layers(graph, may_vanish(graph, graph.select("all")))
    assert found == {f"stage{stage}.block{block}.conv1.conv" for stage in (1, 2, 3) for block in (0, 1, 2)}
    assert not may_vanish(graph, np.zeros(graph.num_units, dtype=bool)).any()
    model, images = network("vc", 32)
    graph = ChannelGraph(model, images)
    assert not may_vanish(graph, graph.prunable).any()


def test_of_two_branches_that_add_up_one_stays() -> None:
    model = Net(
        lambda net, x: head(net, net.b(F.relu(net.a(x))) + net.d(F.relu(net.c(x)))),
        **{"a": conv(3, 4), "b": conv(4, 6), "c": conv(3, 4), "d": conv(4, 6), "fc": nn.Linear(6, 2)},
    )
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert vanishing_layers(graph, may_vanish(graph, graph.prunable)) == {"a"}


def test_what_eval_mode_alone_adds_up_is_read() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        inner = F.relu(net.a(x))
        y = head(net, F.relu(net.stem(x)) + net.b(inner))
        return torch.cat([y, net.aux(y)], 1) if net.training else torch.cat([y, inner.sum((1, 2, 3))[:, None]], 1)

    modules = {"stem": conv(3, 6), "a": conv(3, 4), "b": conv(4, 6), "fc": nn.Linear(6, 2), "aux": nn.Linear(2, 1)}
    graph = ChannelGraph(Net(forward, **modules), torch.randn(2, 3, 6, 6))
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["b"].out_units] = False  # nobody else reads what `a` makes
    assert without_unread(graph, alive, graph.prunable)[graph.layers["a"].out_units].all()


def test_the_first_block_of_a_stage_stays_where_nothing_runs_past_it() -> None:
    """MobileNet's way: `b` makes the stream that later blocks add to, but of themselves those have nothing to add."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.b(F.relu(net.a(x)))
        x = x + net.d(F.relu(net.c(x)))
        return head(net, x)

    modules = {"a": conv(3, 4), "b": conv(4, 6), "c": conv(6, 4), "d": conv(4, 6), "fc": nn.Linear(6, 2)}
    graph = ChannelGraph(Net(forward, **modules), torch.randn(2, 3, 6, 6))
    assert vanishing_layers(graph, may_vanish(graph, graph.prunable)) == {"c"}


def test_joined_with_others_a_layer_stays() -> None:
    """`b` reads a's and c's channels side by side: there is no place for a channel that isn't one."""
    model = Net(
        lambda net, x: head(net, net.s(x) + net.b(torch.cat([F.relu(net.a(x)), F.relu(net.c(x))], 1))),
        **{"a": conv(3, 4), "c": conv(3, 5), "b": conv(9, 6), "s": conv(3, 6), "fc": nn.Linear(6, 2)},
    )
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert not may_vanish(graph, graph.prunable).any()


def test_a_constant_takes_the_place_of_a_plain_layer_that_runs_once() -> None:
    """A transposed convolution's constant isn't one at its border; a layer called again may add elsewhere."""

    def vanishing(forward: Callable[[Net, Tensor], Tensor], last: nn.Module) -> set[str]:
        modules = {"a": conv(3, 4), "b": last, "s": conv(3, 6), "fc": nn.Linear(6, 2)}
        graph = ChannelGraph(Net(lambda net, x: head(net, forward(net, x)), **modules), torch.randn(2, 3, 6, 6))
        assert graph.prunable[graph.layers["a"].out_units].all()
        return vanishing_layers(graph, may_vanish(graph, graph.prunable))

    def once(net: Net, x: Tensor) -> Tensor:
        return net.s(x) + net.b(F.relu(net.a(x)))

    def twice(net: Net, x: Tensor) -> Tensor:
        return once(net, x) + net.b(net.a(x.flip(2)))

    assert vanishing(once, conv(4, 6)) == {"a"}
    assert vanishing(once, nn.ConvTranspose2d(4, 6, 3, padding=1)) == set()
    assert vanishing(twice, conv(4, 6)) == set()


def test_what_the_forward_does_not_stand_the_rehearsal_finds() -> None:
    """A channel shuffle inside the block asks for an even number of channels."""
    model = Net(
        lambda net, x: head(net, net.s(x) + net.b(net.shuffle(F.relu(net.a(x))))),
        **{"a": conv(3, 4), "shuffle": nn.ChannelShuffle(2), "b": conv(4, 6), "s": conv(3, 6), "fc": nn.Linear(6, 2)},
    )
    images = torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert may_vanish(graph, graph.prunable).any()
    assert not rehearse_vanishing(model, graph, images, graph.prunable).any()


@pytest.mark.slow
def test_a_run_with_no_least_width_empties_blocks() -> None:
    """The rows of one block are the smallest by far: with 0 at least, masks take all of them, and the target is met."""
    model, images = network("src20", 32)
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.85, min_width=0, rows_per_update=1000))
    with torch.no_grad():
        pruner.compactors["stage1.block0.conv1"].pwc.weight.mul_(1e-3)
    pruner.update_masks()
    widths = dict(zip(pruner.graph.width_names(), pruner.graph.widths(pruner.unmasked.alive), strict=True))
    assert widths["stage1.block0.conv1.conv"] == 0
    assert pruner.target_met
    for compactor in find_compactors(model).values():
        compactor.pwc.weight.data[compactor.mask == 0] = 0.0
    slim = pruner.convert()
    assert isinstance(slim.stage1.block0.conv2.conv, Constant)
    assert pruner.report.macs_after <= 0.85 * pruner.report.macs_before
    assert min(width for width in pruner.report.widths if width) >= 1


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 0), dilation=2),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2),
        nn.Conv2d(4, 6, 3, padding="valid"),
        nn.Conv3d(4, 6, 2),
        nn.Linear(4, 6),
    ],
    ids=lambda layer: str(layer).split("(")[0],
)
def test_stand_ins_have_the_size_of_their_layers_output(layer: nn.Module) -> None:
    shape = {nn.Conv1d: (2, 4, 11), nn.Conv3d: (2, 4, 5, 6, 7), nn.Linear: (2, 3, 4)}.get(type(layer), (2, 4, 11, 13))
    x = torch.randn(shape)
    expected = layer(x * 0)
    torch.testing.assert_close(Constant(layer, layer.bias)(x), expected)
    channel_dim = -1 if isinstance(layer, nn.Linear) else 1
    assert Gone(layer)(x).shape == expected.narrow(channel_dim, 0, 1).shape
    assert not Gone(layer)(x).any()
