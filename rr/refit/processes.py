"""What the processes of a distributed refit do together: each has its own images, and all come to the same network."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from rr.runtime import are_several


def added_up(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place; one process: the tensor itself."""
    if are_several():
        dist.all_reduce(tensor)
    return tensor


def total(number: float, like: Tensor) -> float:
    """The sum of a number over all processes.

    Args:
        number: this process's.
        like: a tensor on the device that the processes talk over.
    """
    return float(added_up(torch.tensor(float(number), dtype=torch.float64, device=like.device)))


def of_first(tensor: Tensor) -> Tensor:
    """Rank 0's values, in place, so that no rounding lets the ranks diverge; one process: the tensor itself."""
    if are_several():
        dist.broadcast(tensor, src=0)
    return tensor
