"""Behind which modules a compactor can stand: BN with its activation, and what is called twice."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from tests.rr.flows import Case, NormWithActivation, behind_b, check_exact, check_unprunable
from tests.rr.networks import Net, conv, head


class NormBesideItsActivation(NormWithActivation):
    """The activation alone is no place behind the BN: what goes past it is the BN's output as well."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.BatchNorm2d.forward(self, x)
        return x + self.act(x)


class ConvWithActivation(nn.Conv2d):
    """A convolution whose forward goes on after it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x)) + 0.1


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "BN with its activation": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": NormWithActivation(8), "b": conv(8, 6, 1)},
        "a b",
    ),
    "relu beside the BN": (
        lambda net, x: head(net, net.b(net.block(x))),
        {"block": Net(lambda net, x: F.relu(net.bn(net.conv(x))), conv=conv(3, 8), bn=nn.BatchNorm2d(8))},
        "block.conv b",
    ),
    "BN called twice": (
        behind_b(lambda net, x: net.n(net.c(net.n(net.a(x)).relu()))),
        {"c": conv(8, 8, 1), "n": nn.BatchNorm2d(8), "b": conv(8, 6, 1)},
        "a c b",
    ),
    "BN behind one of a layer's calls": (
        behind_b(lambda net, x: F.relu(net.n(net.c(F.relu(net.c(net.a(x))))))),
        {"c": conv(8, 8), "n": nn.BatchNorm2d(8)},
        "a c b",
    ),
    "BN behind a layer, and once more alone": (
        behind_b(lambda net, x: net.n(F.relu(net.n(net.a(x))))),
        {"n": nn.BatchNorm2d(8), "b": conv(8, 6, 1)},
        "a b",
    ),
    "BN beside its own activation": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": NormBesideItsActivation(8), "b": conv(8, 6, 1)},
        "a b",
    ),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "convolution with its activation": (behind_b(lambda net, x: net.a(x)), {"a": ConvWithActivation(3, 8, 3)}, "a"),
    "a stream into which one adds": (
        behind_b(lambda net, x: net.a(x) + net.c(x)),
        {"a": ConvWithActivation(3, 8, 3), "c": nn.Conv2d(3, 8, 3)},
        "a c",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])
