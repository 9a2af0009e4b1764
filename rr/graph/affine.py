"""Modules that end in a scale and a shift of their own: group, instance and frozen norms.

A dead channel leaves such a module as a constant, its shift. Where that is no good (before padding, say), a compactor
behind the module silences it, and goes into weight and bias in the end. Any module will do whose output is
proportional to its `weight` and `bias` together, channel by channel; batch norms with statistics have rules already.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from rr.compactors import hooks_of_users
from rr.graph.channel_ids import channel_vector
from rr.graph.layers import LayerCall, LayerKind
from rr.graph.operations import operation
from rr.graph.tensors import bare_in_float64
from rr.graph.trace import Trace, shape_of
from rr.graph.walk import Walk

_OWN = ("weight", "bias")
# The operations that scale and shift; after any other (a limit on the values, say) a factor would come too late.
_LINEAR_ENDS = ("group_norm", "instance_norm", "batch_norm", "add", "addcmul")


def module_ends(trace: Trace) -> dict[str, list[str]]:
    """Operation -> the modules whose own forward it ends, at one of their calls; what their children run may follow."""
    ends: dict[str, tuple[str, str]] = {}  # call -> module, its last operation so far
    for node in trace.nodes:
        if stack := node.meta.get("nn_module_stack"):
            call, (path, _) = next(reversed(stack.items()))
            ends[call] = path, node.name
    modules_at: dict[str, list[str]] = {}
    for path, node in ends.values():
        modules_at.setdefault(node, []).append(path)
    return modules_at


def record_affine(walk: Walk, node: fx.Node, ends: Mapping[str, list[str]]) -> None:
    """Note the call of a module that scales and shifts channels, at the operation that ends it.

    Args:
        walk: with the ids of the operation's output.
        node: the operation.
        ends: what `module_ends` found.
    """
    if operation(node) not in _LINEAR_ENDS:
        return
    for name in ends.get(node.name, ()):
        module, ids = walk.modules.get(name), walk.ids.get(node)
        if any(getattr(module, leaf, None) is None for leaf in _OWN) or isinstance(module, nn.Linear | _ConvNd):
            continue
        if hooks_of_users(module):
            continue
        vectors = {call.name: call for call in walk.flow.layers if call.kind is LayerKind.VECTOR}
        own = [vectors.get(f"{name}.{leaf}") for leaf in _OWN]
        if None in own or not isinstance(ids, Tensor) or ids.dim() < 2:
            continue
        channels = channel_vector(ids, 1)
        if channels is None or any(_roots(walk, call.out_ids) != _roots(walk, channels) for call in own):
            continue
        if walk.tried("affine", name, partial(_ends_affine, module, name, walk.trace, node)):
            walk.record(LayerCall(name, LayerKind.AFFINE, node.name, channels, None))


def _roots(walk: Walk, ids: np.ndarray) -> list[int]:
    return [walk.flow.find(int(channel)) for channel in ids]


def _runs_before(trace: Trace, name: str, end: fx.Node) -> set[str]:
    """The children of a module that run before an operation of its own."""
    children = set()
    for node in trace.nodes[: trace.nodes.index(end)]:
        inside = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        children |= {path[len(name) + 1 :].split(".")[0] for path in inside if path.startswith(f"{name}.")}
    return children


def _ends_affine(module: nn.Module, name: str, trace: Trace, end: fx.Node) -> bool:
    return _is_affine(module, shape_of(end), _runs_before(trace, name, end))


@torch.no_grad()
def _is_affine(module: nn.Module, shape: torch.Size, before: set[str]) -> bool:
    """Whether the output is a multiple of its weight and bias together, channel by channel (float64).

    Args:
        module: the module.
        shape: of its output, and of its input.
        before: the children that run before its own last operation; the others (an activation) are left out.
    """
    if isinstance(module, _BatchNorm) and module.running_mean is not None:
        return False
    alone = bare_in_float64(module)
    alone._forward_pre_hooks.clear()
    for child in alone._modules.keys() - before:  # an activation that it runs comes after a compactor
        alone._modules[child] = nn.Identity()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    factors = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    inputs = [scale * x for scale in (1.0, 100.0, 0.01)]
    try:
        expected = [alone(each) * factors.view(-1, *[1] * (len(shape) - 2)) for each in inputs]
        for leaf in _OWN:
            getattr(alone, leaf).mul_(factors.view_as(getattr(alone, leaf)))
        found = [alone(each) for each in inputs]
    except Exception:  # it wants other inputs than one tensor of its output's shape
        return False
    return all(
        isinstance(one, Tensor) and one.shape == shape and torch.allclose(one, other, rtol=1e-9, atol=1e-9)
        for one, other in zip(found, expected, strict=True)
    )
