"""Means over channels in modules that can be told how many channels are left (GRN), in the numbers that they have.

Whether a module is one is tried in numbers, not read from its class: with channels of zeros left out, and `weight` and
`eps` as many times as large as the mean gets (`rr.weights.counted_means`), its outputs must be what they were.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from rr.graph.channel_ids import channel_vector
from rr.graph.layers import LayerCall, LayerKind
from rr.graph.tensors import bare_in_float64
from rr.graph.trace import running_module, shape_of
from rr.graph.walk import Walk
from rr.weights.counted_means import count_mean, has_scale_and_epsilon


def record_mean(walk: Walk, node: fx.Node, dim: int) -> bool:
    """Note a mean over the channels, which lie along `dim`; False where its module can't be told their number."""
    name, channels = running_module(node), channel_vector(walk.ids[node.args[0]], dim)
    module, shape = walk.modules.get(name), _input_shape(walk, name)
    if channels is None or module is None or shape is None or not has_scale_and_epsilon(module):
        return False
    if len(shape) != len(shape_of(node.args[0])) or shape[dim] != len(channels):
        return False
    if not walk.tried("mean", name, lambda: _can_be_told(module, shape, dim)):
        return False
    walk.record(LayerCall(f"{name}.mean()".removeprefix("."), LayerKind.MEAN, node.name, channels, None))
    return True


def _input_shape(walk: Walk, name: str) -> torch.Size | None:
    """The shape of the first activation that a module reads from outside."""
    for node in walk.trace.nodes:
        if node.op == "call_function" and running_module(node) == name:
            for source in node.all_input_nodes:
                if walk.trace.parameter(source) is None and running_module(source) != name:
                    return shape_of(source)
    return None


@torch.no_grad()
def _can_be_told(module: nn.Module, shape: torch.Size, dim: int) -> bool:
    """Whether the module computes the same without channels of zeros, once its scale and `eps` are changed."""
    full, narrow = bare_in_float64(module), bare_in_float64(module)
    generator = torch.Generator().manual_seed(0)
    count = shape[dim]
    alive = torch.randperm(count, generator=generator)[: (count + 1) // 2].sort().values
    for tensor, own in zip(full.parameters(), narrow.parameters(), strict=True):
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
        of_channels = [place for place, size in enumerate(tensor.shape) if size == count]
        own.data = tensor.index_select(of_channels[0], alive) if len(of_channels) == 1 else tensor.clone()
    count_mean(narrow, count, len(alive))
    x = torch.zeros(shape, dtype=torch.float64)
    x.index_copy_(dim, alive, torch.randn(x.index_select(dim, alive).shape, generator=generator, dtype=x.dtype))
    for scale in (1.0, 100.0, full.eps):  # of the last one's size, so that it counts
        try:
            expected, found = full(scale * x), narrow(scale * x.index_select(dim, alive))
        except Exception:  # it wants other inputs than one tensor, or as many channels as it has
            return False
        if not isinstance(expected, Tensor) or not isinstance(found, Tensor) or expected.shape != x.shape:
            return False
        if not torch.allclose(expected.index_select(dim, alive), found, rtol=1e-9, atol=1e-9 * scale):
            return False
    return True
