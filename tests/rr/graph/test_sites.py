"""Places for compactors that silence what dead channels leave, where a bias can't hold it."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.rr.flows import Case, NormWithActivation, behind_b, check_exact, check_unprunable
from tests.rr.networks import conv, head

# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "BN with its activation, before a padded convolution": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": NormWithActivation(8)},
        "a b",
    ),
    "BN of its own, before a padded convolution": (
        behind_b(lambda net, x: F.relu(net.n(net.m(net.a(x))))),
        {"n": nn.BatchNorm2d(8), "m": nn.BatchNorm2d(8, affine=False)},
        "a b",
    ),
    "depthwise, twice": (
        behind_b(lambda net, x: net.e(F.relu(net.n(net.d(net.a(x)))))),
        {"d": conv(8, 8, groups=8), "n": nn.BatchNorm2d(8), "e": conv(8, 16, groups=8), "b": conv(16, 6)},
        "a d e b",
    ),
    "grouped, before a padded convolution": (
        behind_b(lambda net, x: net.g(net.a(x))),
        {"g": conv(8, 8, groups=2)},
        "a g",
    ),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "a constant behind an activation that padding cuts": (
        behind_b(lambda net, x: net.a(x).sigmoid()),
        {},
        "a",
    ),
    "transposed, a constant before": (
        behind_b(lambda net, x: net.t(net.a(x).sigmoid())),
        {"t": nn.ConvTranspose2d(8, 8, 2)},
        "a",
    ),
    "a shared layer with a constant before": (
        lambda net, x: head(net, net.b(net.c(net.c(net.a(x)).sigmoid()))),
        {"c": conv(8, 8, 1), "b": conv(8, 6, 1)},
        "a c",
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])
