"""Channel ids flowing through a traced network: which channels must live and die together.

Every element of an activation holds the id of the channel that it belongs to, in a tensor of the activation's real
shape. Then views, permutations, slices and concatenations are torch's own operations, and only convolutions, linear
layers, elementwise operations and reductions need a rule. What an elementwise operation joins is united.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx, nn

from rr.trace import Trace, argument, operation

# One input in, the same shape out, each element from its own element alone.
UNARY = frozenset(
    """
    relu relu6 hardtanh silu gelu sigmoid tanh hardswish hardsigmoid leaky_relu elu selu celu mish softplus clamp
    clamp_min clamp_max exp sqrt rsqrt abs neg pow square dropout feature_dropout alpha_dropout clone contiguous
    detach alias to _to_copy identity lift_fresh_copy
    """.split()
)
CASTS = frozenset(["to", "_to_copy"])  # of these, those that may change the type
BINARY = frozenset("add sub mul div maximum minimum".split())
POOLING = frozenset(
    """
    max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d
    """.split()
)
REDUCTION = frozenset("mean sum amax amin".split())
# Moves elements without changing them: run as it is, on the ids.
MOVES = frozenset(
    """
    view reshape _unsafe_view flatten unflatten permute transpose t numpy_T movedim slice select cat concat stack
    chunk split split_with_sizes unbind unsqueeze squeeze expand narrow
    """.split()
)
CUTS = frozenset("slice select chunk split split_with_sizes unbind narrow".split())  # the moves that take parts
CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
WITH_RULE = UNARY | BINARY | POOLING | REDUCTION | MOVES | CONVOLUTIONS | {"linear", "batch_norm", "getitem"}


@dataclass
class LayerFlow:
    """A module that makes, uses or passes on channels, with its channel ids.

    name:         the module's name in the model
    kind:         'conv', 'depthwise', 'grouped', 'linear' or 'norm'
    node:         the name of its operation in the trace
    out_ids:      [out_channels], the id of each output channel
    in_ids:       [in_channels or in_features], the id of each input column; None for a norm layer
    macs_each:    multiply-accumulates per example and live (input, output) pair; for 'depthwise' and 'grouped', whose
                  groups go as a whole, per live output channel; 0 for a layer that only training runs
    """

    name: str
    kind: str
    node: str
    out_ids: np.ndarray
    in_ids: np.ndarray | None
    macs_each: int


@dataclass
class ChannelFlow:
    """What the ids found: the layers in order of execution, the united ids, and why some may not be pruned.

    streams: ids in which an addition joined different units (residual streams)
    """

    layers: list[LayerFlow] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)

    def fresh(self, count: int) -> np.ndarray:
        """`count` new ids, each a unit of its own."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, channel: int) -> int:
        """The id that stands for the unit of `channel`."""
        root = channel
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[channel] != root:  # shorten the path for the next time
            self.parent[channel], channel = root, self.parent[channel]
        return root

    def unite(self, first: np.ndarray, second: np.ndarray, *, in_stream: bool = False) -> None:
        """Ids at the same position live and die together; in_stream: since they add into a residual stream."""
        for a, b in np.unique(np.stack([first, second]), axis=1).T:
            root_a, root_b = self.find(int(a)), self.find(int(b))
            if root_a != root_b:
                self.parent[max(root_a, root_b)] = min(root_a, root_b)
                if in_stream:
                    self.streams.add(root_a)

    def protect(self, ids: np.ndarray, reason: str) -> None:
        """The units of these ids can't be pruned, for `reason` (the first one given stays)."""
        for channel in np.unique(ids):
            self.reasons.setdefault(int(channel), reason)


def channel_flow(trace: Trace, model: nn.Module) -> ChannelFlow:
    """Let channel ids flow through the traced network (design: channel units)."""
    return _Interpreter(trace, model).run()


class _Interpreter:
    def __init__(self, trace: Trace, model: nn.Module) -> None:
        self.trace = trace
        self.modules = dict(model.named_modules())
        self.flow = ChannelFlow()
        self.ids: dict[fx.Node, torch.Tensor | list[torch.Tensor]] = {}
        self.uses = Counter(
            trace.parameters[source.name]
            for node in trace.nodes
            for source in node.all_input_nodes
            if source.name in trace.parameters
        )

    def run(self) -> ChannelFlow:
        last_use = {source: node for node in self.trace.nodes for source in node.all_input_nodes}
        for node in self.trace.nodes:
            if node.op == "placeholder":
                if node.name in self.trace.user_inputs:
                    self.ids[node] = self.protected(node, "a channel of the network's input")
                elif node.name not in self.trace.parameters:
                    self.ids[node] = self.protected(node, "meets a constant in the model's forward")
            elif node.op == "output":
                for source in node.all_input_nodes:
                    if source in self.ids:
                        self.protect(source, "a channel of the network's output")
            elif not is_assertion(node):
                self.ids[node] = self.call(node)
            for source in node.all_input_nodes:
                if last_use[source] is node:
                    self.ids.pop(source, None)
        return self.flow

    def call(self, node: fx.Node) -> torch.Tensor | list[torch.Tensor]:
        name = operation(node)
        rule = self.rule(name)
        first = next(iter(node.all_input_nodes), None)
        ids = rule(node) if rule is not None and first in self.ids else None
        return ids if ids is not None else self.unknown(node, name)

    def rule(self, name: str) -> Callable[[fx.Node], torch.Tensor | list[torch.Tensor] | None] | None:
        for names, rule in (
            (UNARY, self.unary),
            (BINARY, self.binary),
            (POOLING, self.pooling),
            (REDUCTION, self.reduction),
            (MOVES, self.move),
            (CONVOLUTIONS, self.convolution),
            ({"linear"}, self.linear),
            ({"batch_norm"}, self.batch_norm),
            ({"getitem"}, self.getitem),
        ):
            if name in names:
                return rule
        return None

    # Each rule returns the ids of the node's output, or None where it doesn't understand the node.

    def unary(self, node: fx.Node) -> torch.Tensor | None:
        return self.ids.get(node.args[0]) if len(self.activations(node)) == 1 and not writes_to_part(node) else None

    def binary(self, node: fx.Node) -> torch.Tensor | None:
        activations = self.activations(node)
        if any(self.trace.parameter(source) for source in node.all_input_nodes) or writes_to_part(node):
            return None
        if len(activations) == 1:  # with a number
            return self.ids[activations[0]]
        first, second = (compact(ids) for ids in torch.broadcast_tensors(*(self.ids[source] for source in activations)))
        first, second = torch.broadcast_tensors(first, second)
        adds = operation(node) in ("add", "sub")
        self.flow.unite(first.flatten().numpy(), second.flatten().numpy(), in_stream=adds)
        return first.expand(shape_of(node))

    def pooling(self, node: fx.Node) -> torch.Tensor | None:
        ids = compact(self.ids[node.args[0]])
        if ids.dim() != 4 or not uniform(ids, (2, 3)):
            return None
        return ids[:, :, :1, :1].expand(shape_of(node))

    def reduction(self, node: fx.Node) -> torch.Tensor | None:
        ids = compact(self.ids[node.args[0]])
        dims = argument(node, 1, "dim")
        if dims is None:
            return None
        dims = [dim % ids.dim() for dim in ([dims] if isinstance(dims, int) else dims)]
        if not uniform(ids, dims):
            return None
        for dim in sorted(dims, reverse=True):
            ids = ids.narrow(dim, 0, 1) if argument(node, 2, "keepdim", False) else ids.select(dim, 0)
        return ids.expand(shape_of(node))

    def move(self, node: fx.Node) -> torch.Tensor | list[torch.Tensor] | None:
        if any(self.trace.parameter(source) for source in node.all_input_nodes):
            return None
        if operation(node) in CUTS and not self.cuts_no_channels(node):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self.ids[source])
        if operation(node) in ("view", "_unsafe_view"):  # an expanded tensor has no view of every shape
            moved = args[0].reshape(args[1])
        else:
            moved = node.target(*args, **kwargs)
        if isinstance(moved, (list, tuple)):
            return list(moved)
        return moved if varying_dims(moved) <= 1 else None  # else channels are counted out: so many here, so many there

    def cuts_no_channels(self, node: fx.Node) -> bool:
        """Whether every part still has all channels: a cut between them holds for their present number only."""
        ids = self.ids[node.args[0]]
        dim = argument(node, 1 if operation(node) in ("slice", "select", "unbind", "narrow") else 2, "dim", 0)
        same_shape = getattr(node.meta["val"], "shape", None) == ids.shape
        return same_shape or uniform(compact(ids), [dim % ids.dim()])

    def getitem(self, node: fx.Node) -> torch.Tensor | None:
        source = self.ids.get(node.args[0])
        return operator.getitem(source, node.args[1]) if isinstance(source, list) else None

    def batch_norm(self, node: fx.Node) -> torch.Tensor | None:
        ids = self.ids[node.args[0]]
        channels = channel_vector(ids, 1)
        name = self.module_of(node, node.args[3], "running_mean", nn.modules.batchnorm._BatchNorm)
        if channels is None or name is None or self.shares_parameters(node):
            return None
        self.flow.layers.append(LayerFlow(name, "norm", node.name, channels, None, 0))
        return ids

    def convolution(self, node: fx.Node) -> torch.Tensor | None:
        weight = argument(node, 1, "weight")
        name = self.module_of(node, weight, "weight", nn.modules.conv._ConvNd)
        columns = channel_vector(self.ids[node.args[0]], 1)
        if name is None or columns is None or self.shares_parameters(node):
            return None
        module = self.modules[name]
        _, out_channels, *pixels = shape_of(node)
        per_pixel = int(np.prod(module.kernel_size)) * int(np.prod(pixels))
        if module.groups == 1:
            kind, out_ids = "conv", self.flow.fresh(out_channels)
        elif module.groups == module.in_channels:
            kind, out_ids = "depthwise", np.repeat(columns, out_channels // module.in_channels)
        else:
            # All channels of a group, in and out, are one unit: the groups that stay are whole.
            by_group = columns.reshape(module.groups, -1)  # [groups, inputs of each]
            self.flow.unite(by_group[:, :-1].flatten(), by_group[:, 1:].flatten())
            kind, out_ids = "grouped", np.repeat(by_group[:, 0], out_channels // module.groups)
            per_pixel *= by_group.shape[1]
        self.flow.layers.append(
            LayerFlow(name, kind, node.name, out_ids, columns, self.if_evaluated(weight, per_pixel))
        )
        return spread(out_ids, 1, shape_of(node))

    def linear(self, node: fx.Node) -> torch.Tensor | None:
        weight = argument(node, 1, "weight")
        name = self.module_of(node, weight, "weight", nn.Linear)
        columns = channel_vector(self.ids[node.args[0]], -1)
        if name is None or columns is None or self.shares_parameters(node):
            return None
        shape = shape_of(node)
        out_ids = self.flow.fresh(shape[-1])
        positions = int(np.prod(shape[:-1])) // self.trace.batch
        self.flow.layers.append(
            LayerFlow(name, "linear", node.name, out_ids, columns, self.if_evaluated(weight, positions))
        )
        return spread(out_ids, -1, shape)

    def if_evaluated(self, weight: object, macs_each: int) -> int:
        """What a layer costs where the network is used: nothing, for one that only training runs."""
        return macs_each if self.trace.parameter(weight) in self.trace.evaluated else 0

    def unknown(self, node: fx.Node, name: str) -> torch.Tensor | list[torch.Tensor]:
        """Nothing that passes through an operation without a rule is pruned."""
        reason = f"passes through {name} in {running_module(node) or 'the model'}, which has no rule here"
        for source in self.activations(node):
            self.protect(source, reason)
        return self.protected(node, reason)

    def shares_parameters(self, node: fx.Node) -> bool:
        """Whether something else reads a parameter of this layer too: it can't be folded then."""
        names = (self.trace.parameter(source) for source in node.all_input_nodes)
        return any(name is not None and self.uses[name] > 1 for name in names)

    def activations(self, node: fx.Node) -> list[fx.Node]:
        return [source for source in node.all_input_nodes if source in self.ids]

    def protect(self, node: fx.Node, reason: str) -> None:
        ids = self.ids[node]
        for part in ids if isinstance(ids, list) else [ids]:
            self.flow.protect(compact(part).flatten().numpy(), reason)

    def protected(self, node: fx.Node, reason: str) -> torch.Tensor | list[torch.Tensor]:
        """One protected id all over the node's output."""
        channel = self.flow.fresh(1)
        self.flow.protect(channel, reason)
        value = node.meta["val"]
        if isinstance(value, (list, tuple)):
            return [torch.full((), int(channel[0])).expand(part.shape) for part in value]
        return torch.full((), int(channel[0])).expand(getattr(value, "shape", ()))

    def module_of(self, node: fx.Node, parameter: object, leaf: str, kind: type[nn.Module]) -> str | None:
        """The module that owns `parameter` under the name `leaf`, where it is one of `kind` and itself runs `node`.

        A layer whose weight another module uses (`F.linear(x, self.proj.weight)`) never calls its hooks.
        """
        name = self.trace.parameter(parameter)
        if name is None or name.rpartition(".")[2] != leaf:
            return None
        owner = name.rpartition(".")[0]
        return owner if isinstance(self.modules.get(owner), kind) and running_module(node) == owner else None


def is_assertion(node: fx.Node) -> bool:
    """Whether the operation only checks something, and gives nothing back."""
    return operation(node).startswith("_assert")


def running_module(node: fx.Node) -> str:
    """The name of the innermost module whose forward runs the operation, "" for the model itself."""
    return next(reversed((node.meta.get("nn_module_stack") or {"": ("", "")}).values()))[0]


def is_in_place(node: fx.Node) -> bool:
    """Whether the operation writes into its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def writes_to_part(node: fx.Node) -> bool:
    """Whether the operation writes through a view into a tensor that others read."""
    if not is_in_place(node):
        return False
    source = node.args[0]
    while source.op == "call_function" and operation(source) in MOVES | {"getitem"} and source.all_input_nodes:
        source = source.all_input_nodes[0]
        if len(source.users) > 1:
            return True
    return False


def shape_of(node: fx.Node) -> torch.Size:
    """The shape of a node's output, as exported."""
    return node.meta["val"].shape


def compact(ids: torch.Tensor) -> torch.Tensor:
    """The same ids with every expanded dimension cut to one: what is equal by construction is looked at once."""
    for dim, stride in enumerate(ids.stride()):
        if stride == 0 and ids.shape[dim] > 1:
            ids = ids.narrow(dim, 0, 1)
    return ids


def uniform(ids: torch.Tensor, dims: tuple[int, ...] | list[int]) -> bool:
    """Whether the ids are the same all along `dims`."""
    first = ids
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    return bool((ids == first).all())


def varying_dims(ids: torch.Tensor) -> int:
    """Along how many dimensions the ids differ."""
    ids = compact(ids)
    return sum(not uniform(ids, [dim]) for dim in range(ids.dim()))


def channel_vector(ids: torch.Tensor, channel_dim: int) -> np.ndarray | None:
    """The id of each channel, [C], where every position along the other dimensions has the same; else None."""
    channels = ids.shape[channel_dim]
    ids = compact(ids)
    channel_dim %= ids.dim()
    if not uniform(ids, [dim for dim in range(ids.dim()) if dim != channel_dim]):
        return None
    vector = ids.transpose(0, channel_dim).flatten(1)[:, 0]
    return vector.expand(channels).numpy().copy()


def spread(channels: np.ndarray, channel_dim: int, shape: torch.Size) -> torch.Tensor:
    """Channel ids [C] as an expanded tensor of `shape`."""
    view = [1] * len(shape)
    view[channel_dim] = len(channels)
    return torch.from_numpy(np.ascontiguousarray(channels)).view(view).expand(shape)
