"""Stand-ins for layers that are gone, so that a user's forward still runs every line.

A block that a residual bypasses may lose all of its inside. All that it adds to the stream is then a constant: its
last layer becomes that constant, and what fed it passes on a single channel of zeros of the right size, which nothing
reads.
"""

from __future__ import annotations

import torch
from torch import nn


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

    Attributes:
        gone: [0], so that a file of weights says what has become of the layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.register_buffer("gone", layer.weight.new_zeros(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fill(x, x.new_zeros(1))


class Constant(_StandIn):
    """A layer without a live input: its bias, which is all that a block that has lost its inside adds to its stream.

    Attributes:
        constant: [C].
    """

    def __init__(self, layer: nn.Module, bias: torch.Tensor) -> None:
        super().__init__(layer)
        self.constant = nn.Parameter(bias.detach().clone(), requires_grad=layer.weight.requires_grad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fill(x, self.constant)
