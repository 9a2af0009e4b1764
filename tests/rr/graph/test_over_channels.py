"""Means and extremes over channels, with dead channels gone: exact where layers read them, or nothing changes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from rr import explain
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from rr.graph.elsewhere import traced_elsewhere
from rr.graph.flow import channel_flow
from rr.narrowing.take_out import silent_units
from rr.weights import load_converted, save_converted
from tests.rr.flows import behind_b, check_exact, check_unprunable, three
from tests.rr.networks import Net, conv, generic, insert_generic_compactors, random_alive

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def pooled(x: Tensor) -> Tensor:
    """[N, 3, H, W]: mean, largest and least of the channels."""
    return torch.cat([x.mean(1, keepdim=True), x.max(1)[0].unsqueeze(1), x.amin(1, keepdim=True)], 1)


def attended(net: Net, x: Tensor) -> Tensor:
    """Spatial attention (CBAM)."""
    x = net.a(x)
    return x * net.s(pooled(x)).sigmoid()


def by_many_layers(net: Net, x: Tensor) -> Tensor:
    """Every kind of layer reads what was made of the channels: transposed, of tokens, with a computed weight."""
    x = net.a(x)
    tokens = net.line(x.flatten(2).mT.amax(2))  # [N, 1]
    return x * (net.up(x.mean((1, 2), keepdim=True)) + net.norm(pooled(x)) + tokens[:, :, None, None])


def behind_constants(net: Net, x: Tensor) -> Tensor:
    """Dead channels become constants, which a compactor has to silence before they are averaged."""
    x = F.relu(net.n(net.d(F.relu(net.a(x)))))
    return x * net.s(pooled(x)).sigmoid()


@pytest.mark.slow
def test_spatial_attention_is_exact_with_fewer_channels_in_one_go_or_two(tmp_path: Path) -> None:
    torch.manual_seed(0)
    seen = []
    model = three(behind_b(attended), s=conv(3, 1, 5)).eval()
    model.s.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    full, larger = copy.deepcopy(model), torch.randn(1, 3, 9, 11)
    for dead in (0.5, 0.3):
        graph = ChannelGraph(model, IMAGES)
        assert graph.prunable[graph.layers["a"].out_units].all(), explain(graph)
        assert not silent_units(graph, model)[graph.layers["a"].out_units].any()  # in mid-run they stay
        alive = random_alive(graph, graph.prunable, dead, seed=1)
        insert_generic_compactors(model, graph, graph.prunable, alive)
        model, report = convert(LiveModel(model, graph), IMAGES)
        assert report.float64_difference <= 1e-12
        assert len(report.proven_at) > 2
        assert report.dropped == (~alive).sum() > 0
    save_converted(tmp_path / "slim.hdf5", model)
    loaded = load_converted(tmp_path / "slim.hdf5", full)
    torch.testing.assert_close(loaded(larger), model(larger))
    seen.clear()  # torch 2.6 would write all of it into the program
    exported = torch.export.export(loaded, (IMAGES,)).module()
    seen.clear()
    torch.testing.assert_close(exported(IMAGES), model(IMAGES))
    assert seen == [(2, 3, 6, 6)]  # the user's hook is in the converted model, and not twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "modules"),
    [
        (by_many_layers, {"up": nn.ConvTranspose2d(1, 1, (6, 1)), "line": nn.Linear(36, 1), "norm": conv(3, 8)}),
        (behind_constants, {"d": conv(8, 8, groups=8), "n": nn.BatchNorm2d(8), "s": conv(3, 1)}),
        # Nothing has to be told where no channel is negative.
        (lambda net, x: (lambda y: y * y.amax(1, keepdim=True).tanh())(F.relu(net.a(x))), {}),
        (lambda net, x: (lambda y: y * y.max(1, keepdim=True)[0].cos())(net.a(x).abs() * net.a(x).sigmoid()), {}),
    ],
)
def test_what_is_made_of_all_channels_is_the_same_with_fewer(
    function: Callable[[Net, Tensor], Tensor], modules: dict[str, nn.Module]
) -> None:
    if "norm" in modules:
        modules = {**modules, "norm": weight_norm(modules["norm"])}
    check_exact(behind_b(function), modules, "a b")


def halves(y: Tensor) -> Tensor:
    return 0.5 * y.mean(1, keepdim=True) + 0.5 * y.amax(1, keepdim=True)


def made_negative(y: Tensor) -> Tensor:
    return y * F.relu(y).sub_(1).amax(1, keepdim=True).tanh()


def made_negative_meanwhile(y: Tensor) -> Tensor:
    z = F.relu(y)
    view = z.mT
    z.sub_(1)
    return y * view.amax(1, keepdim=True).mT.tanh()


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        lambda net, y: y * net.s(halves(y)),
        lambda net, y: y * net.s(y.max(1, keepdim=True)[1] * 1.0),
        lambda net, y: y * net.s(net.s(y.amax(1, keepdim=True))),
        lambda net, y: y * net.s(y.mean(1, keepdim=True).relu()),
        lambda net, y: y * net.g(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)).sum(1, keepdim=True),
        lambda net, y: net.g(torch.stack([y.mean(1), y.amin(1)], 1)).mean(1, keepdim=True) * y.amin(1, keepdim=True),
        lambda net, y: made_negative(y),
        lambda net, y: made_negative_meanwhile(y),
    ],
)
def test_what_no_layer_reads_as_it_is_keeps_the_channels(function: Callable[[Net, Tensor], Tensor]) -> None:
    modules = {"s": conv(1, 1), "g": conv(2, 2, groups=2), "b": conv(8, 6, 1)}
    case = behind_b(lambda net, x: function(net, net.a(x)).expand(-1, 8, -1, -1))
    check_unprunable(case, modules, "a")


def test_what_layers_read_at_another_size_alone_keeps_the_channels() -> None:
    def sum_or_mean(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        return y * net.s(y.mean(1, keepdim=True) if x.shape[2] > 8 else y.sum(1, keepdim=True))

    model = generic(three(behind_b(sum_or_mean), s=conv(1, 1))).eval()
    graph = ChannelGraph(model, IMAGES)
    units = graph.layers["a"].out_units
    assert graph.prunable[units].all(), explain(graph)
    flow = channel_flow(graph.trace, model)
    traced_elsewhere(model, IMAGES).unite_in(flow)
    assert [reason for reason in flow.reasons.values() if "meets a mean of channels that is read by s" in reason]
