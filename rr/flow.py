"""Channel ids flowing through a traced network: which channels must live and die together.

Every element of an activation holds the id of the channel that it belongs to, in a tensor of the activation's real
shape. Then views, permutations, slices and concatenations are torch's own operations, and only convolutions, linear
layers, elementwise operations and reductions need a rule. What an elementwise operation joins is united.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx, nn

from rr.trace import Trace, argument, named_tensors, operation

Rule = Callable[[fx.Node], torch.Tensor | list[torch.Tensor] | None]

# One input in, the same shape out, each element from its own element alone.
UNARY = frozenset(
    """
    relu relu6 hardtanh silu gelu sigmoid tanh hardswish hardsigmoid leaky_relu elu selu celu mish softplus clamp
    clamp_min clamp_max exp sqrt rsqrt abs neg pow square dropout feature_dropout alpha_dropout clone contiguous
    detach alias to _to_copy identity lift_fresh_copy erf log1p expm1 hardshrink softshrink threshold
    """.split()
)
CASTS = frozenset(["to", "_to_copy"])  # of these, those that may change the type
BINARY = frozenset("add sub mul div maximum minimum".split())
POOLING = frozenset(
    """
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    """.split()
)
REDUCTION = frozenset("mean sum amax amin".split())
# Moves elements without changing them: run as it is, on the ids.
VIEWS = frozenset("view reshape _unsafe_view flatten unflatten".split())
CUTS = frozenset("slice select chunk split split_with_sizes unbind narrow".split())  # the moves that take parts
MOVES = (
    VIEWS
    | CUTS
    | frozenset(
        "permute transpose t numpy_T movedim cat concat stack unsqueeze squeeze expand repeat tile flip".split()
    )
)
PADDINGS = frozenset(
    """
    pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d
    """.split()
)
CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
TRANSPOSED = frozenset(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
WITH_RULE = (
    UNARY
    | BINARY
    | POOLING
    | REDUCTION
    | MOVES
    | PADDINGS
    | CONVOLUTIONS
    | TRANSPOSED
    | frozenset(
        """
        linear batch_norm prelu softmax log_softmax pixel_shuffle pixel_unshuffle channel_shuffle getitem
        """.split()
    )
)
# Known, and known to make every channel depend on the others.
OVER_CHANNELS = frozenset("layer_norm group_norm instance_norm local_response_norm softmax log_softmax".split())
PRODUCERS = ("conv", "transposed", "linear")  # layers whose outputs are new channels
PER_GROUP = ("depthwise", "grouped")  # layers whose groups go as a whole
WITHOUT_WIDTH = ("norm", "vector")  # what has the channels of others


@dataclass
class LayerFlow:
    """A module that makes, uses or passes on channels, with its channel ids.

    name:         the module's name in the model
    kind:         'conv', 'transposed', 'depthwise', 'grouped', 'linear', 'norm', or 'vector': a parameter (or buffer)
                  that holds a number per channel (PReLU's, LayerScale's); its name is the parameter's then
    node:         the name of its operation in the trace
    out_ids:      [out_channels], the id of each output channel
    in_ids:       [in_channels or in_features], the id of each input column; None for 'norm' and 'vector'
    macs_each:    multiply-accumulates per example and live (input, output) pair; for 'depthwise' and 'grouped', whose
                  groups go as a whole, per live output channel; 0 for a layer that only training runs
    dim:          for a 'vector', the dimension of the parameter along which its channels lie
    """

    name: str
    kind: str
    node: str
    out_ids: np.ndarray
    in_ids: np.ndarray | None
    macs_each: int = 0
    dim: int = 0


@dataclass
class ChannelFlow:
    """What the ids found: the layers in order of execution, the united ids, and why some may not be pruned.

    layers: each as often as it is called
    streams: ids in which an addition joined different units (residual streams)
    counted: ids of channels that the forward cuts or groups, by sizes that may be numbers of its own
    """

    layers: list[LayerFlow] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)
    counted: set[int] = field(default_factory=set)

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
        self.calls: dict[str, LayerFlow] = {}  # the first call of each layer
        self.ids: dict[fx.Node, torch.Tensor | list[torch.Tensor]] = {}
        self.readers = _readers(trace, model)
        self.rules: dict[str, Rule] = {
            **dict.fromkeys(UNARY, self.unary),
            **dict.fromkeys(BINARY, self.binary),
            **dict.fromkeys(POOLING, self.pooling),
            **dict.fromkeys(REDUCTION, self.reduction),
            **dict.fromkeys(MOVES, self.move),
            **dict.fromkeys(PADDINGS, self.padding),
            **dict.fromkeys(CONVOLUTIONS, self.convolution),
            **dict.fromkeys(TRANSPOSED, self.transposed_convolution),
            **dict.fromkeys(("softmax", "log_softmax"), self.softmax),
            "linear": self.linear,
            "batch_norm": self.batch_norm,
            "prelu": self.prelu,
            "pixel_shuffle": self.pixel_shuffle,
            "pixel_unshuffle": self.pixel_unshuffle,
            "channel_shuffle": self.channel_shuffle,
            "getitem": self.getitem,
        }

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
            elif not is_assertion(node) and "val" in node.meta:  # a part of the graph with its own autocast has none
                self.ids[node] = self.call(node)
            for source in node.all_input_nodes:
                if last_use[source] is node:
                    self.ids.pop(source, None)
        return self.flow

    def call(self, node: fx.Node) -> torch.Tensor | list[torch.Tensor]:
        rule = self.rules.get(operation(node))
        first = node.args[0] if node.args else None
        if isinstance(first, fx.Node) and first not in self.ids and operation(node) not in BINARY:
            rule = None  # computes with parameters alone
        ids = rule(node) if rule is not None and self.activations(node) and not writes_to_part(node) else None
        return ids if ids is not None else self.unknown(node)

    # Each rule returns the ids of the node's output, or None where it doesn't understand the node.

    def unary(self, node: fx.Node) -> torch.Tensor | None:
        return self.ids.get(node.args[0]) if len(self.activations(node)) == 1 else None

    def binary(self, node: fx.Node) -> torch.Tensor | None:
        activations = self.activations(node)
        if any(self.trace.parameter(source) for source in node.all_input_nodes):
            return self.with_parameter(node)
        if len(activations) == 1:  # with a number, or with itself
            return self.ids[activations[0]]
        first, second = (self.ids[source] for source in activations)
        dims = max(first.dim(), second.dim())
        first, second = (ids[(None,) * (dims - ids.dim())] for ids in (first, second))
        meets_all = [
            any(ids.shape[dim] < other.shape[dim] and not uniform(compact(other), [dim]) for dim in range(dims))
            for ids, other in ((first, second), (second, first))
        ]
        if any(meets_all):  # [N, 1, H, W] meets every channel of [N, C, H, W]: no pair of them belongs together
            one, many = (first, second) if meets_all[0] else (second, first)
            if all(meets_all) or _varying(one):
                return None
            self.flow.protect(compact(one).flatten().numpy(), "one channel that meets all channels of another tensor")
            return many.expand(shape_of(node))
        first, second = (compact(ids) for ids in torch.broadcast_tensors(first, second))
        first, second = torch.broadcast_tensors(first, second)
        adds = operation(node) in ("add", "sub")
        self.flow.unite(first.flatten().numpy(), second.flatten().numpy(), in_stream=adds)
        return self.canonical(first).expand(shape_of(node))

    def with_parameter(self, node: fx.Node) -> torch.Tensor | None:
        """An activation and a parameter: a number for all channels, or one for each."""
        activations = self.activations(node)
        parameter = next(source for source in node.all_input_nodes if self.trace.parameter(source))
        if len(node.all_input_nodes) != 2 or len(activations) != 1:
            return None
        ids, shape = self.ids[activations[0]], shape_of(parameter)
        if ids.shape != shape_of(node):
            return None
        dims = [dim - len(shape) for dim, size in enumerate(shape) if size > 1]  # counted from the end, as broadcast
        if not dims:
            return ids
        return self.vector(node, parameter, ids, dims[0], dims[0] + len(shape)) if len(dims) == 1 else None

    def prelu(self, node: fx.Node) -> torch.Tensor | None:
        ids, parameter = self.ids.get(node.args[0]), node.args[1]
        if ids is None or self.trace.parameter(parameter) is None:
            return None
        return ids if shape_of(parameter).numel() == 1 else self.vector(node, parameter, ids, 1, 0)

    def vector(
        self, node: fx.Node, parameter: fx.Node, ids: torch.Tensor, channel_dim: int, dim: int
    ) -> torch.Tensor | None:
        """A parameter's numbers along its dimension `dim` belong to the channels along `channel_dim` of the ids."""
        channels = channel_vector(ids, channel_dim)
        name = self.trace.parameter(parameter)
        if channels is None or any(operation(reader) not in BINARY | {"prelu"} for reader in self.readers[name]):
            return None
        self.record(LayerFlow(name, "vector", node.name, channels, None, dim=dim))
        return ids

    def pooling(self, node: fx.Node) -> torch.Tensor | list[torch.Tensor] | None:
        ids = compact(self.ids[node.args[0]])
        pixels = list(range(2, ids.dim()))
        if not pixels or not uniform(ids, pixels):
            return None
        for dim in pixels:
            ids = ids.narrow(dim, 0, 1)
        value = node.meta["val"]  # with the places of the largest, for an adaptive maximum
        return [ids.expand(part.shape) for part in value] if isinstance(value, tuple) else ids.expand(value.shape)

    def reduction(self, node: fx.Node) -> torch.Tensor | None:
        ids = compact(self.ids[node.args[0]])
        dims = argument(node, 1, "dim")
        if dims is None:
            return None
        dims = [dim % ids.dim() for dim in ([dims] if isinstance(dims, int) else dims)]
        varying = _varying(ids)
        if operation(node) == "sum" and not set(varying) <= set(dims):  # of branches, which add up channel by channel
            ids = self.tie(ids, [dim for dim in dims if dim in varying])
        if not uniform(ids, dims):
            return None
        for dim in sorted(dims, reverse=True):
            ids = ids.narrow(dim, 0, 1) if argument(node, 2, "keepdim", False) else ids.select(dim, 0)
        return ids.expand(shape_of(node))

    def softmax(self, node: fx.Node) -> torch.Tensor | None:
        """Over anything but the channels: over the branches among which each channel chooses, say."""
        ids = self.ids[node.args[0]]
        return ids if uniform(compact(ids), [argument(node, 1, "dim") % ids.dim()]) else None

    def move(self, node: fx.Node) -> torch.Tensor | list[torch.Tensor] | None:
        if any(self.trace.parameter(source) for source in node.all_input_nodes):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self.ids[source])
        if operation(node) in CUTS:
            whole = self.cut(node)
            if whole is None:
                return None
            args = (whole, *args[1:])
        if operation(node) in ("view", "_unsafe_view"):  # an expanded tensor has no view of every shape
            moved = args[0].reshape(args[1])
        else:
            moved = node.target(*args, **kwargs)
        if isinstance(moved, (list, tuple)):
            return list(moved)
        return self.split_channels(args[0], moved) if operation(node) in VIEWS else moved

    def cut(self, node: fx.Node) -> torch.Tensor | None:
        """The ids to cut: parts of equal size keep their sizes equal when channels at the same place go together.

        Whether the forward takes those sizes from the tensor or has them written in, the rehearsal finds out.
        """
        ids = self.ids[node.args[0]]
        name = operation(node)
        dim = argument(node, 1 if name in ("slice", "select", "unbind", "narrow") else 2, "dim", 0) % ids.dim()
        size = ids.shape[dim]
        if getattr(node.meta["val"], "shape", None) == ids.shape or uniform(compact(ids), [dim]):
            return ids  # every part has all channels
        if name in ("select", "unbind"):
            part = 1
        elif name in ("slice", "narrow"):
            start = argument(node, 2, "start", 0) or 0
            part = shape_of(node)[dim]
            if argument(node, 4, "step", 1) != 1 or (start % size) % part:
                return None
        else:
            part, *others = {value.shape[dim] for value in node.meta["val"]}
            if others:
                return None
        if size % part:
            return None
        parts = self.tie(compact(ids).unflatten(dim, (size // part, part)), [dim])
        self.flow.counted.update(np.unique(compact(parts).numpy()).tolist())
        return parts.flatten(dim, dim + 1).expand(ids.shape)

    def split_channels(self, source: torch.Tensor, moved: torch.Tensor) -> torch.Tensor | None:
        """A view that gives one dimension of channels several ([C] as [groups, C / groups]), of which the last shrinks.

        So what lies at the same place of each group goes together. A wrong guess shows in the rehearsal.
        """
        shape, before, after = moved.shape, _varying(source), _varying(moved)
        for dim in set(range(moved.dim())) - set(after):  # merging dimensions made whole copies of the ids
            moved = moved.narrow(dim, 0, 1)
        if len(after) > len(before):
            if len(before) != 1:
                return None
            moved = self.tie(moved, after[:-1])
            self.flow.counted.update(np.unique(compact(moved).numpy()).tolist())
        return moved.expand(shape)

    def padding(self, node: fx.Node) -> torch.Tensor | None:
        ids = self.ids[node.args[0]]
        widths = list(argument(node, 1, "pad") or argument(node, 1, "padding"))
        mode = argument(node, 2, "mode", "constant") if operation(node) == "pad" else operation(node)
        for place, (low, high) in enumerate(zip(widths[::2], widths[1::2], strict=True)):  # the last dimension first
            dim = ids.dim() - 1 - place
            if low == high == 0:
                continue
            if uniform(compact(ids), [dim]):
                ids = ids.narrow(dim, 0, 1).expand(
                    [*ids.shape[:dim], ids.shape[dim] + low + high, *ids.shape[dim + 1 :]]
                )
                continue
            if min(low, high) < 0 or mode not in ("constant", "constant_pad_nd"):
                return None
            pads = []
            for width in (low, high):  # zeros in the place of channels, as many as the forward says
                fresh = self.flow.fresh(width)
                self.flow.protect(fresh, "a channel that padding adds")
                shape = [1] * ids.dim()
                shape[dim] = width
                pads.append(
                    torch.from_numpy(fresh).view(shape).expand([*ids.shape[:dim], width, *ids.shape[dim + 1 :]])
                )
            ids = torch.cat([pads[0], ids, pads[1]], dim)
        return ids

    def pixel_shuffle(self, node: fx.Node) -> torch.Tensor | None:
        """r x r channels become one of r x r times the pixels."""
        channels, area = channel_vector(self.ids[node.args[0]], -3), node.args[1] ** 2
        if channels is None:
            return None
        tied = self.tie(torch.from_numpy(channels).view(-1, area), [1])
        return spread(tied[:, 0].numpy(), -3, shape_of(node))

    def pixel_unshuffle(self, node: fx.Node) -> torch.Tensor | None:
        channels = channel_vector(self.ids[node.args[0]], -3)
        return None if channels is None else spread(np.repeat(channels, node.args[1] ** 2), -3, shape_of(node))

    def channel_shuffle(self, node: fx.Node) -> torch.Tensor | None:
        channels = channel_vector(self.ids[node.args[0]], 1)
        if channels is None:
            return None
        tied = self.tie(torch.from_numpy(channels).view(node.args[1], -1), [0])  # [groups, channels of each]
        return spread(tied.T.flatten().numpy(), 1, shape_of(node))

    def getitem(self, node: fx.Node) -> torch.Tensor | None:
        source = self.ids.get(node.args[0])
        return operator.getitem(source, node.args[1]) if isinstance(source, list) else None

    def batch_norm(self, node: fx.Node) -> torch.Tensor | None:
        ids = self.ids[node.args[0]]
        channels = channel_vector(ids, 1)
        name = self.module_of(node, node.args[3], "running_mean", nn.modules.batchnorm._BatchNorm)
        if channels is None or name is None or self.shares_parameters(node, name):
            return None
        self.record(LayerFlow(name, "norm", node.name, channels, None))
        return ids

    def convolution(self, node: fx.Node) -> torch.Tensor | None:
        weight = argument(node, 1, "weight")
        name = self.module_of(node, weight, "weight", nn.modules.conv._ConvNd)
        columns = channel_vector(self.ids[node.args[0]], 1)
        if name is None or columns is None or self.shares_parameters(node, name):
            return None
        module = self.modules[name]
        _, out_channels, *pixels = shape_of(node)
        per_pixel = int(np.prod(module.kernel_size)) * int(np.prod(pixels))
        if module.groups == 1:
            kind, out_ids = "conv", self.out_ids(name, out_channels)
        elif module.groups == module.in_channels:
            kind, out_ids = "depthwise", np.repeat(columns, out_channels // module.in_channels)
        else:
            # All channels of a group, in and out, are one unit: the groups that stay are whole.
            by_group = columns.reshape(module.groups, -1)  # [groups, inputs of each]
            self.flow.unite(by_group[:, :-1].flatten(), by_group[:, 1:].flatten())
            kind, out_ids = "grouped", np.repeat(by_group[:, 0], out_channels // module.groups)
            per_pixel *= by_group.shape[1]
        self.record(LayerFlow(name, kind, node.name, out_ids, columns, self.if_evaluated(weight, per_pixel)))
        return spread(out_ids, 1, shape_of(node))

    def transposed_convolution(self, node: fx.Node) -> torch.Tensor | None:
        weight = argument(node, 1, "weight")
        name = self.module_of(node, weight, "weight", nn.modules.conv._ConvTransposeNd)
        columns = channel_vector(self.ids[node.args[0]], 1)
        if name is None or columns is None or self.shares_parameters(node, name) or self.modules[name].groups != 1:
            return None
        _, _, *pixels = shape_of(node.args[0])
        per_pixel = int(np.prod(self.modules[name].kernel_size)) * int(np.prod(pixels))
        out_ids = self.out_ids(name, shape_of(node)[1])
        self.record(LayerFlow(name, "transposed", node.name, out_ids, columns, self.if_evaluated(weight, per_pixel)))
        return spread(out_ids, 1, shape_of(node))

    def linear(self, node: fx.Node) -> torch.Tensor | None:
        weight = argument(node, 1, "weight")
        name = self.module_of(node, weight, "weight", nn.Linear)
        columns = channel_vector(self.ids[node.args[0]], -1)
        if name is None or columns is None or self.shares_parameters(node, name):
            return None
        shape = shape_of(node)
        out_ids = self.out_ids(name, shape[-1])
        positions = int(np.prod(shape[:-1])) // self.trace.batch
        self.record(LayerFlow(name, "linear", node.name, out_ids, columns, self.if_evaluated(weight, positions)))
        return spread(out_ids, -1, shape)

    # What the rules have in common ---------------------------------------------------------------------------

    def out_ids(self, name: str, count: int) -> np.ndarray:
        """New channels, where this is a layer's first call."""
        return self.calls[name].out_ids if name in self.calls else self.flow.fresh(count)

    def record(self, layer: LayerFlow) -> None:
        """A layer that is called again has the same channels as the first time, in and out."""
        first = self.calls.setdefault(layer.name, layer)
        if first is not layer:
            self.flow.unite(layer.out_ids, first.out_ids)
            if layer.in_ids is not None:
                self.flow.unite(layer.in_ids, first.in_ids)
        self.flow.layers.append(layer)

    def tie(self, ids: torch.Tensor, dims: list[int]) -> torch.Tensor:
        """Unite the ids along `dims`; all of them are the first one's afterwards."""
        first = compact(ids)
        shape = first.shape
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        self.flow.unite(compact(ids).flatten().numpy(), first.expand(shape).flatten().numpy())
        return first.expand(ids.shape)

    def canonical(self, ids: torch.Tensor) -> torch.Tensor:
        """Each id as the one that stands for its unit."""
        distinct, positions = np.unique(ids.numpy(), return_inverse=True)
        roots = np.array([self.flow.find(int(channel)) for channel in distinct])
        return torch.from_numpy(roots[positions].reshape(ids.shape))

    def if_evaluated(self, weight: object, macs_each: int) -> int:
        """What a layer costs where the network is used: nothing, for one that only training runs."""
        return macs_each if self.trace.parameter(weight) in self.trace.evaluated else 0

    def unknown(self, node: fx.Node) -> torch.Tensor | list[torch.Tensor]:
        """Nothing that passes through an operation without a rule is pruned."""
        name, place = operation(node), running_module(node) or "the model"
        if name in OVER_CHANNELS:
            reason = f"passes through {name} in {place}, which computes over the channels"
        elif name in CUTS:
            reason = f"is cut by {name} in {place} into parts that aren't alike"
        else:
            reason = f"passes through {name} in {place}, which has no rule here"
        for source in self.activations(node):
            self.protect(source, reason)
        return self.protected(node, reason)

    def shares_parameters(self, node: fx.Node, name: str) -> bool:
        """Whether anything but the layer's own calls reads one of its parameters: it can't be folded then."""
        own = (self.trace.parameter(source) for source in node.all_input_nodes)
        readers = (reader for parameter in own if parameter is not None for reader in self.readers[parameter])
        return any(operation(reader) != operation(node) or running_module(reader) != name for reader in readers)

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


def _readers(trace: Trace, model: nn.Module) -> dict[str, list[fx.Node]]:
    """Parameter's or buffer's name -> the operations that read it, under whichever of its names."""
    tensors = named_tensors(model)
    by_tensor: dict[int, list[fx.Node]] = {}
    for node in trace.nodes:
        if node.name in trace.parameters and node.op == "placeholder":
            by_tensor.setdefault(id(tensors[trace.parameters[node.name]]), []).extend(node.users)
    return {name: by_tensor.get(id(tensor), []) for name, tensor in tensors.items()}


def has_rule(node: fx.Node) -> bool:
    """Whether channels may pass through the operation; elsewhere nothing prunable does."""
    return operation(node) in WITH_RULE


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


def _varying(ids: torch.Tensor) -> list[int]:
    """The dimensions along which the ids differ."""
    ids = compact(ids)
    return [dim for dim in range(ids.dim()) if not uniform(ids, [dim])]


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
