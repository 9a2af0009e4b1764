"""From channel ids to units: numbered, with the layers that have them, and grouped where no layer tells them apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rr.graph.channel_ids import ChannelFlow, compact
from rr.graph.layers import Group, Layer, LayerCall, OverChannels, Sizes, Sum


@dataclass(frozen=True)
class Units:
    """What the ids of a network come to.

    Attributes:
        count: how many units there are.
        layers: by name, in building order (that of `named_modules`, which is that of "deps").
        reasons: unit -> why it can't be pruned, as far as the flow of ids tells.
        streams: the units that an addition joined from several layers' channels.
        counted: the units that the forward cuts or groups, perhaps by hard-coded sizes.
        sums: where channels are added up.
        over_channels: means and extremes over channels that layers can make up for.
        sizes: the numbers on modules that cut channels.
    """

    count: int
    layers: dict[str, Layer]
    reasons: dict[int, str]
    streams: frozenset[int]
    counted: frozenset[int]
    sums: tuple[Sum, ...]
    over_channels: tuple[OverChannels, ...]
    sizes: tuple[Sizes, ...]

    def without(self, reasons: Collection[int]) -> np.ndarray:
        """[count] of bool: all but those that a reason keeps."""
        others = np.ones(self.count, dtype=bool)
        others[list(reasons)] = False
        return others


def units_of(flow: ChannelFlow, order: Mapping[str, int], norms: Mapping[str, str]) -> Units:
    """Number the united ids, and say what each layer has of them.

    Args:
        flow: the ids.
        order: module -> its place in building order.
        norms: layer -> the BN that directly follows.
    """
    calls = sorted(flow.layers, key=lambda call: (order[_owner(call)], call.name))
    unit_of_root, reasons_of_roots = _numbered(flow, calls)

    def units(ids: np.ndarray) -> np.ndarray:
        return np.array([unit_of_root[flow.find(int(channel))] for channel in ids], dtype=np.int64)

    def in_shape(ids: Tensor) -> Tensor:
        first = compact(ids)
        return torch.from_numpy(units(first.flatten().numpy())).view(first.shape).expand(ids.shape)

    layers: dict[str, Layer] = {}
    for call in calls:
        known = layers.get(call.name)
        if known is not None:  # called again
            nodes, macs_each = (*known.nodes, call.node), known.macs_each + call.macs_each
            layers[call.name] = replace(known, nodes=nodes, macs_each=macs_each)
            continue
        in_units = None if call.in_ids is None else units(call.in_ids)
        layers[call.name] = Layer(
            call.name,
            call.kind,
            (call.node,),
            units(call.out_ids),
            in_units,
            call.macs_each,
            call.dim,
            norms.get(call.name),
            call.places,
        )
    return Units(
        count=len(unit_of_root),
        layers=layers,
        reasons={unit_of_root[root]: reason for root, reason in reasons_of_roots.items()},
        streams=frozenset(unit_of_root[flow.find(channel)] for channel in flow.streams),
        counted=frozenset(unit_of_root[flow.find(channel)] for channel in flow.counted),
        sums=tuple(replace(place, channels=in_shape(place.channels)) for place in flow.sums),
        over_channels=tuple(
            replace(place, channels=units(place.channels), result=unit_of_root[flow.find(place.result)])
            for place in flow.over_channels
        ),
        sizes=tuple(replace(sizes, parts=tuple(units(part) for part in sizes.parts)) for sizes in flow.sizes),
    )


def grouped(
    layers: Mapping[str, Layer], num_units: int, reasons: Collection[int], streams: Collection[int]
) -> list[Group]:
    """Units that look alike to every layer, and of which all or none are prunable, or in a stream."""
    signatures: list[list[tuple[str, str, int]]] = [[] for _ in range(num_units)]
    producers: list[list[str]] = [[] for _ in range(num_units)]
    for layer in layers.values():
        for role, units in (("out", layer.out_units), ("in", layer.in_units)):
            if units is None:
                continue
            for unit, count in zip(*np.unique(units, return_counts=True), strict=True):
                signatures[unit].append((layer.name, role, int(count)))
                if role == "out" and layer.kind.makes_channels:
                    producers[unit].append(layer.name)
    groups: dict[tuple, list[int]] = {}
    for unit in range(num_units):
        groups.setdefault((*signatures[unit], unit in reasons, unit in streams), []).append(unit)
    return [Group(np.array(units), tuple(producers[units[0]])) for units in groups.values()]


def _numbered(flow: ChannelFlow, calls: Sequence[LayerCall]) -> tuple[dict[int, int], dict[int, str]]:
    """Units by building order of their first producer, then by row; reasons by the id that stands for a unit."""
    reasons: dict[int, str] = {}
    for channel, reason in flow.reasons.items():
        reasons.setdefault(flow.find(channel), reason)
    numbers: dict[int, int] = {}
    making = [call.out_ids for call in calls if call.kind.has_width]
    passing = [ids for call in calls for ids in (call.in_ids, call.out_ids) if ids is not None]
    for ids in (*making, *passing, np.array(list(reasons), dtype=np.int64)):
        for channel in ids:
            numbers.setdefault(flow.find(int(channel)), len(numbers))
    return numbers, reasons


def _owner(call: LayerCall) -> str:
    """The module that a layer is, that has it as a parameter, or that runs it."""
    return call.name if call.kind.is_module else call.name.rpartition(".")[0]
