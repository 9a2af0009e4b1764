"""Means and extremes over channels (spatial attention: CBAM), where the layers that read them can make up for it.

With dead channels, which are zeros, gone, a mean is `all / left` times as large, which the weight that reads it takes
back, and an extreme is the one of the others and 0, which is a limit on what a layer reads
(`rr.weights.input_bounds`). Behind a ReLU no largest value is under 0 anyway.
"""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from rr.graph.channel_ids import compact
from rr.graph.layers import OverChannels
from rr.graph.operations import OperationKind, has_same_values, is_dropout, is_in_place, kind_of, operation
from rr.graph.trace import argument, named_arguments
from rr.graph.walk import Ids, Walk
from rr.weights.input_bounds import BOUNDS

_CALLED = {"mean": "mean", "amax": "max", "max": "max", "amin": "min", "min": "min"}
_LAYERS = (OperationKind.CONVOLUTION, OperationKind.TRANSPOSED, OperationKind.LINEAR)
_NEVER_NEGATIVE = frozenset("relu relu6 sigmoid hardsigmoid softplus exp exp2 square abs softmax".split())
_NEVER_OF_OTHERS = frozenset("add mul multiply maximum mean sum amax".split())  # where all that they read is none
_LIMITS = {"hardtanh": "min_val", "clamp": "min", "clamp_min": "min", "clip": "min"}


def over_channels(walk: Walk, node: fx.Node) -> Ids | None:
    """The ids of a mean or an extreme over channels; None where fewer of these would change what comes of it."""
    name = _CALLED.get(operation(node))
    if name == "max" and _never_negative(node.args[0]):
        return walk.of_all_channels(node)
    readers = None if name is None else _layers_that_read(walk, node)
    if readers is None:
        return None
    ids = walk.of_all_channels(node)
    result = int(compact(ids[0] if isinstance(ids, list) else ids))
    channels = compact(walk.ids[node.args[0]]).flatten().numpy()
    walk.flow.over_channels.append(OverChannels(name, tuple(readers), channels, result))
    return ids


def _layers_that_read(walk: Walk, node: fx.Node) -> list[str] | None:
    """The layers that read a value as it is, each called once; None where anything else reads it."""
    found, waiting = [], [(user, node) for user in node.users]
    while waiting:
        reader, source = waiting.pop()
        if operation(reader) == "getitem" and reader.args[1] == 0:
            waiting += [(user, reader) for user in reader.users]
        elif operation(reader) == "getitem":  # the places of the extremes
            if reader.users:
                return None
        elif kind_of(reader) is OperationKind.MOVE or has_same_values(reader) or _is_bound(walk, reader):
            waiting += [(user, reader) for user in reader.users]
        elif kind_of(reader) in _LAYERS and reader.args[0] is source:
            name = walk.layer_of(reader, argument(reader, 1, "weight"), "weight", (nn.Linear, _ConvNd))
            is_plain = name is not None and getattr(walk.modules[name], "groups", 1) == 1
            if not is_plain or len(walk.readers[f"{name}.weight"]) > 1:
                return None
            found.append(name)
        else:
            return None
    return sorted(set(found))


def _is_bound(walk: Walk, node: fx.Node) -> bool:
    """Whether it is a limit that an earlier conversion has put before a layer."""
    bounds = (walk.trace.parameter(source) for source in node.all_input_nodes)
    return operation(node) in ("maximum", "minimum") and any(
        name is not None and name.rpartition(".")[2] in BOUNDS for name in bounds
    )


def _never_negative(node: object) -> bool:
    """Whether a value is at least 0 whatever the network's parameters and inputs are."""
    if isinstance(node, (int, float)):
        return node >= 0
    if not isinstance(node, fx.Node) or node.op != "call_function" or any(is_in_place(user) for user in node.users):
        return False
    name, given = operation(node), named_arguments(node) if hasattr(node.target, "_schema") else {}
    if name in _NEVER_NEGATIVE:
        return True
    if name in _LIMITS:
        return isinstance(least := given.get(_LIMITS[name]), (int, float)) and least >= 0
    if kind_of(node) is OperationKind.POOLING and "bicubic" not in name:
        return _never_negative(node.args[0])
    if kind_of(node) is OperationKind.MOVE or name in _NEVER_OF_OTHERS or has_same_values(node) or is_dropout(node):
        read = [*node.all_input_nodes, *(value for value in node.args[1:2] if name in ("add", "mul", "multiply"))]
        return all(_never_negative(value) for value in read)
    return False
