"""Why channels that pass through an operation without a rule stay: what it does to them, or what it lacks."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from rr.graph.operations import ELEMENTWISE, OperationKind, kind_of, operation, writes_to_part
from rr.graph.trace import argument, has_sizes, is_empty, running_module, shape_of
from rr.graph.walk import Walk

LAYERS = {OperationKind.CONVOLUTION, OperationKind.TRANSPOSED, OperationKind.LINEAR}
_OVER_CHANNELS = {
    *(OperationKind.OVER_CHANNELS, OperationKind.GROUP_NORM, OperationKind.REDUCTION),
    *(OperationKind.ALONG, OperationKind.RESIZING),
}
_COUNTS = "divides by how many channels there are, whatever they hold"
_ORDERS = "puts the channels in order, a dead one's zero among them"
_WHY = {  # what becomes of the channels that stay when another one is gone
    **dict.fromkeys(["mean", "var", "std", "var_mean", "std_mean", "layer_norm"], _COUNTS),
    **dict.fromkeys(["median", "kthvalue", "quantile"], _ORDERS),
    **dict.fromkeys(["amax", "amin", "max", "min"], "takes the extreme of the channels, a dead one's zero among them"),
    **dict.fromkeys(["softmax", "log_softmax"], "adds up exp(x) of the channels, which is 1 for a dead one's zero"),
    "prod": "multiplies the channels with each other, a dead one's zero too",
    "scaled_dot_product_attention": "divides by the root of how many channels queries and keys have",
}


def reason_of(walk: Walk, node: fx.Node) -> str:
    """Why nothing that passes through an operation can be pruned."""
    name, kind, place = operation(node), kind_of(node), running_module(node) or "the model"
    if node in walk.of_parameters:
        return f"meets what {name} in {place} makes of parameters, which has no rule here"
    if not has_sizes(node):
        return f"passes through {name} in {place}, whose size depends on values"
    if is_empty(node):
        return f"{name} in {place} has nothing to work on for the example inputs: give more of them"
    if writes_to_part(node):
        return f"{name} in {place} writes into a tensor that others read"
    if name in _WHY and kind not in ELEMENTWISE:
        return f"passes through {name} in {place}, which {_WHY[name]}"
    if kind in _OVER_CHANNELS or name == "roll":
        return f"passes through {name} in {place}, which computes over the channels"
    if kind is OperationKind.POOLING:
        return f"passes through {name} in {place}, which pools neighbouring channels, as a local response norm does"
    if kind is OperationKind.CUT:
        return f"is cut by {name} in {place} into parts that aren't alike"
    if kind is OperationKind.CHOICE:
        return f"is chosen by {name} in {place}, by places that no buffer holds for this alone"
    if kind in LAYERS:
        return f"passes through {name} in {place}, which is no plain layer: {why_no_layer(walk, node)}"
    if kind is OperationKind.BATCH_NORM:
        return f"passes through {name} in {place}, which is no plain batch norm: what it reads or has is another's, too"
    return f"passes through {name} in {place}, which has no rule here"


def why_no_layer(walk: Walk, node: fx.Node) -> str:
    """Why a convolution or a linear operation is none whose weight can be made narrower."""
    name, place = walk.trace.parameter(argument(node, 1, "weight")), running_module(node)
    if name is None:
        if kind_of(argument(node, 1, "weight")) is OperationKind.CUT:
            return "its weight is a part of a larger one"
        return "its weight is computed, and not by a forward that does nothing else, of parameters of its own"
    readers = {running_module(reader) or "the model" for reader in walk.readers[name]}
    if others := sorted(readers - {place or "the model"}):
        return f"its weight is that of {', '.join(others)} as well"
    if name.rpartition(".")[0] != place:
        return f"its weight is {name}, of another module"
    if not isinstance(walk.modules[place], nn.Linear | _ConvNd):
        return f"its weight is {name.rpartition('.')[2]} of a module that is none of torch's layers"
    if len(shape_of(node.args[0])) == 1:
        return "what it reads has no batch"
    if kind_of(node) is OperationKind.TRANSPOSED and argument(node, 6, "groups", 1) != 1:
        return "it is transposed, and in groups"
    return "what it reads mixes channels, or something else reads its parameters"
