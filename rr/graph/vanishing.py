"""Blocks that vanish: where a residual bypasses a block, nothing of its inside has to stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from rr.graph.layers import Group, Layer, LayerKind, Sum


class LayersOfUnits(Protocol):
    """What is needed of a graph here; see `ChannelGraph`."""

    num_units: int
    layers: Mapping[str, Layer]
    groups: Sequence[Group]
    streams: frozenset[int]
    computed: Collection[str]
    sums: Sequence[Sum]
    sums_elsewhere: Sequence[Sum]


def without_unread(graph: LayersOfUnits, alive: np.ndarray, droppable: np.ndarray) -> np.ndarray:
    """`alive` without the units that are read only by layers without a live output: nothing depends on them.

    There are some where a whole layer is gone.

    Args:
        graph: the graph.
        alive: [num_units] of bool.
        droppable: [num_units] of bool, the units that may go; others stay, whatever reads them.
    """
    alive = alive.copy()
    readers = _makers(graph)
    has_reader = np.zeros(graph.num_units, dtype=bool)
    for layer in readers:
        has_reader[layer.in_units] = True
    added_up = np.zeros(graph.num_units, dtype=bool)
    for place in (*graph.sums, *graph.sums_elsewhere):
        units = place.channels.unique().numpy()
        added_up[units[units >= 0]] = True
    while True:
        read = added_up.copy()
        for layer in readers:
            if alive[layer.out_units].any():
                read[layer.in_units] = True
        unread = alive & droppable & has_reader & ~read
        if not unread.any():
            return alive
        alive[unread] = False


def may_vanish(graph: LayersOfUnits, selected: np.ndarray) -> np.ndarray:
    """[groups] of bool: the groups that may lose their last unit, all of them at once.

    Args:
        graph: the graph.
        selected: [num_units] of bool, the units that may go at all.
    """
    vanishing = np.zeros(len(graph.groups), dtype=bool)
    alive = np.ones(graph.num_units, dtype=bool)
    for position, group in enumerate(graph.groups):
        if not selected[group.units].all():
            continue
        tried = alive.copy()
        tried[group.units] = False
        tried = without_unread(graph, tried, selected)
        if _only_blocks_are_gone(graph, tried):
            alive = tried
            vanishing[position] = True
    for position, group in enumerate(graph.groups):  # those that went with them
        vanishing[position] |= not alive[group.units].any()
    return vanishing


def _makers(graph: LayersOfUnits) -> list[Layer]:
    return [layer for layer in graph.layers.values() if layer.kind.reads_all]


def _only_blocks_are_gone(graph: LayersOfUnits, alive: np.ndarray) -> bool:
    """Whether each layer that loses its last input adds into a stream, and the others still see the network's input."""
    makers = _makers(graph)
    gone = np.zeros(graph.num_units, dtype=bool)
    for layer in makers:
        live_out, live_in = alive[layer.out_units].any(), alive[layer.in_units].any()
        if not (live_out and live_in) and layer.name in graph.computed:
            return False  # what stands in for it in a file would have to be known by its own class
        if not live_out:
            gone[layer.out_units] = True
    varies = _from_the_input(graph, makers, alive)
    for layer in makers:
        if not alive[layer.out_units].any():
            continue
        if alive[layer.in_units].any():
            if gone[layer.in_units].any() or not varies[layer.in_units].any():
                return False  # reads gone channels next to live ones, joined by place; or reads constants alone
            continue
        adds = all(int(unit) in graph.streams for unit in layer.out_units)
        if layer.kind in (LayerKind.TRANSPOSED, LayerKind.ALIKE) or len(layer.nodes) > 1 or not adds:
            return False
    return True


def _from_the_input(graph: LayersOfUnits, makers: list[Layer], alive: np.ndarray) -> np.ndarray:
    """[num_units] of bool: the live units whose channels still depend on the network's input."""
    varies = alive.copy()
    for layer in makers:
        varies[layer.out_units] = False
    waiting = makers
    while True:
        still = [layer for layer in waiting if not varies[layer.in_units].any()]
        for layer in waiting:
            if varies[layer.in_units].any():
                varies[layer.out_units] |= alive[layer.out_units]
        if len(still) == len(waiting):
            return varies
        waiting = still
