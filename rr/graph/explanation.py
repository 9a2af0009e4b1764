"""What of a network can be pruned, layer by layer, and why the rest can't, as a table."""

from __future__ import annotations

import numpy as np

from rr.errors import InputError
from rr.graph.channel_graph import ChannelGraph
from rr.graph.costs import macs_of_layer
from rr.graph.layers import Layer, LayerKind


def explain(graph: ChannelGraph) -> str:
    """A line per layer: width, MACs, prunable or why not; then one per module that runs what is no layer here.

    Raises:
        InputError: if it isn't given a graph.
    """
    if not isinstance(graph, ChannelGraph):
        raise InputError(f"explain takes a graph, not {type(graph).__name__}: ChannelGraph(model, example_inputs)")
    full = np.ones(graph.num_units, dtype=bool)
    total = graph.macs(full)
    rows = [("layer", "kind", "in", "out", "MACs", "share", "prunable")]
    for layer in graph.layers.values():
        if layer.kind.has_width or layer.kind is LayerKind.COLUMNS:
            macs = macs_of_layer(layer, full)
            sizes = (str(len(layer.in_units)), str(len(layer.out_units)))
            rows.append((layer.name, layer.kind.value, *sizes, f"{macs:,}", f"{macs / total:.1%}", _why(graph, layer)))
    rows += [(name or "the model", *[""] * 5, f"no plain layer: {why}") for name, why in graph.no_layers.items()]
    return in_columns(rows)


def in_columns(rows: list[tuple[str, ...]]) -> str:
    """Rows of cells as lines, the cells of a column under each other."""
    spans = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(span) for cell, span in zip(row[:-1], spans, strict=True)), row[-1]]) for row in rows
    )


def reasons_of(graph: ChannelGraph, layer: Layer) -> str:
    """Why (some of) a layer's outputs can't be pruned; "" where all can."""
    return "; ".join(sorted({graph.reasons[int(unit)] for unit in layer.out_units if int(unit) in graph.reasons}))


def _why(graph: ChannelGraph, layer: Layer) -> str:
    if causes := reasons_of(graph, layer):
        return causes
    group = next(group for group in graph.groups if layer.out_units[0] in group.units)
    partners = [name for name in group.producers if name != layer.name]
    return "yes" + (f", with {', '.join(partners)}" if partners else "")
