"""Rules for parameters that read channels with their columns, and whose rows stay: a recurrent layer's, a bare matrix.

A rule returns the ids of the node's output, or None where it doesn't understand the node.
"""

from __future__ import annotations

import math

import numpy as np
from torch import fx, nn

from rr.graph.channel_ids import channel_vector
from rr.graph.layers import LayerCall, LayerKind, Sum
from rr.graph.operations import operation
from rr.graph.trace import running_module, shape_of
from rr.graph.walk import Ids, Walk
from rr.weights.channel_counts import INPUT_WEIGHTS


def recurrent(walk: Walk, node: fx.Node) -> Ids | None:
    """A state of its own, as large as it is; its inputs may lose channels."""
    name = running_module(node)
    columns = channel_vector(walk.ids[node.args[0]], -1)
    overload = getattr(node.target, "_overloadname", "")
    if not isinstance(walk.modules.get(name), (nn.RNNBase, nn.RNNCellBase)) or columns is None or overload == "data":
        return None
    of_inputs = [
        source
        for source in node.all_input_nodes
        if walk.trace.parameter(source) in {f"{name}.{leaf}" for leaf in INPUT_WEIGHTS}
    ]
    if not of_inputs or not all(_is_read_so_alone(walk, node, parameter) for parameter in of_inputs):
        return None
    reason = f"the state of {name}, which keeps its size"
    for parameter in of_inputs:
        _read_by_columns(walk, node, node.args[0], parameter, columns, 1, reason)
    for state in walk.activations(node):  # at the first step
        if state is not node.args[0]:
            walk.protect(state, reason)
    return walk.protected(node, reason)


def bare_matrix(walk: Walk, node: fx.Node, read: fx.Node, parameter: fx.Node, dim: int) -> Ids | None:
    """The last dimension of `read`, along the dimension `dim` of a matrix that no linear layer has."""
    columns, place = channel_vector(walk.ids[read], -1), running_module(node)
    # Attention checks its inputs' width against a number that it keeps.
    if columns is None or isinstance(walk.modules.get(place), nn.MultiheadAttention):
        return None
    if len(shape_of(parameter)) != 2 or not _is_read_so_alone(walk, node, parameter):
        return None
    reason = f"a row of {walk.trace.parameter(parameter)}, which no layer of torch's has"
    _read_by_columns(walk, node, read, parameter, columns, dim, reason)
    return walk.protected(node, reason)


def _is_read_so_alone(walk: Walk, node: fx.Node, parameter: fx.Node) -> bool:
    """Whether nothing else reads the parameter, and other calls read it in the same way."""
    name = walk.trace.parameter(parameter)
    return name is not None and all(
        operation(reader) == operation(node) and running_module(reader) == running_module(node)
        for reader in walk.readers[name]
    )


def _read_by_columns(
    walk: Walk, node: fx.Node, read: fx.Node, parameter: fx.Node, columns: np.ndarray, dim: int, reason: str
) -> None:
    """Note a parameter that reads channels, the last dimension of `read`, along its own dimension `dim`."""
    name, shape = walk.trace.parameter(parameter), shape_of(parameter)
    rows = walk.out_ids(name, shape.numel() // shape[dim])
    walk.flow.protect(rows, reason)
    macs_each = walk.macs_of(parameter, math.prod(shape_of(read)[:-1]) // walk.trace.batch)
    walk.record(LayerCall(name, LayerKind.COLUMNS, node.name, rows, columns, macs_each, dim))
    walk.flow.sums.append(Sum(node.name, read.name, walk.ids[read]))
