"""The channel graph: which channels live and die together, where compactors go, and MACs as a function of widths.

A *unit* is a set of channels, across all layers, that live and die together. A *group* is a set of units that look
alike to every layer (all rows of one convolution, say): its width is the number of its units that are alive, and
MACs depend on the widths alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from torch import fx, nn

from rr.constants import inexact_consumers
from rr.costs import PRODUCERS, MacsOfWidths, ParametersOfWidths
from rr.flow import ChannelFlow, LayerFlow, channel_flow
from rr.masks import least_macs
from rr.trace import Inputs, Trace, trace_model


@dataclass(frozen=True)
class Layer:
    """A layer of the network with the unit of each of its channels.

    kind:      'conv', 'depthwise', 'grouped', 'linear' or 'norm'
    out_units: [out_channels]; in_units: [in_channels], for a linear layer [in_features]; None for a norm layer
    norm:      the BN that directly follows (and nothing else does), None where there is none
    """

    name: str
    kind: str
    node: str
    out_units: np.ndarray
    in_units: np.ndarray | None
    macs_each: int
    norm: str | None = None


@dataclass(frozen=True)
class Site:
    """A place for a compactor: behind `layer`, and behind its BN where one directly follows.

    host: the module behind which the compactor acts; node: that place in the trace; units: [D], one per row
    """

    host: str
    layer: str
    node: str
    units: np.ndarray


@dataclass(frozen=True)
class Group:
    """Units that look alike to every layer: `units` in the order of their channels, made by `producers`."""

    units: np.ndarray
    producers: tuple[str, ...]


class ChannelGraph:
    """Units, groups, sites and MACs of one network; `model` is only read, and may hold compactors or not.

    layers: by name, in building order (that of `named_modules`, which is that of "deps")
    reasons: unit -> why it can't be pruned; a unit that isn't in it is prunable
    streams: the units that an addition joined out of several layers' channels
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs) -> None:
        trace = trace_model(model, example_inputs)
        self._build(trace, model, channel_flow(trace, model))

    def _build(self, trace: Trace, model: nn.Module, flow: ChannelFlow) -> None:
        self.trace = trace
        order = {name: position for position, (name, _) in enumerate(model.named_modules())}
        flows = sorted(flow.layers, key=lambda layer: order[layer.name])
        unit_of_root, reasons = _number_units(flow, flows)
        norms = direct_norms(trace, flow.layers)
        self.num_units = len(unit_of_root)
        self.streams = {unit_of_root[flow.find(channel)] for channel in flow.streams}
        self.reasons: dict[int, str] = {}
        for channel, reason in reasons.items():
            self.reasons.setdefault(unit_of_root[channel], reason)

        def units(ids: np.ndarray) -> np.ndarray:
            return np.array([unit_of_root[flow.find(int(channel))] for channel in ids], dtype=np.int64)

        self.layers: dict[str, Layer] = {}
        for item in flows:
            in_units = None if item.in_ids is None else units(item.in_ids)
            norm = norms.get(item.node)
            self.layers[item.name] = Layer(
                item.name, item.kind, item.node, units(item.out_ids), in_units, item.macs_each, norm and norm.name
            )
        self._node_of_norm = {norm.name: norm.node for norm in norms.values()}
        self.sites = self._find_sites(model)
        self._protect_units_without_compactors()
        for unit, reason in inexact_consumers(self, model).items():
            self.reasons.setdefault(unit, reason)
        self.groups = self._find_groups()
        self.macs = MacsOfWidths(self)
        self.parameters = ParametersOfWidths(self, model)

    # Views ---------------------------------------------------------------------------------------------------

    @property
    def prunable(self) -> np.ndarray:
        """[num_units] of bool: the units that may be pruned at all."""
        prunable = np.ones(self.num_units, dtype=bool)
        prunable[list(self.reasons)] = False
        return prunable

    def select(self, layers: str = "internal", include: Sequence[str] = (), exclude: Sequence[str] = ()) -> np.ndarray:
        """The units to prune, [num_units] of bool.

        layers: 'internal', those that no addition joins into a residual stream (the paper's choice), or 'all'
        include, exclude: name patterns (`stage1.*`) of producing layers; a unit is taken when every producer is
        included (no pattern: all are) and none is excluded

        Raises ValueError for an unknown choice, a pattern that fits no layer, and when nothing is left.
        """
        if layers not in ("internal", "all"):
            raise ValueError(f"layers must be 'internal' or 'all', not {layers!r}")
        producers = [layer.name for layer in self.layers.values() if layer.kind in PRODUCERS]
        for pattern in (*include, *exclude):
            if not any(fnmatchcase(name, pattern) for name in producers):
                raise ValueError(f"no layer fits the pattern {pattern!r}; layers are {', '.join(producers)}")
        selected = np.zeros(self.num_units, dtype=bool)
        for group in self.groups:
            included = all(any(fnmatchcase(name, p) for p in include) for name in group.producers) or not include
            excluded = any(fnmatchcase(name, p) for name in group.producers for p in exclude)
            if included and not excluded and (layers == "all" or group.units[0] not in self.streams):
                selected[group.units] = True
        selected &= self.prunable
        if not selected.any():
            raise ValueError("no prunable channels are left: see ChannelGraph.explain() for what is unprunable and why")
        return selected

    def widths(self, alive: np.ndarray) -> list[int]:
        """The flat list of widths ("deps") with `alive` ([num_units] of bool): every conv, then hidden linears.

        In building order; the network's classifiers (linear layers whose outputs leave it) are not in it.
        """
        return [int(alive[layer.out_units].sum()) for layer in self._width_layers()]

    def width_names(self) -> list[str]:
        """The layer behind each entry of `widths`."""
        return [layer.name for layer in self._width_layers()]

    def _width_layers(self) -> list[Layer]:
        with_width = [layer for layer in self.layers.values() if layer.kind != "norm"]
        convs = [layer for layer in with_width if layer.kind != "linear"]
        return convs + [layer for layer in with_width if layer.kind == "linear" and not self._is_output(layer)]

    def _is_output(self, layer: Layer) -> bool:
        return all("network's output" in self.reasons.get(int(unit), "") for unit in layer.out_units)

    def indexed_layers(self) -> list[str]:
        """Layer names by index as in the original's tables: the convs, then the linear layers, classifier last."""
        names = self.width_names()
        return names + [
            layer.name for layer in self.layers.values() if layer.kind == "linear" and self._is_output(layer)
        ]

    def removable_share(self) -> float:
        """Share of the MACs that are gone when one unit of each prunable group is left."""
        candidates = np.flatnonzero(self.prunable)
        groups = self.macs.group_of_unit[candidates]
        least = least_macs(groups, self.macs.group_sizes, self.macs.of_group_widths, min_width=1)
        return 1 - least / self.macs(np.ones(self.num_units, dtype=bool))

    def succeeding_strategy(self) -> dict[int, list[int]]:
        """Layer index -> the layers that read its output before another layer adds into it (`succeeding_strategy`)."""
        index = {self.layers[name].node: position for position, name in enumerate(self.indexed_layers())}
        latest: dict[fx.Node, int | None] = {}
        table: dict[int, list[int]] = {}
        for node in self.trace.nodes:
            if node.op != "call_function":
                continue
            known = [latest[source] for source in node.all_input_nodes if latest.get(source) is not None]
            if node.name in index:
                for source in known:
                    table.setdefault(source, []).append(index[node.name])
                latest[node] = index[node.name]
            else:
                latest[node] = max(known, default=None)
        return {layer: sorted(followers) for layer, followers in sorted(table.items())}

    def follow_dict(self) -> dict[int, int]:
        """Layer index -> the first layer that shares its units, for each layer but that first one (`follow_dict`)."""
        leaders: dict[tuple[int, ...], int] = {}
        table = {}
        for position, name in enumerate(self.indexed_layers()):
            leader = leaders.setdefault(tuple(self.layers[name].out_units), position)
            if leader != position:
                table[position] = leader
        return table

    def explain(self) -> str:
        """A line per layer: width, units, MACs, prunable or why not."""
        total = self.macs(np.ones(self.num_units, dtype=bool))
        rows = [("layer", "kind", "in", "out", "MACs", "share", "prunable")]
        for layer in self.layers.values():
            if layer.kind == "norm":
                continue
            macs = self.macs.of_layer(layer, np.ones(self.num_units, dtype=bool))
            causes = {self.reasons[int(unit)] for unit in layer.out_units if int(unit) in self.reasons}
            group = next(group for group in self.groups if layer.out_units[0] in group.units)
            partners = [name for name in group.producers if name != layer.name]
            why = "; ".join(sorted(causes)) or ("yes" + (f", with {', '.join(partners)}" if partners else ""))
            row = (layer.name, layer.kind, str(len(layer.in_units)), str(len(layer.out_units)), f"{macs:,}")
            rows.append((*row, f"{macs / total:.1%}", why))
        spans = [max(len(row[column]) for row in rows) for column in range(6)]
        return "\n".join(
            "  ".join([*(cell.ljust(span) for cell, span in zip(row[:6], spans, strict=True)), row[6]]) for row in rows
        )

    # Construction --------------------------------------------------------------------------------------------

    def _find_sites(self, model: nn.Module) -> dict[str, Site]:
        modules = dict(model.named_modules())
        inside = _nodes_by_module(self.trace)
        sites = {}
        for layer in self.layers.values():
            if layer.kind not in PRODUCERS or inside[layer.name][-1] != layer.node:
                continue  # its forward goes on after its operation: a hook would come after the rest
            host, node = (layer.norm, self._node_of_norm[layer.norm]) if layer.norm else (layer.name, layer.node)
            host = _container(inside, modules, layer, host, node)
            sites[layer.name] = Site(host, layer.name, node, layer.out_units)
        return sites

    def _protect_units_without_compactors(self) -> None:
        """A unit some of whose channels no compactor can silence stays (a producer has no site, or there is none)."""
        for layer in self.layers.values():
            if layer.kind in PRODUCERS and layer.name not in self.sites:
                for unit in layer.out_units:
                    self.reasons.setdefault(int(unit), f"{layer.name} goes on after its own operation in its forward")
        covered = np.zeros(self.num_units, dtype=bool)
        for site in self.sites.values():
            covered[site.units] = True
        for unit in np.flatnonzero(~covered):
            self.reasons.setdefault(int(unit), "made by a layer that takes no compactor")

    def _find_groups(self) -> list[Group]:
        signatures: list[list[tuple[str, str, int]]] = [[] for _ in range(self.num_units)]
        producers: list[list[str]] = [[] for _ in range(self.num_units)]
        for layer in self.layers.values():
            for role, units in (("out", layer.out_units), ("in", layer.in_units)):
                if units is None:
                    continue
                for unit, count in zip(*np.unique(units, return_counts=True), strict=True):
                    signatures[unit].append((layer.name, role, int(count)))
                    if role == "out" and layer.kind in PRODUCERS:
                        producers[unit].append(layer.name)
        groups: dict[tuple, list[int]] = {}
        for unit in range(self.num_units):
            groups.setdefault((*signatures[unit], unit in self.reasons, unit in self.streams), []).append(unit)
        return [Group(np.array(units), tuple(producers[units[0]])) for units in groups.values()]


def _number_units(flow: ChannelFlow, layers: Sequence[LayerFlow]) -> tuple[dict[int, int], dict[int, str]]:
    """Number the units by building order of their first producer, then by row; reasons by representative id."""
    reasons: dict[int, str] = {}
    for channel, reason in flow.reasons.items():
        reasons.setdefault(flow.find(channel), reason)
    numbers: dict[int, int] = {}
    producing = [layer.out_ids for layer in layers if layer.kind != "norm"]
    passing = [ids for layer in layers for ids in (layer.in_ids, layer.out_ids) if ids is not None]
    for ids in (*producing, *passing, np.array(list(reasons), dtype=np.int64)):
        for channel in ids:
            numbers.setdefault(flow.find(int(channel)), len(numbers))
    return numbers, reasons


def direct_norms(trace: Trace, layers: Sequence[LayerFlow]) -> dict[str, LayerFlow]:
    """Node of a convolution or linear layer -> the BN that alone reads its output, and whose module ends with it.

    (timm's BN modules run the activation too: a compactor's hook would come after it, and folding would lose it.)
    """
    inside = _nodes_by_module(trace)
    norm_at = {layer.node: layer for layer in layers if layer.kind == "norm"}
    calls = [layer.name for layer in layers]
    makers = {layer.node for layer in layers if layer.kind != "norm"}
    found = {}
    for node in trace.nodes:
        if node.name in makers and len(node.users) == 1:
            user = next(iter(node.users))
            norm = norm_at.get(user.name)
            if norm is not None and calls.count(norm.name) == 1 and inside[norm.name][-1] == user.name:
                found[node.name] = norm
    return found


def _nodes_by_module(trace: Trace) -> dict[str, list[str]]:
    """Module name -> the names of the operations that run within it, its children's included, in order."""
    inside: dict[str, list[str]] = {}
    for node in trace.nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            inside.setdefault(path, []).append(node.name)
    return inside


def _container(inside: dict[str, list[str]], modules: dict[str, nn.Module], layer: Layer, host: str, node: str) -> str:
    """The module that is just a conv and its BN, where they are in one: there the original has its compactor.

    Nothing else may happen in it: a ReLU in the same forward would stand between the BN and the compactor.
    """
    parent = layer.name.rpartition(".")[0]
    if layer.norm is None or not parent or isinstance(modules[parent], (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return host
    return parent if inside[parent] == [layer.node, node] else host
