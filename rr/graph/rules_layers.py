"""Rules for layers: convolutions and linear layers make new channels or pass on their groups', BN passes all on.

A rule returns the ids of the node's output, or None where it doesn't understand the node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from rr.graph.channel_ids import channel_vector, compact, spread, uniform
from rr.graph.layers import LayerCall, LayerKind, Sizes, Sum
from rr.graph.rules_columns import bare_matrix
from rr.graph.rules_elementwise import record_vector
from rr.graph.trace import argument, running_module, shape_of
from rr.graph.walk import Ids, Walk


def batch_norm(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels."""
    ids = walk.ids[node.args[0]]
    channels = channel_vector(ids, 1)
    if argument(node, 3, "running_mean") is None:
        return _with_statistics_of_its_own(walk, node, [argument(node, 1, "weight"), argument(node, 2, "bias")])
    if argument(node, 5, "training"):
        reason = f"normalised by the batch's own statistics in {running_module(node)}, which isn't in eval mode"
        walk.protect(node.args[0], reason)
        return walk.protected(node, reason)
    name = walk.layer_of(node, node.args[3], "running_mean", _BatchNorm)
    if channels is None or name is None or argument(node, 7, "eps") != walk.modules[name].eps:
        return None
    walk.record(LayerCall(name, LayerKind.NORM, node.name, channels, None))
    return ids


def instance_norm(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels, each normalised by its own pixels."""
    return _with_statistics_of_its_own(walk, node, node.args[1:5])


def group_norm(walk: Walk, node: fx.Node) -> Ids | None:
    """The same channels, those of a group as one unit: the groups that stay are whole."""
    channels, groups = channel_vector(walk.ids[node.args[0]], 1), argument(node, 1, "num_groups")
    weight, bias = argument(node, 2, "weight"), argument(node, 3, "bias")
    if channels is None or groups == 1 or not isinstance(walk.modules.get(running_module(node)), nn.GroupNorm):
        return None
    by_group = walk.flow.tie(torch.from_numpy(channels).view(groups, -1), [1])
    if weight is None:
        walk.record_sizes(Sizes(running_module(node), "num_groups", (by_group[:, 0].numpy(),)))
        walk.record_sizes(Sizes(running_module(node), "num_channels", (channels,)))
    return _with_statistics_of_its_own(walk, node, [weight, bias])


def _with_statistics_of_its_own(walk: Walk, node: fx.Node, parameters: Sequence[object]) -> Ids | None:
    """The same channels behind a norm by the activation's own statistics, each with a number in the parameters."""
    ids = walk.ids[node.args[0]]
    channels = channel_vector(ids, 1)
    given = [parameter for parameter in parameters if parameter is not None]
    if channels is None or not all(record_vector(walk, node, parameter, channels) for parameter in given):
        return None
    if not given and isinstance(walk.modules.get(running_module(node)), _NormBase):
        walk.record_sizes(Sizes(running_module(node), "num_features", (channels,)))
    return ids


def convolution(walk: Walk, node: fx.Node) -> Ids | None:
    """New channels; with groups, those of each group's inputs, which go as a whole."""
    weight = argument(node, 1, "weight")
    name = walk.layer_of(node, weight, "weight", _ConvNd)
    columns = _columns(walk, walk.ids[node.args[0]])
    if name is None or columns is None:
        return None
    module = walk.modules[name]
    images, out_channels, *pixels = shape_of(node)  # the images of an example may be stacked into the batch
    per_pixel = math.prod((*module.kernel_size, images, *pixels)) // walk.trace.batch
    if module.groups == 1:
        kind, out_ids = LayerKind.CONV, walk.out_ids(name, out_channels)
    elif module.groups == module.in_channels:
        kind, out_ids = LayerKind.DEPTHWISE, np.repeat(columns, out_channels // module.in_channels)
    elif name in walk.alike:
        return _groups_alike(walk, node, name, columns)
    else:
        # All channels of a group, in and out, are one unit: the groups that stay are whole.
        by_group = columns.reshape(module.groups, -1)  # [groups, inputs of each]
        walk.flow.unite(by_group[:, :-1].flatten(), by_group[:, 1:].flatten())
        kind, out_ids = LayerKind.GROUPED, np.repeat(by_group[:, 0], out_channels // module.groups)
        per_pixel *= by_group.shape[1]
    walk.record(LayerCall(name, kind, node.name, out_ids, columns, walk.macs_of(weight, per_pixel)))
    return spread(out_ids, 1, shape_of(node))


def _groups_alike(walk: Walk, node: fx.Node, name: str, columns: np.ndarray) -> Ids:
    """New channels, those at the same place of each group as one unit; so are its inputs."""
    module = walk.modules[name]
    by_group = columns.reshape(module.groups, -1)
    walk.flow.unite(by_group[:-1].flatten(), by_group[1:].flatten())
    _, out_channels, *pixels = shape_of(node)
    out_ids = walk.out_ids(name, out_channels // module.groups)
    if len(out_ids) < out_channels:  # at the first call
        out_ids = np.tile(out_ids, module.groups)
    macs_each = walk.macs_of(argument(node, 1, "weight"), math.prod(module.kernel_size) * math.prod(pixels))
    walk.record(LayerCall(name, LayerKind.ALIKE, node.name, out_ids, by_group[0], macs_each))
    walk.flow.sums.append(Sum(node.name, node.args[0].name, walk.ids[node.args[0]]))  # a constant would meet all groups
    return spread(out_ids, 1, shape_of(node))


def _columns(walk: Walk, ids: Tensor) -> np.ndarray | None:
    """The id of each input channel; those of its pixels go together where a linear layer made them.

    So do those of images that are stacked into the batch (two of them, cut channels).
    """
    columns = channel_vector(ids, 1)
    if columns is None and ids.dim() > 2 and ids.shape[1] > 1:
        columns = channel_vector(walk.flow.tie(compact(ids), [0, *range(2, ids.dim())]).expand(ids.shape), 1)
    return columns


def _last_columns(walk: Walk, ids: Tensor) -> np.ndarray | None:
    """The id of each input feature; those that stand behind each other (tokens of several layers) go together."""
    columns = channel_vector(ids, -1)
    if columns is None and ids.dim() > 1 and ids.numel() and not uniform(compact(ids), [ids.dim() - 1]):
        columns = channel_vector(walk.flow.tie(compact(ids), range(ids.dim() - 1)).expand(ids.shape), -1)
    return columns


def transposed_convolution(walk: Walk, node: fx.Node) -> Ids | None:
    """New channels."""
    weight = argument(node, 1, "weight")
    name = walk.layer_of(node, weight, "weight", _ConvTransposeNd)
    columns = _columns(walk, walk.ids[node.args[0]])
    if name is None or columns is None or walk.modules[name].groups != 1:
        return None
    images, _, *pixels = shape_of(node.args[0])
    per_pixel = math.prod((*walk.modules[name].kernel_size, images, *pixels)) // walk.trace.batch
    out_ids = walk.out_ids(name, shape_of(node)[1])
    walk.record(LayerCall(name, LayerKind.TRANSPOSED, node.name, out_ids, columns, walk.macs_of(weight, per_pixel)))
    return spread(out_ids, 1, shape_of(node))


def linear(walk: Walk, node: fx.Node) -> Ids | None:
    """New channels along the last dimension."""
    weight = argument(node, 1, "weight")
    name = walk.layer_of(node, weight, "weight", nn.Linear)
    columns = _last_columns(walk, walk.ids[node.args[0]])
    if name is None and walk.trace.parameter(weight) is not None:
        return bare_matrix(walk, node, node.args[0], weight, dim=1)
    if name is None or columns is None:
        return None
    shape = shape_of(node)
    out_ids = walk.out_ids(name, shape[-1])
    positions = math.prod(shape[:-1]) // walk.trace.batch
    walk.record(LayerCall(name, LayerKind.LINEAR, node.name, out_ids, columns, walk.macs_of(weight, positions)))
    return spread(out_ids, -1, shape)
