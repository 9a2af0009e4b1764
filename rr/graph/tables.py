"""Hand-written layer tables, as the original documents them, in place of the traced channel units.

Layers are numbered in building order, convolutions first, then linear layers (the classifier last):

    deps[i]                         the width of layer i
    succeeding_strategy[A] = B      pruning A's outputs removes inputs of B; [B, C] where two layers read them
    follow_dict[A] = B              A keeps exactly the channels that B keeps (layers that add into one stream)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rr.errors import InputError
from rr.graph.channel_ids import ChannelFlow
from rr.graph.layers import LayerCall, LayerKind

MacsOfDeps = Callable[[Sequence[int]], float]


@dataclass(frozen=True)
class LayerTables:
    """A user's tables for one network.

    Attributes:
        deps: the width of every convolution, then of the linear layers; these may be left out, and then keep their
            outputs, as the classifier does.
        succeeding_strategy: layer -> the layer, or layers, that read its outputs.
        follow_dict: layer -> the layer whose channels it keeps.
        macs_of_deps: the MACs as a function of a list like `deps`; None: those of the traced network.
    """

    deps: Sequence[int]
    succeeding_strategy: Mapping[int, int | Sequence[int]]
    follow_dict: Mapping[int, int] = field(default_factory=dict)
    macs_of_deps: MacsOfDeps | None = None

    @property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """`succeeding_strategy` with every entry as a tuple, in the layers' order."""
        found = sorted(self.succeeding_strategy.items())
        return {layer: (after,) if isinstance(after, int) else tuple(after) for layer, after in found}


def flow_of_tables(
    tables: LayerTables, traced: ChannelFlow, norms: Mapping[str, str], order: Mapping[str, int]
) -> ChannelFlow:
    """Ids that are united as the tables say; the trace gives only the layers' order and sizes.

    Args:
        tables: the tables.
        traced: what the trace's own ids found.
        norms: layer -> the BN that directly follows.
        order: module -> its place in building order.

    Raises:
        InputError: if the tables don't fit the network.
    """
    norm_calls = {call.name: call for call in traced.layers if call.kind is LayerKind.NORM}
    calls = sorted((call for call in traced.layers if call.kind.has_width), key=lambda call: order[call.name])
    calls.sort(key=lambda call: call.kind is LayerKind.LINEAR)  # stable: convolutions first
    _check_fit(tables, calls)

    flow = ChannelFlow()
    out_ids = [flow.fresh(len(call.out_ids)) for call in calls]
    for follower, leader in tables.follow_dict.items():
        if len(out_ids[follower]) != len(out_ids[leader]):
            raise InputError(f"layer {follower} can't follow layer {leader}: their widths differ")
        flow.unite(out_ids[follower], out_ids[leader], in_stream=True)
    in_ids = _read_ids(tables, calls, out_ids, flow)
    read_units = {flow.find(int(channel)) for ids in in_ids if ids is not None for channel in ids}
    for number, call in enumerate(calls):
        columns = in_ids[number]
        if columns is None:
            columns = flow.fresh(len(call.in_ids))
            flow.protect(columns, "no table says what this layer reads")
        _protect_unread(flow, tables, number, len(calls), out_ids[number], read_units)
        flow.layers.append(LayerCall(call.name, call.kind, call.node, out_ids[number], columns, call.macs_each))
        norm = norm_calls.get(norms.get(call.name, ""))
        if norm is not None:
            flow.layers.append(LayerCall(norm.name, LayerKind.NORM, norm.node, out_ids[number], None))
    return flow


def _check_fit(tables: LayerTables, calls: Sequence[LayerCall]) -> None:
    """Check that `deps` are the network's widths, and that the tables name its layers."""
    widths = [len(call.out_ids) for call in calls]
    convolutions = sum(call.kind is not LayerKind.LINEAR for call in calls)
    if list(tables.deps) != widths[: len(tables.deps)] or len(tables.deps) < convolutions:
        raise InputError(
            f"deps don't fit the network, whose widths in building order are {widths} (the last "
            f"{len(widths) - convolutions} of linear layers, which deps need not have)"
        )
    readers = tables.readers
    numbers = {*readers, *(reader for after in readers.values() for reader in after)}
    numbers |= {*tables.follow_dict, *tables.follow_dict.values()}
    unknown = sorted(number for number in numbers if not 0 <= number < len(calls))
    if unknown:
        raise InputError(f"the tables name layers {unknown}, but the network has layers 0 to {len(calls) - 1}")


def _read_ids(
    tables: LayerTables, calls: Sequence[LayerCall], out_ids: Sequence[np.ndarray], flow: ChannelFlow
) -> list[np.ndarray | None]:
    """What each layer reads, as `succeeding_strategy` says; None where it says nothing."""
    in_ids: list[np.ndarray | None] = [None] * len(calls)
    for source, readers in tables.readers.items():
        for reader in readers:
            columns, width = len(calls[reader].in_ids), len(out_ids[source])
            pixels, rest = divmod(columns, width)
            if rest or (pixels != 1 and calls[reader].kind is not LayerKind.LINEAR):
                raise InputError(f"layer {reader} reads {columns} channels, which layer {source} can't give")
            read = np.repeat(out_ids[source], pixels)  # conv -> flatten -> linear: the pixels of a channel
            if in_ids[reader] is None:
                in_ids[reader] = read
            else:
                flow.unite(in_ids[reader], read)
            if calls[reader].kind is LayerKind.DEPTHWISE:
                flow.unite(out_ids[reader], np.repeat(read, len(out_ids[reader]) // columns))
    return in_ids


def _protect_unread(
    flow: ChannelFlow, tables: LayerTables, number: int, count: int, out_ids: np.ndarray, read_units: set[int]
) -> None:
    """Keep channels that no layer is said to read."""
    unread = np.array([channel for channel in out_ids if flow.find(int(channel)) not in read_units], dtype=np.int64)
    if number == count - 1:
        reason = "a channel of the network's output"
    elif number >= len(tables.deps):
        reason = "deps don't have this layer"
    else:
        reason = "no table says which layer reads it"
    flow.protect(unread, reason)
