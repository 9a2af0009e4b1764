"""Branches on the input's sizes that no size of a proof takes: the report says where."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rr.conversion import convert
from rr.conversion.size_branches import one_way_branches
from rr.graph import ChannelGraph, ExampleInputs, LiveModel
from tests.rr.networks import Net, conv, head

SIZES = [ExampleInputs.of(torch.zeros(2, 3, height, width)) for height, width in ((8, 8), (13, 8), (7, 19))]


def of_many_sizes(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    height, width = y.shape[2:]
    if height * width > 500:
        y = 2 * y
    if x.size(2) * 0.5 >= 100 / 2:
        y = 3 * y
    return head(net, y)


def of_steps(net: Net, x: Tensor) -> Tensor:
    """Numbers that change only where images are much larger, and one that does so here."""
    height, width = x.shape[2:]
    y = net.a(x) * (1 + height // 100)
    y = y * (1 + divmod(width, 50)[0]) * (1 + (width >> 6))
    y = y * round(1 + height / 200)
    y = y * math.ceil(height / 128)
    y = y * int(1 + height / 128)
    if (height > 5 and abs(height - width) > 90) or x.nelement() > 10_000:
        y = 2 * y
    return head(net, y * (height // 2) * round(width / 3))


def of_sizes_on_both_sides(net: Net, x: Tensor) -> Tensor:
    """Each is taken either way, checks something, or compares what is always equal or doesn't vary."""
    y = net.a(x)
    if x.shape[2] % 2:
        y = 2 * y
    if x.shape[3] > x.shape[2]:
        y = 3 * y
    assert x.shape[2] > 1
    if x.shape[2] < 4:
        raise ValueError("too small")
    if x.shape[1] > 4 or x.shape[2] != y.shape[2]:
        y = 4 * y
    return head(net, y)


def network(forward: object) -> nn.Module:
    return Net(forward, a=conv(3, 8), fc=nn.Linear(8, 2)).eval()


@pytest.mark.parametrize(
    ("forward", "found"),
    [
        (of_many_sizes, ["(133 > 500)", "(6.5 >= 50.0)"]),
        (
            of_steps,
            [
                *("(13 // 100)", "(19 // 50)", "(19 >> 6)", "(round(1.065))", "(ceil(0.1015625))"),
                *("(int(1.1015625))", "(13 > 5)", "(12 > 90)", "(798 > 10000)"),
            ],
        ),
        (of_sizes_on_both_sides, []),
    ],
)
def test_what_comes_out_the_same_at_all_sizes_is_named(forward: object, found: list[str]) -> None:
    model = network(forward)
    branches = one_way_branches(model, SIZES)
    assert [branch.partition(" ")[2] for branch in branches] == found
    assert all(branch.startswith(f"{Path(__file__).name}:") for branch in branches)


def test_a_forward_that_wants_plain_numbers_is_named_itself() -> None:
    model = network(lambda net, x: head(net, net.a(x) * {int: 1}[type(x.shape[2])]))
    (branch,) = one_way_branches(model, SIZES)
    assert branch.startswith("the forward (which of them it does can't be followed: ")


def test_a_report_says_which_sizes_a_proof_says_nothing_of() -> None:
    model, images = network(of_many_sizes), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph(model, images)
    graph.insert_compactors(model, graph.prunable)
    _, report = convert(LiveModel(model, graph), images)
    assert len(report.one_way_branches) == 2
    assert f"not where sizes compare or round otherwise in {', '.join(report.one_way_branches)}" in str(report)
    assert report.as_dict()["one_way_branches"] == list(report.one_way_branches)
