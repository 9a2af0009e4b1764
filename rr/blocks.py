"""Blocks that leave: where a residual runs past a block, nothing of its inside has to stay.

With no inner channel alive, all that a block adds to the stream is a constant. Its last layer becomes that constant,
and what fed it goes. The user's forward still runs every line, so in the place of a layer that is gone stands one that
hands on a single channel of zeros of the right size, which nothing reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from rr.flow import PRODUCERS

if TYPE_CHECKING:
    from rr.graph import ChannelGraph, Layer


def without_unread(graph: ChannelGraph, alive: np.ndarray, droppable: np.ndarray) -> np.ndarray:
    """`alive` without the units that only layers read of whose outputs none is alive: nothing depends on them.

    alive, droppable: [num_units] of bool; others stay, whoever reads them. There are some where a whole layer is gone.
    """
    alive = alive.copy()
    readers = [layer for layer in graph.layers.values() if layer.kind in PRODUCERS]
    has_reader = np.zeros(graph.num_units, dtype=bool)
    for layer in readers:
        has_reader[layer.in_units] = True
    while True:
        read = np.zeros(graph.num_units, dtype=bool)
        for layer in readers:
            if alive[layer.out_units].any():
                read[layer.in_units] = True
        unread = alive & droppable & has_reader & ~read
        if not unread.any():
            return alive
        alive[unread] = False


def may_vanish(graph: ChannelGraph, selected: np.ndarray) -> np.ndarray:
    """[groups] of bool: the groups that may lose their last unit, all of them at once.

    selected: [num_units] of bool, the units that may go at all
    """
    vanishing = np.zeros(len(graph.groups), dtype=bool)
    alive = np.ones(graph.num_units, dtype=bool)
    for position, group in enumerate(graph.groups):
        if not selected[group.units].all():
            continue
        tried = alive.copy()
        tried[group.units] = False
        tried = without_unread(graph, tried, selected)
        if _only_blocks_are_gone(graph, tried):
            alive = tried
            vanishing[position] = True
    for position, group in enumerate(graph.groups):  # those that went along
        vanishing[position] |= not alive[group.units].any()
    return vanishing


def _only_blocks_are_gone(graph: ChannelGraph, alive: np.ndarray) -> bool:
    """Whether each layer that loses its last input adds into a stream, and the others still see the network's input."""
    dense = [layer for layer in graph.layers.values() if layer.kind in PRODUCERS]
    gone = np.zeros(graph.num_units, dtype=bool)
    for layer in dense:
        if not alive[layer.out_units].any():
            gone[layer.out_units] = True
    varies = _from_the_input(graph, dense, alive)
    for layer in dense:
        if not alive[layer.out_units].any():
            continue
        if alive[layer.in_units].any():
            if gone[layer.in_units].any() or not varies[layer.in_units].any():
                return False  # reads what is gone beside others, joined by their places; or a constant is all it reads
            continue
        adds = all(int(unit) in graph.streams for unit in layer.out_units)
        if layer.kind == "transposed" or len(layer.nodes) > 1 or not adds:
            return False
    return True


def _from_the_input(graph: ChannelGraph, dense: list[Layer], alive: np.ndarray) -> np.ndarray:
    """[num_units] of bool: the live units whose channels still depend on the network's input."""
    varies = alive.copy()
    for layer in dense:
        varies[layer.out_units] = False
    waiting = dense
    while True:
        still = [layer for layer in waiting if not varies[layer.in_units].any()]
        for layer in waiting:
            if varies[layer.in_units].any():
                varies[layer.out_units] |= alive[layer.out_units]
        if len(still) == len(waiting):
            return varies
        waiting = still


class _StandIn(nn.Module):
    """In the place of a convolution or linear layer: knows the size of its output, [N, C, H', W'] or [..., C]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.spatial = None if isinstance(layer, nn.Linear) else _spatial(layer)

    def fill(self, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """`values`, [C], at each of the output's places, in memory of their own: in-place operations may follow."""
        if self.spatial is None:
            return values.expand(*x.shape[:-1], len(values)).clone()
        sizes = [
            size if padding is None else (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, (kernel, stride, padding, dilation) in zip(x.shape[2:], self.spatial, strict=True)
        ]
        return values.view(-1, *[1] * len(sizes)).expand(x.shape[0], len(values), *sizes).clone()


def _spatial(conv: nn.Module) -> list[tuple[int, int, int | None, int]]:
    """Kernel, stride, padding (None: the size stays) and dilation in each dimension."""
    if isinstance(conv.padding, str):
        padding = [None if conv.padding == "same" else 0] * len(conv.kernel_size)
    else:
        padding = conv.padding
    return list(zip(conv.kernel_size, conv.stride, padding, conv.dilation, strict=True))


class Gone(_StandIn):
    """A layer without a live output: one channel of zeros, which nothing reads.

    gone: [0], so that a file of weights says what has become of the layer
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.register_buffer("gone", layer.weight.new_zeros(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fill(x, x.new_zeros(1))


class Constant(_StandIn):
    """A layer without a live input: its bias, all that a block adds to its stream that has lost its inside.

    constant: [C]
    """

    def __init__(self, layer: nn.Module, bias: torch.Tensor) -> None:
        super().__init__(layer)
        self.constant = nn.Parameter(bias.detach().clone(), requires_grad=layer.weight.requires_grad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fill(x, self.constant)


def stand_in(layer: Layer, module: nn.Module, bias: torch.Tensor | None, alive: np.ndarray) -> nn.Module | None:
    """What takes the place of a layer without a live output or input; None for others. bias: [live outputs], folded."""
    if not alive[layer.out_units].any():
        return Gone(module)
    if layer.kind in PRODUCERS and not alive[layer.in_units].any():
        return Constant(module, module.weight.new_zeros(int(alive[layer.out_units].sum())) if bias is None else bias)
    return None
