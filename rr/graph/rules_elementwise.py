"""Rules for what leaves every element at its place, and for pooling and reductions: ids pass, or meet and are united.

A rule returns the ids of the node's output, or None where it doesn't understand the node.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx

from rr.graph.channel_ids import channel_vector, compact, spread, uniform, varying
from rr.graph.layers import LayerCall, LayerKind, Sum
from rr.graph.means import record_mean
from rr.graph.neighbours import near_channels
from rr.graph.operations import OperationKind, kind_of, operation
from rr.graph.over_channels import over_channels
from rr.graph.trace import argument, named_arguments, shape_of
from rr.graph.walk import Ids, Walk

_READS_A_VECTOR = {
    OperationKind.BINARY,
    OperationKind.PRELU,
    OperationKind.BATCH_NORM,
    OperationKind.INSTANCE_NORM,
    OperationKind.GROUP_NORM,
}


def unary(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels; what else it reads (an exponent) is a number for all, or one for each."""
    if len(node.all_input_nodes) > 1:
        return binary(walk, node)
    return walk.ids.get(node.args[0]) if len(walk.activations(node)) == 1 else None


def cast(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels, whatever tensor the type is taken from."""
    return walk.ids.get(node.args[0])


def binary(walk: Walk, node: fx.Node) -> Ids | None:
    """Channels that meet at one place are united."""
    return _with_parameter(walk, node) if walk.reads_parameter(node) else several(walk, node)


def several(walk: Walk, node: fx.Node) -> Ids | None:
    """Channels of any number of tensors that meet at one place are united; numbers meet all alike."""
    if walk.reads_parameter(node):
        return None
    first, *others = (walk.ids[source] for source in walk.activations(node))
    of_layers = walk.of_vectors.isdisjoint(walk.activations(node))  # the shift of a frozen norm makes no stream
    adds = operation(node) in ("add", "sub", "subtract", "rsub") and of_layers
    for other in others:
        first = _met(walk, first, other, in_stream=adds)
        if first is None:
            return None
    shape = shape_of(node)
    first = first[(None,) * (len(shape) - first.dim())].expand(shape)
    if any(_by_channel(source, first) for source in node.all_input_nodes if not walk.written.get(source, True)):
        walk.flow.protect(compact(first).flatten().numpy(), "meets a constant in the model's forward")
    return first


def _by_channel(written: fx.Node, ids: Tensor) -> bool:
    """Whether numbers that the forward writes down differ from one channel of `ids` to the next."""
    shape = shape_of(written)
    return any(shape[dim - ids.dim()] > 1 for dim in varying(ids) if ids.dim() - dim <= len(shape))


def _met(walk: Walk, first: Tensor, second: Tensor, *, in_stream: bool) -> Tensor | None:
    """The ids of two tensors that are broadcast against each other."""
    for one, many in ((first, second), (second, first)):
        if walk.is_of_all_channels(one):
            return many.expand(torch.broadcast_shapes(first.shape, second.shape))
    dims = max(first.dim(), second.dim())
    first, second = (ids[(None,) * (dims - ids.dim())] for ids in (first, second))
    shape = torch.broadcast_shapes(first.shape, second.shape)
    meets_all = [
        any(ids.shape[dim] < other.shape[dim] and not uniform(compact(other), [dim]) for dim in range(dims))
        for ids, other in ((first, second), (second, first))
    ]
    if any(meets_all):  # [N, 1, H, W] meets every channel of [N, C, H, W], and so does each weight of branches, [B]
        one, many = (first, second) if meets_all[0] else (second, first)
        if all(meets_all):
            return None
        many = walk.flow.tie(many, varying(one)) if varying(one) else many
        walk.flow.protect(compact(one).flatten().numpy(), "one channel that meets all channels of another tensor")
        return many.expand(shape)
    first, second = (compact(ids) for ids in torch.broadcast_tensors(first, second))
    first, second = torch.broadcast_tensors(first, second)
    walk.flow.unite(first.flatten().numpy(), second.flatten().numpy(), in_stream=in_stream)
    return walk.flow.canonical(first).expand(shape)


def _with_parameter(walk: Walk, node: fx.Node) -> Tensor | None:
    """An activation and a parameter: a number for all channels, or one for each."""
    activations = walk.activations(node)
    parameter = next(source for source in node.all_input_nodes if walk.trace.parameter(source))
    if len(node.all_input_nodes) != 2 or len(activations) != 1:
        return None
    ids, shape = walk.ids[activations[0]], shape_of(parameter)
    if ids.shape != shape_of(node):
        return None
    dims = [dim - len(shape) for dim, size in enumerate(shape) if size > 1]  # counted from the end, as broadcast
    if not dims:
        return ids
    return _vector(walk, node, parameter, ids, dims[0], dims[0] + len(shape)) if len(dims) == 1 else None


def prelu(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels, each with its own number or all with one."""
    ids, parameter = walk.ids.get(node.args[0]), node.args[1]
    if ids is None or walk.trace.parameter(parameter) is None:
        return None
    return ids if shape_of(parameter).numel() == 1 else _vector(walk, node, parameter, ids, 1, 0)


def vector_alone(walk: Walk, parameter: fx.Node) -> Tensor:
    """A parameter with a number per channel, of which the forward computes something first: channels of its own."""
    shape = shape_of(parameter)
    dim = next(dim for dim, size in enumerate(shape) if size > 1)
    channels = walk.flow.fresh(shape[dim])
    name = walk.trace.parameter(parameter)
    walk.record(LayerCall(name, LayerKind.VECTOR, parameter.name, channels, None, dim=dim))
    return spread(channels, dim, shape)


def _vector(walk: Walk, node: fx.Node, parameter: fx.Node, ids: Tensor, channel_dim: int, dim: int) -> Tensor | None:
    """A parameter's numbers along its dimension `dim` belong to the channels along `channel_dim` of the ids."""
    channels = channel_vector(ids, channel_dim)
    return ids if channels is not None and record_vector(walk, node, parameter, channels, dim) else None


def record_vector(walk: Walk, node: fx.Node, parameter: fx.Node, channels: np.ndarray, dim: int = 0) -> bool:
    """Note a parameter whose numbers along `dim` belong to these channels; False where something else reads it too."""
    name = walk.trace.parameter(parameter)
    if name is None or any(kind_of(reader) not in _READS_A_VECTOR for reader in walk.readers[name]):
        return False
    walk.record(LayerCall(name, LayerKind.VECTOR, node.name, channels, None, dim=dim))
    return True


def pooling(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels at other pixels."""
    ids = compact(walk.ids[node.args[0]])
    pixels = list(range(2, ids.dim()))
    if not pixels or not uniform(ids, pixels):
        return near_channels(walk, node)
    for dim in pixels:
        ids = ids.narrow(dim, 0, 1)
    value = node.meta["val"]  # with the places of the largest, for an adaptive maximum
    return [ids.expand(part.shape) for part in value] if isinstance(value, tuple) else ids.expand(value.shape)


def reduction(walk: Walk, node: fx.Node) -> Ids | None:
    """The channels along the other dimensions."""
    ids, given = compact(walk.ids[node.args[0]]), named_arguments(node)
    dims = given.get("dim", -1 if operation(node) == "kthvalue" else None)
    if dims is None:
        return None
    dims = [dim % ids.dim() for dim in ([dims] if isinstance(dims, int) else dims)]
    differing = varying(ids)
    if not set(differing) <= set(dims):  # of branches, channel by channel
        ids = walk.flow.tie(ids, [dim for dim in dims if dim in differing])
    if differing and set(differing) <= set(dims):
        result = walk.of_all_channels(node) if _adds_up(node) else over_channels(walk, node)
        if result is None and operation(node) == "mean" and _is_counted(walk, node, differing):
            result = walk.of_all_channels(node)
        if result is not None:
            walk.flow.sums.append(Sum(node.name, node.args[0].name, walk.ids[node.args[0]]))
        return result
    if not dims or not uniform(ids, dims):
        return None
    for dim in sorted(dims, reverse=True):
        ids = ids.narrow(dim, 0, 1) if given.get("keepdim", False) else ids.select(dim, 0)
    value = node.meta["val"]  # with the places of the largest, for a maximum
    return [ids.expand(part.shape) for part in value] if isinstance(value, (tuple, list)) else ids.expand(value.shape)


def _is_counted(walk: Walk, node: fx.Node, differing: list[int]) -> bool:
    """Whether a mean is over channels alone, in a module that can be told how many there are."""
    return named_arguments(node)["dim"] in ([differing[0]], [differing[0] - walk.ids[node.args[0]].dim()]) and (
        record_mean(walk, node, differing[0])
    )


def _adds_up(node: fx.Node) -> bool:
    """Whether a reduction's result is the same with more zeros."""
    given = named_arguments(node)
    power = given.get("ord", given.get("p", 2))
    return operation(node) in ("sum", "linalg_vector_norm", "norm") and isinstance(power, (int, float)) and power > 0


def along(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels, where it goes along the pixels."""
    ids = walk.ids[node.args[0]]
    return ids if uniform(compact(ids), [named_arguments(node)["dim"] % ids.dim()]) else None


def sampling(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels at pixels that another tensor says: one for all channels, or one for each."""
    ids = walk.ids[node.args[0]]
    if operation(node) != "grid_sampler":
        places = walk.ids.get(node.args[1])
        if places is None or (ids := _met(walk, ids, places, in_stream=False)) is None:
            return None
    ids = compact(ids)
    pixels = list(range(2, ids.dim()))
    if not uniform(ids, pixels):
        return None
    for dim in pixels:
        ids = ids.narrow(dim, 0, 1)
    return ids.expand(shape_of(node))


def resizing(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels, where another dimension gets longer, shorter or into another order."""
    ids, dim = compact(walk.ids[node.args[0]]), named_arguments(node).get("dim", -1)
    if operation(node) == "repeat_interleave":
        dim = argument(node, 2, "dim")  # without one, all elements in a row
    if dim is None or len(walk.activations(node)) != 1 or not uniform(ids, [dim % ids.dim()]):
        return None
    ids, value = ids.narrow(dim, 0, 1), node.meta["val"]  # with the places, for what sorts
    return [ids.expand(part.shape) for part in value] if isinstance(value, (tuple, list)) else ids.expand(value.shape)


def softmax(walk: Walk, node: fx.Node) -> Ids | None:
    """Over anything but the channels: over the branches among which each channel chooses, say."""
    ids = walk.ids[node.args[0]]
    return ids if uniform(compact(ids), [argument(node, 1, "dim") % ids.dim()]) else None
