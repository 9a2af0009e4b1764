"""Limits on what a layer reads: what is left of an extreme over channels once channels of zeros are gone.

The largest of a network's channels is at least 0 where one of them is a channel of zeros. When that one leaves, the
layer that reads the largest of the others takes 0 for what is less: a hook of its own, before its forward. The limits,
one for each input, are buffers of the layer, so that a file has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rr.compactors import own_hook

# The buffer's name, what it does, and its number for an input without a limit.
BOUNDS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "floor_of_extremes": (torch.maximum, -math.inf),
    "ceiling_of_extremes": (torch.minimum, math.inf),
}
_LAYERS = (nn.Linear, _ConvNd)
_OF_EXTREME = {"max": "floor_of_extremes", "min": "ceiling_of_extremes"}


def bound_inputs(layer: nn.Module, extreme: str, inputs: Tensor) -> None:
    """Let a layer read 0 in place of what is less in some of its inputs, or of what is more, in place.

    Args:
        layer: a convolution or linear layer.
        extreme: "max" where the inputs are largest values of channels, "min" where they are least ones.
        inputs: [in] of bool, which of its inputs these are.
    """
    name = _OF_EXTREME[extreme]
    limits = layer._buffers.get(name)
    if limits is None:
        limits = layer.weight.new_full(_shape(layer, len(inputs)), BOUNDS[name][1])
    layer.register_buffer(name, limits.detach().masked_fill(inputs.view_as(limits).to(limits.device), 0.0))
    hook_bounds(layer)


def fit_bounds(layer: nn.Module, own: Mapping[str, tuple[int, ...]]) -> None:
    """Give a layer the limits that a file has for it, by the shapes of its arrays (`own`), in place; no values."""
    if not isinstance(layer, _LAYERS):
        return
    inputs = getattr(layer, "in_channels", getattr(layer, "in_features", 0))
    for name in BOUNDS.keys() & own.keys():
        if own[name] == _shape(layer, inputs):
            layer.register_buffer(name, layer.weight.new_empty(own[name]))
    hook_bounds(layer)


def hook_bounds(layer: nn.Module) -> None:
    """Let a layer that has limits read within them, in place."""
    has_some = isinstance(layer, _LAYERS) and not BOUNDS.keys().isdisjoint(layer._buffers)
    if has_some and _within_bounds not in layer._forward_pre_hooks.values():
        layer.register_forward_pre_hook(_within_bounds)


@own_hook
def _within_bounds(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x, *others = inputs
    for name, (limited, _) in BOUNDS.items():
        if name in layer._buffers:
            x = limited(x, getattr(layer, name))
    return x, *others


def _shape(layer: nn.Module, inputs: int) -> tuple[int, ...]:
    """So that it broadcasts with what the layer reads."""
    return (inputs, *[1] * (layer.weight.dim() - 2))
