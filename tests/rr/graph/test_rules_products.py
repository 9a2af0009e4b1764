"""Channel ids through products of matrices: of activations, and with a parameter."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import explain
from rr.compactors import remove_compactors
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from tests.rr.flows import Case, behind_b, check_exact, check_unprunable, three
from tests.rr.networks import Net, conv, generic, insert_generic_compactors, random_alive


def attention(net: Net, x: Tensor) -> Tensor:
    """Each pixel looks at all others, in two heads; how many channels a head has, the tensors say."""
    x = F.relu(net.a(x)).flatten(2).mT  # [N, pixels, channels]
    q, k, v = (layer(x).unflatten(2, (2, -1)).transpose(1, 2) for layer in (net.q, net.k, net.v))
    y = (0.3 * q @ k.mT).softmax(-1) @ v  # [N, heads, pixels, channels of a head]
    return net.o(y.transpose(1, 2).flatten(2)).mT.unflatten(2, (6, 6))


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "attention": (
        behind_b(attention),
        {"q": nn.Linear(8, 10), "k": nn.Linear(8, 10), "v": nn.Linear(8, 12), "o": nn.Linear(12, 8)},
        "a q k v o b",
    ),
    "channels side by side": (
        behind_b(lambda net, x: torch.einsum("nchw,ncwk->nchk", net.a(x), net.c(x))),
        {"c": conv(3, 8)},
        "a c b",
    ),
    "matrices of pixels": (behind_b(lambda net, x: net.a(x) @ net.c(x).relu()), {"c": conv(3, 8)}, "a c b"),
    "channels of one factor": (
        behind_b(lambda net, x: torch.einsum("nchw,nhk->nckw", net.a(x), net.c(x)[:, 0])),
        {"c": conv(3, 1)},
        "a b",
    ),
    "a gate out of products": (
        behind_b(lambda net, x: (lambda y: y * torch.einsum("nchw,nchw->nc", y, y)[:, :, None, None])(net.a(x))),
        {},
        "a b",
    ),
    "added up over the channels": (
        behind_b(lambda net, x: net.a(x) * torch.bmm(*_rows_and_columns(net, x)).mean((1, 2))[:, None, None, None]),
        {"c": conv(3, 5)},
        "a c b",
    ),
    "a product before a layer": (
        lambda net, x: net.fc((lambda y: y @ y.mT)(F.relu(net.b(net.a(x)))).mean((2, 3))),
        {},
        "a b",
    ),
    "samples before a product": (
        lambda net, x: net.fc(F.grid_sample(net.b(net.a(x)), net.p, align_corners=False).mean((2, 3)) @ net.w),
        {"p": nn.Parameter(torch.rand(2, 3, 3, 2)), "w": nn.Parameter(torch.randn(6, 6))},
        "a",
    ),
    "a matrix": (
        lambda net, x: net.fc(net.b(F.relu(net.a(x))).mean((2, 3)) @ net.w),
        {"w": nn.Parameter(torch.randn(6, 6))},
        "a b",
    ),
    "a matrix by letters": (
        lambda net, x: net.fc(torch.einsum("nhwc,dc->nhwd", net.b(net.a(x)).permute(0, 2, 3, 1), net.w).mean((1, 2))),
        {"w": nn.Parameter(torch.randn(6, 6))},
        "a b",
    ),
}


def _rows_and_columns(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.c(x).flatten(2)
    return x.mT, x


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "channels by channels": (
        behind_b(lambda net, x: torch.bmm(*_rows_and_columns(net, x)[::-1])[:, :, :, None]),
        {"c": conv(3, 8)},
        "c",
    ),
    "a factor of three": (
        behind_b(lambda net, x: torch.einsum("nchw,nchw,nchw->nchw", *[net.a(x)] * 3)),
        {},
        "a",
    ),
    "constants that are added up": (
        behind_b(lambda net, x: net.a(x) * (lambda y: torch.einsum("nchw,nchw->n", y, y))(net.c(x).sigmoid()).mean()),
        {"c": conv(3, 5)},
        "c",
    ),
    "a matrix that the forward reads twice in two ways": (
        lambda net, x: net.fc((net.b(net.a(x)).mean((2, 3)) @ net.w) @ net.w.T),
        {"w": nn.Parameter(torch.randn(6, 6))},
        "b",
    ),
    "as many as there are": (
        behind_b(lambda net, x: net.a(x) * torch.einsum("nchw->n", net.a(x))[:, None, None, None]),
        {},
        "a",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["attention", "channels side by side", "a gate out of products", "a matrix"])
def test_products_cost_what_torch_counts(case: str) -> None:
    forward, modules, _ = EXACT[case]
    torch.manual_seed(0)
    model, images = generic(three(forward, **copy.deepcopy(modules))).eval(), torch.randn(2, 3, 6, 6)
    remove_compactors(model)  # of the test above
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.macs_after == ChannelGraph(slim, images).trace.macs < graph.trace.macs, explain(graph)
