"""Channel ids flowing through a traced network: which channels must live and die together.

Every element of an activation holds the id of the channel that it belongs to, in a tensor of the activation's real
shape. Then views, permutations, slices and concatenations are torch's own operations, and only convolutions, linear
layers, elementwise operations and reductions need a rule. What an elementwise operation joins is united.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import fx, nn

from rr.graph import (
    rules_choice,
    rules_columns,
    rules_cuts,
    rules_elementwise,
    rules_layers,
    rules_products,
    rules_shape,
)
from rr.graph.affine import module_ends, record_affine
from rr.graph.channel_ids import ChannelFlow, compact
from rr.graph.layers import LayerKind
from rr.graph.no_rule import LAYERS, reason_of, why_no_layer
from rr.graph.operations import ELEMENTWISE, OperationKind, is_assertion, kind_of, operation, writes_to_part
from rr.graph.trace import Trace, has_sizes, is_no_tensor, is_number, running_module
from rr.graph.walk import Ids, Trials, Walk

Rule = Callable[[Walk, fx.Node], Ids | None]

RULES: dict[OperationKind, Rule] = {
    OperationKind.UNARY: rules_elementwise.unary,
    OperationKind.CAST: rules_elementwise.cast,
    OperationKind.BINARY: rules_elementwise.binary,
    OperationKind.SEVERAL: rules_elementwise.several,
    OperationKind.PRELU: rules_elementwise.prelu,
    OperationKind.POOLING: rules_elementwise.pooling,
    OperationKind.REDUCTION: rules_elementwise.reduction,
    OperationKind.SOFTMAX: rules_elementwise.softmax,
    OperationKind.ALONG: rules_elementwise.along,
    OperationKind.RESIZING: rules_elementwise.resizing,
    OperationKind.SAMPLING: rules_elementwise.sampling,
    OperationKind.MOVE: rules_shape.move,
    OperationKind.VIEW: rules_shape.view,
    OperationKind.LIKE: rules_shape.like,
    OperationKind.CUT: rules_cuts.cut,
    OperationKind.CHOICE: rules_choice.choice,
    OperationKind.PADDING: rules_shape.padding,
    OperationKind.PIXEL_SHUFFLE: rules_shape.pixel_shuffle,
    OperationKind.PIXEL_UNSHUFFLE: rules_shape.pixel_unshuffle,
    OperationKind.CHANNEL_SHUFFLE: rules_shape.channel_shuffle,
    OperationKind.GLU: rules_shape.glu,
    OperationKind.PATCHES: rules_shape.patches,
    OperationKind.FOLD: rules_shape.fold,
    OperationKind.GETITEM: rules_shape.getitem,
    OperationKind.CONVOLUTION: rules_layers.convolution,
    OperationKind.TRANSPOSED: rules_layers.transposed_convolution,
    OperationKind.LINEAR: rules_layers.linear,
    OperationKind.PRODUCT: rules_products.product,
    OperationKind.RECURRENT: rules_columns.recurrent,
    OperationKind.BATCH_NORM: rules_layers.batch_norm,
    OperationKind.INSTANCE_NORM: rules_layers.instance_norm,
    OperationKind.GROUP_NORM: rules_layers.group_norm,
}


def channel_flow(
    trace: Trace, model: nn.Module, trials: Trials | None = None, *, whole_groups: bool = False
) -> ChannelFlow:
    """Let channel ids flow through the traced network.

    A grouped convolution goes by whole groups. Where those can't go one by one, as they are added up (split attention)
    or nothing of what they read may go, its groups keep the same channels in place of that.

    Args:
        trace: the operations.
        model: the model.
        trials: what other walks through the model have found of its modules; gets what is found here.
        whole_groups: whether they are to go by whole groups in any case.
    """
    trials = {} if trials is None else trials
    flow = _flow(trace, model, trials)
    alike = set() if whole_groups else _never_by_group(flow)
    return _flow(trace, model, trials, alike) if alike else flow


def _never_by_group(flow: ChannelFlow) -> set[str]:
    """Grouped convolutions of whose groups none can go by itself."""
    stay = {flow.find(channel) for channel in flow.reasons}
    for place in flow.sums:
        stay |= {flow.find(int(channel)) for channel in compact(place.channels).unique()}
    units = {
        call.name: {flow.find(int(channel)) for channel in call.in_ids}
        for call in flow.layers
        if call.kind is LayerKind.GROUPED
    }
    return {name for name, own in units.items() if len(own) == 1 or own <= stay}


def _flow(trace: Trace, model: nn.Module, trials: Trials, alike: Collection[str] = ()) -> ChannelFlow:
    walk = Walk(trace, model, trials, alike)
    ends = module_ends(trace)
    last_use = {source: node for node in trace.nodes for source in node.all_input_nodes}
    for node in trace.nodes:
        if node.op == "placeholder":
            if is_no_tensor(node):
                continue  # a number, a switch or None, given to the forward beside the images
            if walk.computes_with(node):
                walk.ids[node] = rules_elementwise.vector_alone(walk, node)
                walk.of_vectors.add(node)
            elif node.name in trace.user_inputs:
                walk.ids[node] = walk.protected(node, "a channel of the network's input")
            elif node.name not in trace.parameters:
                walk.ids[node] = walk.protected(node, "meets a constant in the model's forward")
        elif node.op == "output":
            for source in walk.activations(node):
                walk.protect(source, "a channel of the network's output")
        elif _is_number_of_parameters(walk, node):
            continue
        elif _is_written_down(walk, node):
            sources = [walk.written[source] for source in node.all_input_nodes if source in walk.written]
            walk.written[node] = all(sources) and operation(node) not in ("arange", "linspace", "eye")
        elif not is_assertion(node) and "val" in node.meta:  # a part of the graph with its own autocast has none
            if (sources := walk.activations(node)) and walk.of_vectors.issuperset(sources):
                walk.of_vectors.add(node)
            walk.ids[node] = _call(walk, node)
            record_affine(walk, node, ends)
        for source in node.all_input_nodes:
            if last_use[source] is node:
                walk.ids.pop(source, None)
    return walk.flow


def _is_number_of_parameters(walk: Walk, node: fx.Node) -> bool:
    """Whether the operation gives a number that parameters alone decide (`self.scale.item()`), as written ones are."""
    return "val" in node.meta and is_number(node) and not walk.activations(node)


def _is_written_down(walk: Walk, node: fx.Node) -> bool:
    """Whether the operation makes numbers that no channel and no parameter is in (`x.new_zeros(...)`)."""
    if kind_of(node) is OperationKind.NEW:
        return True
    return bool(node.all_input_nodes) and all(source in walk.written for source in node.all_input_nodes)


def _call(walk: Walk, node: fx.Node) -> Ids:
    """The ids of an operation's output, by its rule where it has one that applies."""
    kind = kind_of(node)
    if kind not in ELEMENTWISE:  # there they are like numbers
        for source in (walk.written.keys() & node.all_input_nodes) - walk.ids.keys():
            walk.ids[source] = walk.protected(source, "meets a constant in the model's forward")
    rule = RULES.get(kind) if kind is not None else None
    first = node.args[0] if node.args else None
    if kind is OperationKind.PRODUCT:  # the other factor may have channels; an equation comes first
        first = None
    if isinstance(first, fx.Node) and first not in walk.ids and kind not in ELEMENTWISE:
        rule = None  # computes with parameters alone
    may_pass = rule is not None and walk.activations(node) and not writes_to_part(node)
    may_pass = may_pass and has_sizes(node) and not is_number(node)
    ids = rule(walk, node) if may_pass else None
    return _without_rule(walk, node) if ids is None else ids


def _without_rule(walk: Walk, node: fx.Node) -> Ids:
    """Nothing that passes through an operation without a rule is pruned."""
    if kind_of(node) in LAYERS:
        walk.flow.no_layers.setdefault(running_module(node), why_no_layer(walk, node))
    reason = reason_of(walk, node)
    for source in walk.activations(node):
        walk.protect(source, reason)
    return walk.protected(node, reason)
