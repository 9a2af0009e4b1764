"""Tensors of a live model, and what optimisers keep for them, changed in place."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

OptimizerState = MutableMapping[nn.Parameter, dict]

# What optimisers of torch keep of squared gradients: positive, so that it is averaged and not mixed with signs.
SECOND_MOMENTS = frozenset(["exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "sum", "variance"])


def numbers_of(state: OptimizerState, parameter: Tensor) -> list[tuple[str, Tensor]]:
    """What an optimiser keeps for each number of a parameter, by name.

    Where it keeps sums over rows and columns instead (Adafactor), which nothing can be taken out of, all that it has
    for the parameter is dropped, so that it starts afresh there.
    """
    tensors = {key: value for key, value in state.get(parameter, {}).items() if isinstance(value, Tensor)}
    if any(value.shape != parameter.shape and value.numel() > 1 for value in tensors.values()):
        del state[parameter]
        return []
    return [(key, value) for key, value in tensors.items() if value.shape == parameter.shape]


def put_tensor(model: nn.Module, name: str, values: Tensor) -> None:
    """Give a parameter or buffer other values, of another shape perhaps; a parameter stays the object that it is."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    tensor = getattr(owner, leaf)
    values = values.to(tensor, memory_format=format_of(tensor))
    if not isinstance(tensor, nn.Parameter):
        setattr(owner, leaf, values)
        return
    # Another type in between makes autograd forget the node that adds up the parameter's gradient, which knows the old
    # shape and stays while something (DistributedDataParallel) holds it. Not all devices have float64.
    tensor.data = values.new_empty(0, dtype=torch.float32 if values.dtype == torch.float16 else torch.float16)
    tensor.data = values
    tensor.grad = None


def format_of(tensor: Tensor) -> torch.memory_format:
    """Channels-last, or what a copy has by default."""
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.preserve_format
