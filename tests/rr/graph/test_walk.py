"""Layers that are called more than once, and parameters that others read as well."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.rr.flows import Case, behind_b, check_exact, check_unprunable
from tests.rr.networks import conv, head


def tied() -> dict[str, nn.Module]:
    """Two convolutions of one weight."""
    modules = {"c": conv(8, 8, 1), "d": conv(8, 8, 1)}
    modules["d"].weight = modules["c"].weight
    return modules


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "called twice": (
        lambda net, x: head(net, net.b(F.relu(net.n(net.c(F.relu(net.n(net.c(net.a(x))))))))),
        {"c": conv(8, 8), "n": nn.BatchNorm2d(8)},
        "a c b",
    ),
    "a block called twice": (
        behind_b(lambda net, x: net.s(net.s(net.a(x)))),
        {"s": nn.Sequential(conv(8, 8), nn.BatchNorm2d(8), nn.ReLU())},
        "a s.0 b",
    ),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "one weight of two layers": (lambda net, x: head(net, net.b(net.d(net.c(net.a(x))))), tied(), "a c"),
    "a layer that computes over pixels elsewhere": (
        behind_b(lambda net, x: net.l(net.l(net.a(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        {"a": conv(3, 6), "l": nn.Linear(6, 6), "b": conv(6, 6)},
        "a l",
    ),
    "its weight used elsewhere": (behind_b(lambda net, x: net.a(x) * net.a.weight.amax()), {}, "a"),
    "its bias used elsewhere": (behind_b(lambda net, x: net.a(x) + net.a.bias.view(1, -1, 1, 1)), {}, "a"),
    "its weight standardised": (
        behind_b(lambda net, x: F.conv2d(x, net.a.weight - net.a.weight.mean((1, 2, 3), keepdim=True), padding=1)),
        {},
        "a",
    ),
    "called as a function": (behind_b(lambda net, x: F.conv2d(x, net.a.weight, net.a.bias, padding=1)), {}, "a"),
    "called behind its hooks": (behind_b(lambda net, x: net.a.forward(x)), {}, "a"),
}


@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])
