"""Channel ids through layers: convolutions of all kinds, linear layers, BN."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr.graph import ChannelGraph
from tests.rr.flows import Case, behind_b, check_conversion, check_exact, check_unprunable
from tests.rr.networks import conv, generic


class ConvOfItsOwn(nn.Conv2d):
    """A subclass with other arguments and a forward of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "subclass": (behind_b(lambda net, x: F.relu(net.a(x))), {"a": ConvOfItsOwn(3, 8)}, "a b"),
    "padding by name": (behind_b(lambda net, x: F.relu(net.a(x))), {"b": nn.Conv2d(8, 6, 3, padding="same")}, "a b"),
    "BN without affine": (
        behind_b(lambda net, x: F.relu(net.bn(net.a(x)))),
        {"bn": nn.BatchNorm2d(8, affine=False)},
        "a b",
    ),
    "grouped": (
        behind_b(lambda net, x: F.relu(net.n(net.g(net.a(x))))),
        {"g": conv(8, 12, groups=4), "n": nn.BatchNorm2d(12), "b": conv(12, 6, 1)},
        "a g b",
    ),
    "transposed": (
        behind_b(lambda net, x: F.relu(net.n(net.t(net.a(x))))),
        {"t": nn.ConvTranspose2d(8, 10, 3, stride=2), "n": nn.BatchNorm2d(10), "b": conv(10, 6)},
        "a t b",
    ),
    "channels last": (
        lambda net, x: net.fc(F.gelu(net.l(F.relu(net.a(x)).permute(0, 2, 3, 1))).mean((1, 2))),
        {"l": nn.Linear(8, 6)},
        "a l",
    ),
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "transposed, in groups": (
        behind_b(lambda net, x: net.t(net.a(x))),
        {"t": nn.ConvTranspose2d(8, 8, 2, groups=2)},
        "a t",
    ),
    "BN of the batch": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": nn.BatchNorm2d(8, track_running_stats=False)},
        "a",
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions(dims: int) -> None:
    torch.manual_seed(0)
    kind, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dims]
    model = nn.Sequential(
        kind(3, 6, 3), norm(6), nn.ReLU(), kind(6, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4**dims, 2)
    )
    images = torch.randn(2, 3, *[6] * dims)
    graph = ChannelGraph(generic(model).eval(), images)
    assert graph.prunable.sum() == 12
    check_conversion(model, graph, images)
