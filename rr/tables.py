"""Hand-written layer tables, as the original documents them, in the place of the traced channel units.

Layers are numbered in building order, convolutions first, then linear layers (the classifier last):

    deps[i]                         the width of layer i
    succeeding_strategy[A] = B      pruning A's outputs removes inputs of B; [B, C] where two layers read them
    follow_dict[A] = B              A keeps exactly the channels that B keeps (layers that add into one stream)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from rr.compactors import find_compactors
from rr.convert import ConversionReport, convert
from rr.costs import MacsOfWidths
from rr.flow import WITHOUT_WIDTH, ChannelFlow, LayerFlow, channel_flow
from rr.graph import ChannelGraph
from rr.places import direct_norms
from rr.trace import Inputs, trace_model
from rr.weights import save_converted

logger = logging.getLogger(__name__)

MacsOfDeps = Callable[[Sequence[int]], float]


class TableGraph(ChannelGraph):
    """A channel graph whose units come from hand-written tables; the trace gives only the layers' order and sizes.

    A wrong table is caught at conversion, by its proof. Raises ValueError for tables that don't fit the network.

    silence, diagonal: as for the graph that is traced
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        deps: Sequence[int],
        succeeding_strategy: Mapping[int, int | Sequence[int]],
        follow_dict: Mapping[int, int] | None = None,
        macs_of_deps: MacsOfDeps | None = None,
        *,
        silence: bool = False,
        diagonal: bool = False,
    ) -> None:
        trace = trace_model(model, example_inputs)
        traced = channel_flow(trace, model)
        norms = {layer.name: layer for layer in traced.layers if layer.kind == "norm"}
        norm_of = {layer: norms[norm] for layer, norm in direct_norms(trace, model, traced.layers).items()}
        order = {name: position for position, (name, _) in enumerate(model.named_modules())}
        successors = {a: (b,) if isinstance(b, int) else tuple(b) for a, b in succeeding_strategy.items()}
        flow = _flow_from_tables(traced, norm_of, order, deps, successors, follow_dict or {})
        self._build(trace, model, flow, silence=silence, diagonal=diagonal)
        if macs_of_deps is not None:
            self.macs = MacsFromDeps(self, macs_of_deps)


class MacsFromDeps(MacsOfWidths):
    """MACs by the user's own function of the flat list of widths."""

    def __init__(self, graph: ChannelGraph, macs_of_deps: MacsOfDeps) -> None:
        super().__init__(graph)
        self._macs_of_deps = macs_of_deps
        self._channels = np.stack([self._per_group(graph.layers[name].out_units) for name in graph.width_names()])

    def of_group_widths(self, widths: np.ndarray) -> float:
        """MACs with `widths` ([groups]) live units in each group."""
        return float(self._macs_of_deps([round(width) for width in self._channels @ widths]))


def compactor_convert(
    model: nn.Module,
    origin_deps: Sequence[int],
    thresh: float,
    succeeding_strategy: Mapping[int, int | Sequence[int]],
    follow_dict: Mapping[int, int] | None = None,
    *,
    example_inputs: Inputs,
    macs_of_deps: MacsOfDeps | None = None,
    save_path: str | Path | None = None,
) -> tuple[nn.Module, ConversionReport]:
    """Convert a model that was trained with compactors, its channels tied as the tables say, and prove it equal.

    thresh: rows with a smaller norm are dropped
    save_path: where to write the narrow network (HDF5 with `deps`, and `.pth` beside it)
    """
    if not find_compactors(model):
        raise ValueError("the model has no compactors to convert: load it with rr.files.load_network")
    graph = TableGraph(model, example_inputs, origin_deps, succeeding_strategy, follow_dict, macs_of_deps)
    slim, report = convert(model, graph, example_inputs, threshold=thresh)
    logger.info("converted to deps %s, %.6f of the MACs", list(report.widths), report.macs_ratio)
    if save_path is not None:
        save_converted(save_path, slim)
    return slim, report


# MobileNet-v1 had a converter of its own in the original; depthwise layers need none here.
compactor_convert_mi1 = compactor_convert


def _flow_from_tables(
    traced: ChannelFlow,
    norm_of: Mapping[str, LayerFlow],
    order: Mapping[str, int],
    deps: Sequence[int],
    successors: Mapping[int, Sequence[int]],
    follow_dict: Mapping[int, int],
) -> ChannelFlow:
    layers = sorted(
        (layer for layer in traced.layers if layer.kind not in WITHOUT_WIDTH), key=lambda layer: order[layer.name]
    )
    layers.sort(key=lambda layer: layer.kind == "linear")  # stable: convolutions first
    widths = [len(layer.out_ids) for layer in layers]
    if list(deps) != widths[: len(deps)] or len(deps) < len(layers) - 1:
        raise ValueError(f"deps don't fit the network, whose widths in building order are {widths}")
    numbers = {*successors, *(b for bs in successors.values() for b in bs), *follow_dict, *follow_dict.values()}
    unknown = sorted(number for number in numbers if not 0 <= number < len(layers))
    if unknown:
        raise ValueError(f"the tables name layers {unknown}, but the network has layers 0 to {len(layers) - 1}")

    flow = ChannelFlow()
    out_ids = [flow.fresh(width) for width in widths]
    in_ids: list[np.ndarray | None] = [None] * len(layers)
    for follower, leader in follow_dict.items():
        if widths[follower] != widths[leader]:
            raise ValueError(f"layer {follower} can't follow layer {leader}: their widths differ")
        flow.unite(out_ids[follower], out_ids[leader], in_stream=True)
    for source in sorted(successors):
        for reader in successors[source]:
            columns = len(layers[reader].in_ids)
            pixels, rest = divmod(columns, widths[source])
            if rest or (pixels != 1 and layers[reader].kind != "linear"):
                raise ValueError(f"layer {reader} reads {columns} channels, which layer {source} can't give")
            read = np.repeat(
                out_ids[source], columns // widths[source]
            )  # conv -> flatten -> linear: pixels of a channel
            if in_ids[reader] is None:
                in_ids[reader] = read
            else:
                flow.unite(in_ids[reader], read)
            if layers[reader].kind == "depthwise":
                flow.unite(out_ids[reader], np.repeat(read, widths[reader] // columns))
    read_units = {flow.find(int(channel)) for ids in in_ids if ids is not None for channel in ids}
    for number, layer in enumerate(layers):
        if in_ids[number] is None:
            in_ids[number] = flow.fresh(len(layer.in_ids))
            flow.protect(in_ids[number], "no table says what this layer reads")
        unread = [channel for channel in out_ids[number] if flow.find(int(channel)) not in read_units]
        is_last = number == len(layers) - 1
        flow.protect(unread, "a channel of the network's output" if is_last else "no table says which layer reads it")
        flow.layers.append(
            LayerFlow(layer.name, layer.kind, layer.node, out_ids[number], in_ids[number], layer.macs_each)
        )
        norm = norm_of.get(layer.name)
        if norm is not None:
            flow.layers.append(LayerFlow(norm.name, "norm", norm.node, out_ids[number], None))
    return flow
