"""Channel ids through what moves, cuts into alike parts, groups and pads channels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr.graph import ChannelGraph
from tests.rr.flows import Case, behind_b, check_conversion, check_exact, check_unprunable
from tests.rr.networks import Net, conv, generic

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def shuffled_in(parts: int, x: Tensor) -> Tensor:
    return x.view(x.shape[0], parts, x.shape[1] // parts, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "concat": (
        behind_b(lambda net, x: torch.cat([net.a(x), net.c(x)], 1)),
        {"c": conv(3, 5), "b": conv(13, 6)},
        "a c b",
    ),
    "permuted there and back": (
        behind_b(lambda net, x: net.a(x).permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2)),
        {},
        "a b",
    ),
    "pixels rolled": (behind_b(lambda net, x: net.a(x).roll((1, 2), (2, 3))), {}, "a b"),
    "whole slices": (behind_b(lambda net, x: net.a(x)[:, :, 1:, ::2].relu()), {}, "a b"),
    "padded outside": (behind_b(lambda net, x: F.pad(net.a(x), (1, 1, 1, 1), mode="reflect")), {}, "a b"),
    "padded with zeros": (behind_b(lambda net, x: F.pad(net.a(x), (1, 0, 2, 1))), {}, "a b"),
    "more channels by padding": (
        behind_b(lambda net, x: F.pad(net.a(x)[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + net.c(x)),
        {"c": conv(3, 12, stride=2), "b": conv(12, 6)},
        "a b",
    ),
    "halves": (behind_b(lambda net, x: (lambda y, z: y * z)(*net.a(x).chunk(2, 1))), {"b": conv(4, 6)}, "a b"),
    "halves by slices": (
        behind_b(lambda net, x: (lambda y: y[:, : y.shape[1] // 2] - y[:, y.shape[1] // 2 :])(net.a(x))),
        {"b": conv(4, 6)},
        "a b",
    ),
    "gated halves": (behind_b(lambda net, x: F.glu(net.a(x), 1)), {"b": conv(4, 6)}, "a b"),
    "gated halves of pixels": (behind_b(lambda net, x: F.glu(net.a(x), 2)), {}, "a b"),
    "patches": (
        behind_b(lambda net, x: F.unfold(net.a(x), 3, padding=1).unflatten(2, (6, 6))),
        {"b": conv(72, 6)},
        "a b",
    ),
    "pixels out of patches": (
        behind_b(lambda net, x: F.fold(net.a(x).flatten(2), (7, 7), 2)),
        {"b": conv(2, 6)},
        "a b",
    ),
    "parts by their number": (
        behind_b(lambda net, x: torch.sub(*torch.tensor_split(net.a(x), 2, 1)) * net.a(x).unsafe_chunk(2, 1)[0]),
        {"b": conv(4, 6)},
        "a b",
    ),
    "side by side": (
        behind_b(lambda net, x: torch.hstack([net.a(x), net.c(x)])),
        {"c": conv(3, 5), "b": conv(13, 6)},
        "a c b",
    ),
    "shuffled": (behind_b(lambda net, x: shuffled_in(2, F.relu(net.a(x)))), {}, "a b"),
    "shuffled by a module": (behind_b(lambda net, x: net.s(net.a(x))), {"s": nn.ChannelShuffle(4)}, "a b"),
    "shuffled by the groups of a convolution": (
        behind_b(lambda net, x: shuffled_in(2, net.c(net.a(x)))),
        {"c": conv(8, 8, groups=2)},
        "a c b",
    ),
    "shuffled by more parts than a convolution's groups": (
        behind_b(lambda net, x: shuffled_in(4, net.c(shuffled_in(2, net.a(x))))),
        {"c": conv(8, 8, groups=2)},
        "a c b",
    ),
    "whole groups, however many": (
        behind_b(lambda net, x: net.c(net.a(x)).unflatten(1, (-1, 2)).amax(2)),
        {"c": conv(8, 8, groups=2), "b": conv(4, 6)},
        "a c b",
    ),
    "the largest of neighbours": (
        behind_b(lambda net, x: net.a(x).view(len(x), -1, 2, *x.shape[2:]).amax(2)),
        {"b": conv(4, 6)},
        "a b",
    ),
    "the largest of parts": (behind_b(lambda net, x: net.a(x).unflatten(1, (2, -1)).amax(1)), {"b": conv(4, 6)}, "a b"),
    "pixels from channels": (behind_b(lambda net, x: F.pixel_shuffle(net.a(x), 2)), {"b": conv(2, 6)}, "a b"),
    "channels from pixels": (behind_b(lambda net, x: F.pixel_unshuffle(net.a(x), 2)), {"b": conv(32, 6)}, "a b"),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "channels rolled": (behind_b(lambda net, x: net.a(x).roll(1, 1)), {}, "a"),
    "all elements rolled": (behind_b(lambda net, x: net.a(x).roll(1)), {}, "a"),
    "reflected channels": (
        behind_b(lambda net, x: F.pad(net.a(x).transpose(1, 3), (1, 1, 0, 0), mode="reflect").transpose(1, 3)),
        {"b": conv(10, 6)},
        "a",
    ),
    "channels cropped": (behind_b(lambda net, x: F.pad(net.a(x), (0, 0, 0, 0, -1, 2))), {"b": conv(9, 6)}, "a"),
    "unequal parts": (behind_b(lambda net, x: torch.cat(net.a(x).split([3, 5], 1)[::-1], 1)), {}, "a"),
    "halves of a size of their own": (
        behind_b(lambda net, x: torch.cat(net.a(x).split(4, 1)[::-1], 1)),
        {},
        "a",
    ),
    "shuffled by sizes of its own": (
        behind_b(lambda net, x: net.a(x).view(-1, 2, 4, 6, 6).transpose(1, 2).flatten(1, 2)),
        {},
        "a",
    ),
    "part of the channels": (behind_b(lambda net, x: net.a(x)[:, :4]), {"b": conv(4, 6)}, "a"),
    "windows of channels": (
        behind_b(lambda net, x: net.a(x).unfold(1, 4, 4).flatten(3).mean(3, keepdim=True)),
        {"b": conv(2, 6)},
        "a",
    ),
    "the middle of the channels": (behind_b(lambda net, x: net.a(x)[:, 2:6]), {"b": conv(4, 6)}, "a"),
}


# Of these, those with sizes of the forward's own, which no rule can tell from computed ones.
ONLY_REHEARSED = frozenset(["halves of a size of their own", "shuffled by sizes of its own", "part of the channels"])


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case], only_rehearsed=case in ONLY_REHEARSED)


@pytest.mark.slow
def test_a_concatenating_network_with_bn_behind() -> None:
    """Two dense layers in the style of DenseNet, whose BN stands before the convolution."""
    torch.manual_seed(0)

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = torch.cat([x, net.c1(F.relu(net.n1(x)))], 1)
        x = torch.cat([x, net.c2(F.relu(net.n2(x)))], 1)
        return net.fc(F.relu(net.n3(x)).mean((2, 3)))

    modules = {"stem": conv(3, 8), "n1": nn.BatchNorm2d(8), "c1": conv(8, 4, 1), "n2": nn.BatchNorm2d(12)}
    modules |= {"c2": conv(12, 4, 1), "n3": nn.BatchNorm2d(16), "fc": nn.Linear(16, 2)}
    model, images = generic(Net(forward, **modules)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert graph.prunable.sum() == 16
    check_conversion(model, graph, images)
