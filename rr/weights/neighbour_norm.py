"""A local response norm over some of the channels that it had: each is still divided by its old neighbours.

torch's own norm takes the channels side by side. With channels of zeros gone, those that are left have others at their
side, so what takes its place is told for each channel which ones were near.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NeighbourNorm(nn.Module):
    """y = x / (k + alpha / size * sum of x^2 over the channels that are near)^beta.

    Args:
        norm: the local response norm, of torch or of this kind, that it takes the place of.
        neighbours: [size, C] of whole numbers, the places of the channels that are near each; C for one that is none.

    Attributes:
        neighbours: as given, a buffer.
        size, alpha, beta, k: as torch's norm has them.
    """

    def __init__(self, norm: nn.LocalResponseNorm | NeighbourNorm, neighbours: Tensor) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = norm.size, norm.alpha, norm.beta, norm.k
        self.register_buffer("neighbours", neighbours)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] to the same."""
        squares = F.pad(x.square(), [0] * (2 * (x.dim() - 2)) + [0, 1])  # the last channel is none
        near = squares.index_select(1, self.neighbours.flatten()).unflatten(1, tuple(self.neighbours.shape))
        return x / (self.k + self.alpha / self.size * near.sum(1)) ** self.beta


def norm_of_some(norm: nn.Module, channels: int, kept: Tensor) -> nn.Module:
    """A local response norm over the channels that are left.

    Args:
        norm: the norm, of torch or of this kind.
        channels: how many it has.
        kept: [C], the places of those that are left, in order.
    """
    if isinstance(norm, NeighbourNorm):
        neighbours = norm.neighbours
    else:
        places = torch.arange(channels) + torch.arange(-(norm.size // 2), (norm.size + 1) // 2)[:, None]
        neighbours = places.where((places >= 0) & (places < channels), channels)  # [size, channels]
    now = torch.full((channels + 1,), len(kept))
    now[kept] = torch.arange(len(kept))
    return NeighbourNorm(norm, now.to(neighbours.device)[neighbours[:, kept.to(neighbours.device)]])


def norm_in_file(
    norm: nn.LocalResponseNorm, own: Mapping[str, tuple[int, ...]], device: torch.device
) -> NeighbourNorm | None:
    """What a file has in a norm's place, by the shapes of its arrays (`own`); None where that is torch's own norm."""
    shape = own.get("neighbours", ())
    if len(shape) != 2 or shape[0] != norm.size:
        return None
    return NeighbourNorm(norm, torch.empty(shape, dtype=torch.int64, device=device))
