"""Exports: what runs under an autocast of its own is traced like all else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rr.graph.exporting import without_autocast
from tests.rr.flows import behind_b, check_exact
from tests.rr.networks import Net


def in_half_precision(net: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        x = net.a(x).relu() + 1
    return x.to(net.b.weight.dtype)


def test_layers_under_an_autocast_of_their_own_are_pruned() -> None:
    check_exact(behind_b(in_half_precision), {"b": nn.Conv2d(8, 6, 1)}, "a b")


def test_autocast_does_nothing_meanwhile_and_all_afterwards() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast():
            assert layer(x).dtype is torch.float32
            with torch.autocast("cpu", torch.bfloat16):
                assert layer(x).dtype is torch.float32
        assert layer(x).dtype is torch.bfloat16
