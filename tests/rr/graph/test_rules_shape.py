"""Channel ids through what moves, cuts, groups and pads channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import load_converted, save_converted
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from tests.rr.flows import Case, behind_b, check_conversion, check_exact, check_unprunable, three
from tests.rr.narrowed import pruner_of
from tests.rr.networks import Net, conv, generic, insert_generic_compactors
from tests.rr.pruners import set_masks

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def shuffled(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    return x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


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
    "shuffled": (behind_b(shuffled), {}, "a b"),
    "shuffled by a module": (behind_b(lambda net, x: net.s(net.a(x))), {"s": nn.ChannelShuffle(4)}, "a b"),
    "pixels from channels": (behind_b(lambda net, x: F.pixel_shuffle(net.a(x), 2)), {"b": conv(2, 6)}, "a b"),
    "channels from pixels": (behind_b(lambda net, x: F.pixel_unshuffle(net.a(x), 2)), {"b": conv(32, 6)}, "a b"),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
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


class Mixed(nn.Module):
    """Depthwise convolutions of several sizes, each of some of the channels, whose numbers the module keeps."""

    def __init__(self, sizes: Sequence[int], kernels: Sequence[int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.parts = nn.ModuleList(conv(n, n, k, groups=n) for n, k in zip(sizes, kernels, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(own) for part, own in zip(self.parts, x.split(self.sizes, 1), strict=True)], 1)


class CutsElsewhere(nn.Module):
    """Cuts by numbers that its attribute only seems to be."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [3, 5]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(x.split([3, 5], 1)[::-1], 1)


def mixed(sizes: Sequence[int], kernels: Sequence[int]) -> Case:
    """Before a convolution without padding, which takes the constants of dead channels."""
    modules = {"m": Mixed(sizes, kernels), "b": nn.Conv2d(8, 6, 1)}
    return behind_b(lambda net, x: net.m(F.relu(net.a(x)))), modules, "a b"


def mixed_net() -> nn.Module:
    forward, modules, _ = mixed([2, 5, 1], [1, 3, 3])
    return three(forward, **modules)


SIZES: dict[str, Case] = {
    "a list": mixed([2, 5, 1], [1, 3, 3]),
    "a tuple of equal ones": mixed((4, 4), (3, 1)),
    "twice": (
        behind_b(lambda net, x: net.m(net.m(F.relu(net.a(x))))),
        {"m": Mixed([3, 5], [1, 3])},
        "b",
    ),
    "two tensors": (
        behind_b(lambda net, x: torch.cat([*net.a(x).split(net.sizes, 1), *net.c(x).split(net.sizes, 1)], 1)),
        {"sizes": [3, 5], "c": conv(3, 8), "b": conv(16, 6)},
        "a c b",
    ),
    "channels last": (
        behind_b(lambda net, x: torch.cat(net.a(x).permute(0, 2, 3, 1).split(net.sizes, -1), -1).permute(0, 3, 1, 2)),
        {"sizes": [3, 5]},
        "a b",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_a_module_keeps_get_smaller_with_its_channels(case: str) -> None:
    check_exact(*SIZES[case])


def test_parts_by_sizes_that_a_module_keeps_lose_channels_on_their_own() -> None:
    forward, modules, _ = mixed((4, 4), (3, 1))
    graph = ChannelGraph(three(forward, **modules), IMAGES)
    assert len(set(graph.layers["a"].out_units.tolist())) == 8  # 4 where channels at the same places go together


def test_sizes_of_another_use_are_told_from_those_that_cut() -> None:
    check_unprunable(behind_b(lambda net, x: net.m(net.a(x))), {"m": CutsElsewhere()}, "a", only_rehearsed=True)
    two = Mixed([3, 5], [3, 3])
    two.others = [3, 5]  # which of them?
    check_unprunable(behind_b(lambda net, x: net.m(net.a(x))), {"m": two}, "a")


def test_smaller_sizes_come_back_from_a_file(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return mixed_net().eval()

    model = build()
    graph = ChannelGraph(model, IMAGES)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["a"].out_units[[0, 3, 4, 5]]] = False
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), IMAGES)
    assert report.float64_difference <= 1e-12
    assert (slim.m.sizes, model.m.sizes) == ([1, 2, 1], [2, 5, 1])
    again = ChannelGraph(slim, IMAGES)
    assert again.prunable[again.layers["a"].out_units].all()
    for name in ("a.hdf5", "b.pth"):
        save_converted(tmp_path / name, slim)
        loaded = load_converted(tmp_path / name, build())
        assert loaded.m.sizes == [1, 2, 1]
        with torch.no_grad():
            assert torch.equal(loaded(IMAGES), slim(IMAGES))


def test_sizes_get_smaller_while_a_network_trains() -> None:
    pruner = pruner_of(mixed_net, "all", 6)
    alive = pruner.unmasked.alive
    alive[pruner.graph.layers["a"].out_units[[0, 3]]] = False
    set_masks(pruner, alive)
    pruner.live.zero_dead_rows(alive)
    model, images = pruner.model.eval(), IMAGES.double()
    with torch.no_grad():
        before = model(images)
        pruner.narrow()
        torch.testing.assert_close(model(images), before)
    assert model.m.sizes == [1, 4, 1]


@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case], only_rehearsed=case in ONLY_REHEARSED)


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
