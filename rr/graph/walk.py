"""Where the ids are on their way through the trace, and what the rules look up and do there."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor, fx, nn

from rr.graph.channel_ids import ChannelFlow, compact
from rr.graph.layers import LayerCall, Sizes
from rr.graph.operations import ELEMENTWISE, OperationKind, kind_of, only_choose, operation
from rr.graph.trace import Trace, has_sizes, readers_of, running_module

_OF_VECTORS = {OperationKind.UNARY, OperationKind.VIEW, OperationKind.MOVE, OperationKind.CAST, OperationKind.LIKE}
_FOLDED = ("weight", "bias", "running_mean", "running_var")
Ids = Tensor | list[Tensor]  # a list for an operation with several outputs
Trials = dict[tuple[str, str], bool]  # a kind of module and a module's name -> whether it is one


class Walk:
    """A walk through a trace: the ids of the activations that are still read, and all that was found so far.

    Attributes:
        trace: what is walked through.
        alike: grouped convolutions whose groups keep the same channels, in place of going as a whole.
        modules: the model's modules by name.
        flow: what was found.
        ids: of each operation's output, as long as something reads it.
        written: operations whose outputs are numbers that the forward writes down, without channels; whether these are
            all the same.
        of_vectors: operations whose channels are those of parameters with a number per channel, and of nothing else.
        of_parameters: operations that compute with parameters, buffers and numbers alone.
        readers: parameter's or buffer's name -> the operations that read it, under whichever of its names.
    """

    def __init__(self, trace: Trace, model: nn.Module, trials: Trials, alike: Collection[str] = ()) -> None:
        self.trace = trace
        self._trials = trials
        self.alike = alike
        self.modules = dict(model.named_modules())
        self.flow = ChannelFlow()
        self.ids: dict[fx.Node, Ids] = {}
        self.written: dict[fx.Node, bool] = {}
        self.of_vectors: set[fx.Node] = set()
        self.of_parameters = _of_parameters(trace)
        self.readers = readers_of(trace, model)
        self._of_all_channels: set[int] = set()
        self._first_calls: dict[str, LayerCall] = {}
        self._first_sizes: dict[tuple[str, str], Sizes] = {}

    def activations(self, node: fx.Node) -> list[fx.Node]:
        """Those of a node's inputs that have ids: no parameters."""
        return [source for source in node.all_input_nodes if source in self.ids]

    def reads_parameter(self, node: fx.Node) -> bool:
        """Whether one of the node's inputs is a parameter or buffer, other than one that has ids itself."""
        sources = (source for source in node.all_input_nodes if source not in self.ids)
        return any(self.trace.parameter(source) is not None for source in sources)

    def computes_with(self, node: fx.Node) -> bool:
        """Whether the forward computes something else of a parameter with a number per channel (FrozenBatchNorm).

        With other parameters, too (ACON's difference of two). Where the parameter itself meets the channels, the rule
        for that operation knows what to do with it.
        """
        name = self.trace.parameter(node)
        if name is None or node.op != "placeholder" or sum(size > 1 for size in node.meta["val"].shape) != 1:
            return False
        readers = self.readers[name]
        computes = any(
            kind_of(reader) in _OF_VECTORS or (kind_of(reader) in ELEMENTWISE and reader in self.of_parameters)
            for reader in readers
        )
        return computes and not only_choose(readers)

    def tried(self, what: str, name: str, trial: Callable[[], bool]) -> bool:
        """Whether a module is of a kind that its numbers alone tell: tried at its first call, of all walks."""
        if (what, name) not in self._trials:
            self._trials[what, name] = trial()
        return self._trials[what, name]

    def protect(self, node: fx.Node, reason: str) -> None:
        """No channel in the node's output can be pruned."""
        ids = self.ids[node]
        for part in ids if isinstance(ids, list) else [ids]:
            self.flow.protect(compact(part).flatten().numpy(), reason)

    def protected(self, node: fx.Node, reason: str) -> Ids:
        """One protected id all over the node's output."""
        channel = self.flow.fresh(1)
        self.flow.protect(channel, reason)
        value = node.meta["val"]
        if not has_sizes(node):  # no rule will look at them
            return torch.full((), int(channel[0]))
        if isinstance(value, (list, tuple)):
            return [torch.full((), int(channel[0])).expand(part.shape) for part in value]
        return torch.full((), int(channel[0])).expand(getattr(value, "shape", ()))

    def of_all_channels(self, node: fx.Node) -> Ids:
        """One id all over what an operation makes of all channels (a sum); what that meets has channels of its own."""
        ids = self.protected(node, f"what {operation(node)} makes of all channels")
        self._of_all_channels.add(int((ids[0] if isinstance(ids, list) else ids).flatten()[0]))
        return ids

    def is_of_all_channels(self, ids: Tensor) -> bool:
        """Whether these are ids of what was made of all channels."""
        first = compact(ids)
        return first.numel() == 1 and int(first) in self._of_all_channels

    # Layers ---------------------------------------------------------------------------------------------------

    def record(self, layer: LayerCall) -> None:
        """Note a layer's call; one that is called again has the same channels as the first time, in and out."""
        first = self._first_calls.setdefault(layer.name, layer)
        if first is not layer:
            self.flow.unite(layer.out_ids, first.out_ids)
            if layer.in_ids is not None:
                self.flow.unite(layer.in_ids, first.in_ids)
        self.flow.layers.append(layer)

    def record_sizes(self, sizes: Sizes) -> None:
        """Note numbers that cut channels; what they cut once more has the same channels as the first time."""
        first = self._first_sizes.setdefault((sizes.module, sizes.attribute), sizes)
        if first is sizes:
            self.flow.sizes.append(sizes)
        for part, of_first in zip(sizes.parts, first.parts, strict=True):
            self.flow.unite(part, of_first)

    def out_ids(self, name: str, count: int) -> np.ndarray:
        """New channels at a layer's first call, the same ones at each later call."""
        first = self._first_calls.get(name)
        return self.flow.fresh(count) if first is None else first.out_ids

    def macs_of(self, weight: object, macs_each: int) -> int:
        """What a layer costs when the network is used: nothing, for one that only training runs."""
        return macs_each if self.trace.parameter(weight) in self.trace.evaluated else 0

    def layer_of(
        self, node: fx.Node, parameter: object, leaf: str, kind: type[nn.Module] | tuple[type[nn.Module], ...]
    ) -> str | None:
        """The module of one `kind` that runs `node` itself with its own `parameter`, called `leaf` there; else None.

        A layer whose weight another module uses (`F.linear(x, self.proj.weight)`) never calls its hooks, and one whose
        parameters anything else reads, or that computes something of one of them first, can't be folded.
        """
        name = self.trace.parameter(parameter)
        if name is None or name.rpartition(".")[2] != leaf:
            return None
        owner = name.rpartition(".")[0]
        runs_itself = isinstance(self.modules.get(owner), kind) and running_module(node) == owner
        if not runs_itself or self._shares_parameters(node, owner):
            return None
        given = {id(self.tensor(self.trace.parameter(source))) for source in node.all_input_nodes}
        own = [getattr(self.modules[owner], name, None) for name in _FOLDED]
        return owner if given.issuperset(id(tensor) for tensor in own if tensor is not None) else None

    def tensor(self, name: str | None) -> Tensor | None:
        """The parameter or buffer of that name: a tied one has several."""
        module, _, leaf = (name or "").rpartition(".")
        return None if name is None else getattr(self.modules[module], leaf)

    def _shares_parameters(self, node: fx.Node, name: str) -> bool:
        own = (self.trace.parameter(source) for source in node.all_input_nodes)
        readers = (reader for parameter in own if parameter is not None for reader in self.readers[parameter])
        return any(operation(reader) != operation(node) or running_module(reader) != name for reader in readers)


def _of_parameters(trace: Trace) -> set[fx.Node]:
    """The operations that compute with parameters, buffers and numbers alone."""
    found: set[fx.Node] = set()
    for node in trace.nodes:
        sources = node.all_input_nodes
        own = node.op == "call_function" and bool(sources)
        if own and all(source in found or trace.parameter(source) is not None for source in sources):
            found.add(node)
    return found
