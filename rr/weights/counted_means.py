"""Modules that divide by a mean over their channels (GRN): with fewer channels, scale and `eps` change with the number.

With `left` of `full` channels, the others zeros, the mean is full / left times as large. So a `weight` and an `eps`
that are as many times as large leave weight * x / (mean + eps) what it was. No parameter tells of `eps`, so that a
narrow network says both numbers in the shape of an empty buffer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

_BUFFER = "mean_of_channels"


def has_scale_and_epsilon(module: nn.Module) -> bool:
    """Whether a module has what would have to change with the number of its channels."""
    return type(vars(module).get("eps")) is float and module._parameters.get("weight") is not None


@torch.no_grad()
def count_mean(module: nn.Module, full: int, left: int) -> None:
    """Let a module that has lost channels of zeros compute what it did, in place; its state dict says how many.

    Args:
        module: it has `left` channels already.
        full: how many channels it had.
        left: how many are left.
    """
    module.weight.mul_(full / left)
    _note(module, _noted(module)[0] or full, left)


def fit_mean(module: nn.Module, own: Mapping[str, tuple[int, ...]]) -> None:
    """Give a full network's module the `eps` that a file says, by the shapes of its arrays (`own`), in place."""
    shape = own.get(_BUFFER, ())
    if len(shape) == 3 and 0 < shape[2] <= shape[1] and has_scale_and_epsilon(module):
        _note(module, *shape[1:])


def _note(module: nn.Module, full: int, left: int) -> None:
    before_full, before_left = _noted(module)
    was = before_full / before_left if before_full else 1.0
    module.eps = module.eps / was * (full / left)
    module.register_buffer(_BUFFER, torch.empty(0, full, left))


def _noted(module: nn.Module) -> tuple[int, int]:
    """How many channels a module had and has; 0 where it never lost any."""
    buffer = module._buffers.get(_BUFFER)
    return (0, 0) if buffer is None else (buffer.shape[1], buffer.shape[2])
