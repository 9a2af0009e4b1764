"""Channel ids through elementwise operations, pooling and reductions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.rr.flows import Case, behind_b, check_exact, check_unprunable
from tests.rr.networks import Net, conv, head


def squeezed(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    return x * torch.sigmoid(net.s2(F.relu(net.s1(x.mean((2, 3), keepdim=True)))))


def branches(net: Net, x: Tensor) -> Tensor:
    """Each channel chooses between two branches, as in selective-kernel networks."""
    both = torch.stack([F.relu(net.a(x)), F.relu(net.c(x))], 1)  # [N, 2, C, H, W]
    choice = net.s(both.sum(1).mean((2, 3), keepdim=True))  # [N, 2 C, 1, 1]
    choice = choice.view(len(x), 2, choice.shape[1] // 2, 1, 1).softmax(1)
    return (both * choice).sum(1)


class Buffer(nn.Module):
    """A buffer `k` alone."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("k", values)


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "squeeze and excite": (behind_b(squeezed), {"s1": conv(8, 4, 1), "s2": conv(4, 8, 1)}, "a s1 s2 b"),
    "add": (behind_b(lambda net, x: net.a(x) + net.c(x)), {"c": conv(3, 8)}, "a c b"),
    "in place": (behind_b(lambda net, x: net.a(x).relu_().add_(net.c(x))), {"c": conv(3, 8)}, "a c b"),
    "pooling": (behind_b(lambda net, x: F.interpolate(F.max_pool2d(net.a(x), 2), scale_factor=2)), {}, "a b"),
    "casts": (behind_b(lambda net, x: net.a(x).relu().double().to(net.b.weight.dtype)), {}, "a b"),
    "PReLU": (behind_b(lambda net, x: net.q(net.p(net.a(x)))), {"p": nn.PReLU(8), "q": nn.PReLU()}, "a b"),
    "a scale for each channel": (
        behind_b(lambda net, x: net.g * net.a(x) + net.h),
        {"g": nn.Parameter(torch.randn(8, 1, 1)), "h": nn.Parameter(torch.randn(1)), "b": conv(8, 6, 1)},
        "a b",
    ),
    "a buffer for each channel": (
        behind_b(lambda net, x: net.a(x) * net.g.k),
        {"g": Buffer(torch.rand(8, 1, 1))},
        "a b",
    ),
    "branches chosen by channel": (behind_b(branches), {"c": conv(3, 8), "s": conv(8, 16, 1)}, "a c s b"),
    "a map for all channels": (
        behind_b(lambda net, x: (lambda y: y * net.s(y).sigmoid())(net.a(x))),
        {"s": conv(8, 1)},
        "a b",
    ),
    "a list of numbers": (behind_b(lambda net, x: net.a(x) * torch.tensor([[[[0.5]]]])), {}, "a b"),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "softmax": (behind_b(lambda net, x: net.a(x).softmax(1)), {}, "a"),
    "mean over channels": (behind_b(lambda net, x: net.a(x) - net.a(x).mean(1, keepdim=True)), {}, "a"),
    "mean of the channels": (behind_b(lambda net, x: net.a(x).mean(1, keepdim=True)), {"b": conv(1, 6)}, "a"),
    "largest channel": (behind_b(lambda net, x: net.a(x).max(1, keepdim=True)[0]), {"b": conv(1, 6)}, "a"),
    "a vector of numbers": (behind_b(lambda net, x: net.a(x) * torch.linspace(1, 2, 8).view(8, 1, 1)), {}, "a"),
    "a factor for each channel, used elsewhere": (
        lambda net, x: head(net, net.b(net.a(x) * net.g)) + net.g.mean(),
        {"g": nn.Parameter(torch.randn(8, 1, 1))},
        "a",
    ),
    "a map of its own for each channel": (
        behind_b(lambda net, x: net.a(x) * net.g),
        {"g": nn.Parameter(torch.randn(8, 6, 6))},
        "a",
    ),
    "one channel that a parameter makes eight": (
        behind_b(lambda net, x: net.a(x) * (net.c(x) * net.g)),
        {"c": conv(3, 1), "g": nn.Parameter(torch.randn(8, 1, 1))},
        "c",
    ),
    "pooled over channels": (
        behind_b(lambda net, x: F.max_pool2d(net.a(x).transpose(1, 3), (1, 2)).transpose(1, 3)),
        {"b": conv(4, 6)},
        "a",
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])
