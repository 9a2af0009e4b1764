"""The network at another size of its input, or in eval mode alone: what is traced once holds there only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from rr.graph.channel_ids import ChannelFlow, compact
from rr.graph.flow import channel_flow
from rr.graph.hosts import Hosts
from rr.graph.layers import Layer, LayerKind, Sum
from rr.graph.operations import OperationKind, kind_of
from rr.graph.sizes import larger_at_once
from rr.graph.tensors import ExampleInputs, Inputs
from rr.graph.trace import Trace, is_empty, trace_model
from rr.graph.walk import Trials

_LAYERS = {OperationKind.CONVOLUTION, OperationKind.TRANSPOSED, OperationKind.LINEAR, OperationKind.BATCH_NORM}


@dataclass(frozen=True)
class Elsewhere:
    """The same network, traced in another way.

    Attributes:
        where: which, for reasons.
        trace: the operations there.
        hosts: where hooks can stand there.
        flow: the ids there.
    """

    where: str
    trace: Trace
    hosts: Hosts
    flow: ChannelFlow

    @classmethod
    def of(cls, where: str, trace: Trace, model: nn.Module, trials: Trials | None = None) -> Elsewhere:
        """Let ids flow through the other trace; `trials` as for `channel_flow`."""
        return cls(where, trace, Hosts(trace, model), channel_flow(trace, model, trials))

    def unite_in(self, flow: ChannelFlow) -> None:
        """Let channels that live and die together here do so in the ids of the first trace as well."""
        known = {call.name: call for call in reversed(flow.layers)}  # the first call of each
        slots: dict[int, int] = {}  # an id here -> the first id there at the same place of the same layer
        only_here = set()
        for call in self.flow.layers:
            if call.kind is LayerKind.PRODUCT:  # named for its operation, which may be another one here
                continue
            there = known.get(call.name)
            if there is not None and there.kind is not call.kind:  # its groups as a whole, or the same of each
                reason = f"goes by other groups of {call.name} {self.where}"
                flow.protect(np.concatenate([there.out_ids, there.in_ids]), reason)
                continue
            for ids, theirs in ((call.out_ids, there and there.out_ids), (call.in_ids, there and there.in_ids)):
                if ids is None:
                    continue
                roots = [self.flow.find(int(channel)) for channel in ids]
                if theirs is None:
                    only_here.update((root, call.name) for root in roots)
                elif len(theirs) != len(roots):  # of pixels that were laid out as channels there are more
                    flow.protect(theirs, f"{self.where}, {call.name} reads another number of channels")
                else:
                    first = [slots.setdefault(root, int(channel)) for root, channel in zip(roots, theirs, strict=True)]
                    flow.unite(np.array(first, dtype=np.int64), theirs)
        told = {(place.operation, place.readers) for place in flow.over_channels}
        for place in self.flow.over_channels:
            readers = ", ".join(place.readers)
            if (place.operation, place.readers) not in told:
                self.flow.protect(place.channels, f"meets a {place.operation} of channels that is read by {readers}")
        for root, name in sorted(only_here):
            if root in slots:
                flow.protect(np.array([slots[root]]), f"meets {name}, which runs only {self.where}")
        for channel, reason in self.flow.reasons.items():
            root = self.flow.find(channel)
            if root in slots:
                flow.protect(np.array([slots[root]]), f"{self.where}, {reason}")

    def layers_like(self, layers: Mapping[str, Layer]) -> dict[str, Layer]:
        """Those layers with their operations here; what runs only there is left out."""
        nodes: dict[str, tuple[str, ...]] = {}
        for call in self.flow.layers:
            nodes[call.name] = (*nodes.get(call.name, ()), call.node)
        return {name: replace(layer, nodes=nodes[name]) for name, layer in layers.items() if name in nodes}

    def sums_in(self, layers: Mapping[str, Layer]) -> tuple[Sum, ...]:
        """Where channels are added up here, in the units of those layers; -1 for channels that none of them has."""
        unit_of: dict[int, int] = {}
        for call in self.flow.layers:
            layer = layers.get(call.name)
            if layer is None or call.kind is LayerKind.PRODUCT:
                continue
            for ids, units in ((call.out_ids, layer.out_units), (call.in_ids, layer.in_units)):
                is_told = ids is not None and call.kind is layer.kind
                if is_told and len(ids) == len(units):  # else nothing of it may go (`unite_in`)
                    roots = (self.flow.find(int(channel)) for channel in ids)
                    unit_of |= dict(zip(roots, units.tolist(), strict=True))

        def in_units(ids: Tensor) -> Tensor:
            first = compact(ids)
            units = [unit_of.get(self.flow.find(int(channel)), -1) for channel in first.flatten()]
            return torch.tensor(units).view(first.shape).expand(ids.shape)

        return tuple(replace(place, channels=in_units(place.channels)) for place in self.flow.sums)


def traced_elsewhere(model: nn.Module, example_inputs: Inputs, trials: Trials | None = None) -> Elsewhere | None:
    """The network at a larger input and another batch; None where it takes the examples' size alone.

    Args:
        model: the network.
        example_inputs: what it is called with.
        trials: as for `channel_flow`.
    """
    inputs = ExampleInputs.of(example_inputs)
    for larger in larger_at_once(inputs.like(model)):
        try:
            trace = trace_model(model, larger)
        except Exception:  # whatever the user's forward raises: it doesn't take this size
            continue
        if any(is_empty(node) for node in trace.nodes if kind_of(node) in _LAYERS):
            continue  # of what has nothing to work on there, nothing can be said
        return Elsewhere.of("at another size of the input", trace, model, trials)
    return None


def depends_on_places(trace: Trace) -> bool:
    """Whether the forward takes parts of activations, or puts something around: other sizes have other places."""
    kinds = (OperationKind.CUT, OperationKind.CHOICE, OperationKind.PADDING)
    return any(kind_of(node) in kinds for node in trace.nodes)
