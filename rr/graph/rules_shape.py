"""Rules for what moves elements: run as it is, on the ids; where channels are grouped, what is alike is tied.

A rule returns the ids of the node's output, or None where it doesn't understand the node.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from rr.graph.channel_ids import channel_vector, compact, spread, uniform, varying
from rr.graph.layers import LayerKind
from rr.graph.operations import ELEMENTWISE, OperationKind, kind_of, operation
from rr.graph.trace import argument, named_arguments, shape_of
from rr.graph.walk import Ids, Walk

_CONVOLUTIONS = {OperationKind.CONVOLUTION, OperationKind.TRANSPOSED}
_KEEP_DIMENSIONS = ELEMENTWISE | {
    *(OperationKind.CAST, OperationKind.PRELU, OperationKind.POOLING, OperationKind.PADDING),
    *(OperationKind.BATCH_NORM, OperationKind.INSTANCE_NORM, OperationKind.GROUP_NORM),
}


def move(walk: Walk, node: fx.Node) -> Ids | None:
    """The ids, moved by the same operation."""
    if walk.reads_parameter(node) or (operation(node) == "roll" and not _rolls_pixels(walk, node)):
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: walk.ids[source])
    if operation(node) in ("cat", "concat"):
        return _joined(args[0], argument(node, 1, "dim", 0)).expand(shape_of(node))
    return listed(node.target(*args, **kwargs))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The parts' ids behind each other, with the dimensions still cut to one that are expanded in all of them."""
    dims = max(part.dim() for part in parts)  # an empty part may have fewer
    for other in {*range(dims)} - {dim % dims}:
        if all(part.dim() == dims and part.stride(other) == 0 for part in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    return torch.cat([*parts], dim)


def _rolls_pixels(walk: Walk, node: fx.Node) -> bool:
    """Whether channels stay where they are: which one comes round the end depends on how many there are."""
    ids, dims = compact(walk.ids[node.args[0]]), argument(node, 2, "dims")
    return uniform(ids, [dim % ids.dim() for dim in dims] if dims else list(range(ids.dim())))


def view(walk: Walk, node: fx.Node) -> Ids | None:
    """The ids in other dimensions; a dimension of channels that becomes several is tied across them."""
    if walk.reads_parameter(node):
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: walk.ids[source])
    # An expanded tensor has no view of every shape.
    is_view = operation(node) in ("view", "_unsafe_view")
    moved = args[0].reshape(args[1]) if is_view else node.target(*args, **kwargs)
    return _split_channels(walk, node, args[0], moved)


def like(walk: Walk, node: fx.Node) -> Ids | None:
    """The first tensor's ids in the second one's shape."""
    ids, shape = walk.ids[node.args[0]], shape_of(node)
    if walk.reads_parameter(node):
        return None
    return ids.expand(shape) if operation(node) == "expand_as" else _split_channels(walk, node, ids, ids.reshape(shape))


def listed(moved: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Ids:
    """What an operation on ids gave; several of them as a list."""
    return moved if isinstance(moved, Tensor) else list(moved)


def _split_channels(walk: Walk, node: fx.Node, source: Tensor, moved: Tensor) -> Tensor | None:
    """A view that splits a dimension of channels into several ([C] as [groups, C / groups]): one of them shrinks.

    What lies at the same place along the others therefore goes together. Where the forward says -1, that one shrinks.
    Else it is the last, but the first where it is an image out of a linear layer ([C h w] as [C, h, w]): each channel's
    pixels go together. A wrong guess shows in the rehearsal.
    """
    shape, before, after = moved.shape, varying(source), varying(moved)
    for dim in set(range(moved.dim())) - set(after):  # merging dimensions made whole copies of the ids
        moved = moved.narrow(dim, 0, 1)
    if len(after) > len(before):
        if len(before) != 1:
            return None
        free = [dim for dim in after if dim == _free_dimension(node)]
        if after[0] == 1 and _is_convolved(node):
            free = after[:1]
        moved = walk.flow.tie(moved, [dim for dim in after if dim not in (free or after[-1:])])
        walk.flow.count(moved)
    elif _cuts_groups(walk, node, source, moved, before, after):
        moved = walk.flow.tie(moved, after)
    return moved.expand(shape)


def _free_dimension(node: fx.Node) -> int | None:
    """Which dimension of a view the forward leaves to the others (-1)."""
    named = named_arguments(node)
    sizes = list(named.get("size") or named.get("shape") or named.get("sizes") or [])
    if -1 not in sizes:
        return None
    first = named["dim"] % len(shape_of(node.args[0])) if operation(node) == "unflatten" else 0
    return first + sizes.index(-1)


def _cuts_groups(walk: Walk, node: fx.Node, source: Tensor, moved: Tensor, before: list[int], after: list[int]) -> bool:
    """Whether a view cuts channels that go by whole groups of a convolution into as many parts as the forward says."""
    if not len(before) == len(after) == 1 or after[0] == _free_dimension(node):
        return False
    if moved.shape[after[0]] >= source.shape[before[0]]:
        return False
    units = {walk.flow.find(int(channel)) for channel in compact(moved).unique()}
    grouped = (call.out_ids for call in walk.flow.layers if call.kind is LayerKind.GROUPED)
    return any(units == {walk.flow.find(int(channel)) for channel in np.unique(ids)} for ids in grouped)


def _is_convolved(node: fx.Node) -> bool:
    """Whether a convolution reads a tensor in the dimensions that it has."""
    seen, waiting = {node}, [node]
    while waiting:
        source = waiting.pop()
        for reader in source.users.keys() - seen:
            if kind_of(reader) in _CONVOLUTIONS:
                return True
            if kind_of(reader) in _KEEP_DIMENSIONS:
                seen.add(reader)
                waiting.append(reader)
    return False


def padding(walk: Walk, node: fx.Node) -> Ids | None:
    """More pixels of the same channels, or more channels, of zeros, which stay."""
    ids = walk.ids[node.args[0]]
    widths = list(argument(node, 1, "pad") or argument(node, 1, "padding"))
    mode = argument(node, 2, "mode", "constant") if operation(node) == "pad" else operation(node)
    for place, (low, high) in enumerate(zip(widths[::2], widths[1::2], strict=True)):  # the last dimension first
        dim = ids.dim() - 1 - place
        if low == high == 0:
            continue
        if uniform(compact(ids), [dim]):
            shape = [*ids.shape[:dim], ids.shape[dim] + low + high, *ids.shape[dim + 1 :]]
            ids = ids.narrow(dim, 0, 1).expand(shape)
            continue
        if min(low, high) < 0 or mode not in ("constant", "constant_pad_nd"):
            return None
        ids = torch.cat([_added(walk, ids, dim, low), ids, _added(walk, ids, dim, high)], dim)
    return ids


def _added(walk: Walk, ids: Tensor, dim: int, width: int) -> Tensor:
    """Zeros in the place of channels, as many as the forward says."""
    fresh = walk.flow.fresh(width)
    walk.flow.protect(fresh, "a channel that padding adds")
    shape = [1] * ids.dim()
    shape[dim] = width
    return torch.from_numpy(fresh).view(shape).expand([*ids.shape[:dim], width, *ids.shape[dim + 1 :]])


def pixel_shuffle(walk: Walk, node: fx.Node) -> Ids | None:
    """r x r channels become one of r x r times the pixels."""
    channels, area = channel_vector(walk.ids[node.args[0]], -3), node.args[1] ** 2
    if channels is None:
        return None
    tied = walk.flow.tie(torch.from_numpy(channels).view(-1, area), [1])
    return spread(tied[:, 0].numpy(), -3, shape_of(node))


def pixel_unshuffle(walk: Walk, node: fx.Node) -> Ids | None:
    """A channel becomes r x r of them."""
    channels = channel_vector(walk.ids[node.args[0]], -3)
    return None if channels is None else spread(np.repeat(channels, node.args[1] ** 2), -3, shape_of(node))


def channel_shuffle(walk: Walk, node: fx.Node) -> Ids | None:
    """The channels at the same place of each group side by side."""
    channels = channel_vector(walk.ids[node.args[0]], 1)
    if channels is None:
        return None
    tied = walk.flow.tie(torch.from_numpy(channels).view(node.args[1], -1), [0])  # [groups, channels of each]
    return spread(tied.T.flatten().numpy(), 1, shape_of(node))


def glu(walk: Walk, node: fx.Node) -> Ids | None:
    """Each channel of one half goes with the one that gates it."""
    ids = walk.ids[node.args[0]]
    dim = argument(node, 1, "dim", -1) % ids.dim()
    halves = ids.unflatten(dim, (2, ids.shape[dim] // 2))
    if not uniform(compact(ids), [dim]):
        halves = walk.flow.tie(halves, [dim])
        walk.flow.count(halves)
    return halves.select(dim, 0)


def patches(walk: Walk, node: fx.Node) -> Ids | None:
    """Each channel as often as a patch has pixels; or windows along a dimension that has no channels."""
    ids = walk.ids[node.args[0]]
    if operation(node) == "unfold":
        dim = node.args[1] % ids.dim()
        if not uniform(compact(ids), [dim]):
            return None
        return compact(ids).narrow(dim, 0, 1).unsqueeze(-1).expand(shape_of(node))
    channels = channel_vector(ids, 1)
    return None if channels is None else spread(np.repeat(channels, math.prod(node.args[1])), 1, shape_of(node))


def fold(walk: Walk, node: fx.Node) -> Ids | None:
    """The pixels of a patch, which are channels, become one."""
    channels = channel_vector(walk.ids[node.args[0]], 1)
    if channels is None:
        return None
    tied = walk.flow.tie(torch.from_numpy(channels).view(-1, math.prod(node.args[2])), [1])
    return spread(tied[:, 0].numpy(), 1, shape_of(node))


def getitem(walk: Walk, node: fx.Node) -> Ids | None:
    """One of several outputs."""
    source = walk.ids.get(node.args[0])
    return operator.getitem(source, node.args[1]) if isinstance(source, list) else None
