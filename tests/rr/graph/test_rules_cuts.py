"""Channels that are cut by numbers which a module keeps: the numbers get smaller with the channels."""

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
from tests.rr.flows import Case, behind_b, check_exact, check_unprunable, three
from tests.rr.narrowed import pruner_of
from tests.rr.networks import Net, conv, insert_generic_compactors
from tests.rr.pruners import set_masks

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


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


def parts_added(net: Net, x: Tensor) -> Tensor:
    """As in ReXNet and DPN: an addition to some of the channels, the others beside."""
    y = net.a(x)
    return torch.cat([y[:, : net.some] + net.c(x), y[:, net.some :]], 1)


def in_scales(net: Net, x: Tensor) -> Tensor:
    """As in Res2Net: parts of one width, each through a convolution of its own."""
    first, second = net.a(x).split(net.width, 1)
    return torch.cat([net.c(first), net.d(second)], 1)


def partly_convolved(net: Net, x: Tensor) -> Tensor:
    """As in FasterNet: a convolution for some of the channels."""
    some, others = net.a(x).split([net.some, net.others], 1)
    return torch.cat([net.c(some), others], 1)


def attention(net: Net, x: Tensor) -> Tensor:
    """As in EfficientViT: queries and keys of one size, values of another."""
    query, key, value = (part.flatten(2) for part in net.a(x).split([net.key_size, net.key_size, net.value_size], 1))
    weights = (query.transpose(1, 2) @ key).softmax(-1)  # [N, H * W, H * W]
    return (value @ weights.transpose(1, 2)).view(-1, net.value_size, *x.shape[2:])


NUMBERS: dict[str, Case] = {
    "some of the channels": (behind_b(parts_added), {"c": conv(3, 3), "some": 3}, "a c b"),
    "counted from behind": (
        behind_b(lambda net, x: torch.cat([net.a(x)[:, -net.some :], net.a(x)[:, : -net.some]], 1)),
        {"some": 3},
        "a b",
    ),
    "the middle": (
        behind_b(lambda net, x: net.a(x)[:, net.low : net.high]),
        {"low": 2, "high": 6, "b": conv(4, 6)},
        "a",
    ),
    "parts of one size": (behind_b(in_scales), {"c": conv(4, 4), "d": conv(4, 4), "width": 4}, "a c d b"),
    "half of a number": (
        behind_b(lambda net, x: torch.mul(*net.a(x).split(net.channels // 2, 1))),
        {"channels": 8, "b": conv(4, 6)},
        "a b",
    ),
    "a quarter of a number": (
        behind_b(lambda net, x: net.a(x)[:, : net.channels // 4]),
        {"channels": 8, "b": conv(2, 6)},
        "a b",
    ),
    "a number each": (behind_b(partly_convolved), {"c": conv(3, 3), "some": 3, "others": 5}, "a c b"),
    "one number for two parts": (
        behind_b(attention),
        {"a": conv(3, 10), "b": conv(4, 6), "key_size": 3, "value_size": 4},
        "b",
    ),
    "two names for a number": (behind_b(parts_added), {"c": conv(3, 3), "some": 3, "width": 3}, "a c b"),
    "one number for two tensors": (
        behind_b(lambda net, x: torch.cat([net.a(x)[:, : net.some], net.c(x)[:, net.some :]], 1)),
        {"c": conv(3, 8), "some": 3, "b": conv(8, 6)},
        "a c b",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_a_module_keeps_get_smaller_with_its_channels(case: str) -> None:
    check_exact(*NUMBERS[case])


class CutsByAnotherNumber(nn.Module):
    """Its attribute only seems to be what it cuts by."""

    def __init__(self) -> None:
        super().__init__()
        self.some = 3

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 3:], x[:, :3]], 1)


def test_a_number_of_another_use_is_told_from_one_that_cuts() -> None:
    modules = {"m": CutsByAnotherNumber()}
    check_unprunable(behind_b(lambda net, x: net.m(net.a(x))), modules, "a", only_rehearsed=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.a(x)[:, net.some : 6].sum(1, keepdim=True) + net.a(x),  # one end is known, one isn't
        lambda net, x: torch.cat(net.a(x).split(net.some, 1)[::-1], 1),  # 3, 3 and 2: the last isn't what it says
        lambda net, x: net.a(x)[:, :5].sum(1, keepdim=True) + net.a(x),
    ],
)
def test_what_numbers_do_not_tell_stays(function) -> None:
    check_unprunable(behind_b(function), {"some": 3}, "a")


def test_a_smaller_number_comes_back_from_a_file(tmp_path: Path) -> None:
    def build() -> nn.Module:
        forward, modules, _ = NUMBERS["a number each"]
        return three(forward, **{**modules, "c": conv(3, 3)}).eval()

    model = build()
    graph = ChannelGraph(model, IMAGES)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["a"].out_units[[0, 3, 4]]] = False
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), IMAGES)
    assert report.float64_difference <= 1e-12
    assert (slim.some, slim.others, model.some, model.others) == (2, 3, 3, 5)
    save_converted(tmp_path / "slim.hdf5", slim)
    loaded = load_converted(tmp_path / "slim.hdf5", build())
    assert (loaded.some, loaded.others) == (2, 3)
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), slim(IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_a_module_keeps_get_smaller_with_its_channels(case: str) -> None:
    check_exact(*SIZES[case])


def test_parts_by_sizes_that_a_module_keeps_lose_channels_on_their_own() -> None:
    forward, modules, _ = mixed((4, 4), (3, 1))
    graph = ChannelGraph(three(forward, **modules), IMAGES)
    assert len(set(graph.layers["a"].out_units.tolist())) == 8  # 4 where channels at the same places go together


@pytest.mark.slow
def test_sizes_of_another_use_are_told_from_those_that_cut() -> None:
    check_unprunable(behind_b(lambda net, x: net.m(net.a(x))), {"m": CutsElsewhere()}, "a", only_rehearsed=True)
    two = Mixed([3, 5], [3, 3])
    two.others = [3, 5]  # which of them?
    check_unprunable(behind_b(lambda net, x: net.m(net.a(x))), {"m": two}, "a")


@pytest.mark.slow
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
