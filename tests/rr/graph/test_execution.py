"""Operations run on constants: what isn't known must not become known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr.graph import ChannelGraph
from tests.rr.flows import three
from tests.rr.networks import generic


@pytest.mark.slow
@pytest.mark.parametrize(
    "through",
    [
        lambda x: x.sort(-1)[0][..., 0],
        lambda x: x.topk(1, -1, largest=False)[0][..., 0],
        lambda x: x.argmax(-1).float(),
    ],
    ids=["sort", "topk", "argmax"],
)
def test_an_order_among_what_is_unknown_is_unknown(through: Callable[[Tensor], Tensor]) -> None:
    """In every channel there is what a bright image alone makes: no dead channel is a constant there."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        spill = -(net.m(x) - 10).relu()
        x = F.pad(F.relu(net.n(net.a(x))), (1, 1)) + F.pad(spill, (1, 1))
        return net.fc(through(x).mean(-1))

    model = generic(three(forward, n=nn.BatchNorm2d(8), m=nn.Conv2d(3, 1, 1), fc=nn.Linear(8, 2))).eval()
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert not graph.prunable[graph.layers["a"].out_units].any()
