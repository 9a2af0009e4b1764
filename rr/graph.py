"""The channel graph: which channels live and die together, where compactors go, and MACs as a function of widths.

A *unit* is a set of channels, across all layers, that live and die together. A *group* is a set of units that look
alike to every layer (all rows of one convolution, say): its width is the number of its units that are alive, and
MACs depend on the widths alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import fx, nn

from rr.compactors import Compactor, insert_compactors
from rr.constants import Inexact, inexact_consumers
from rr.costs import MacsOfWidths, ParametersOfWidths
from rr.flow import PER_GROUP, PRODUCERS, WITHOUT_WIDTH, ChannelFlow, LayerFlow, channel_flow
from rr.masks import least_macs
from rr.places import Places, direct_norms
from rr.trace import Inputs, Trace, trace_model


@dataclass(frozen=True)
class Layer:
    """A layer of the network with the unit of each of its channels; see `rr.flow.LayerFlow`.

    nodes:     its operations in the trace, one for each call
    out_units: [out_channels]; in_units: [in_channels], for a linear layer [in_features]; None without inputs of its own
    norm:      the BN that directly follows (and nothing else does), None where there is none
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    out_units: np.ndarray
    in_units: np.ndarray | None
    macs_each: int
    dim: int = 0
    norm: str | None = None

    @property
    def has_width(self) -> bool:
        """Whether it is a convolution or a linear layer; BN and bare parameters have the channels of others."""
        return self.kind not in WITHOUT_WIDTH

    @property
    def output_dim(self) -> int:
        """The dimension of the outputs in the weight of a convolution or linear layer; the inputs have the other."""
        return 1 if self.kind == "transposed" else 0


@dataclass(frozen=True)
class Site:
    """A place for a compactor: behind `layer`, and behind its BN where one directly follows.

    host: the module behind which the compactor acts (the activation in a BN module: before which); nodes: that place in
    the trace; units: [D], one per row; groups: 1 for a dense compactor, the layer's groups for a block-diagonal one,
    D for a diagonal one
    """

    host: str
    layer: str
    nodes: tuple[str, ...]
    units: np.ndarray
    groups: int = 1

    @property
    def is_diagonal(self) -> bool:
        """Whether its compactor keeps every channel apart."""
        return self.groups == len(self.units)


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
    counted: the units that the forward cuts or groups, perhaps by numbers of its own
    silence: (block-)diagonal compactors also where dead channels leave constants that a bias could hold, so that they
        can be taken out in mid-run
    diagonal: compactors that only multiply each channel by a factor, in place of dense ones
    removed: [num_units] of bool, the units that have been taken out of the live model (rr.narrow); remaining: parameter
        or buffer -> dimension -> the positions that are left there, and how many there were
    """

    def __init__(
        self, model: nn.Module, example_inputs: Inputs, *, silence: bool = False, diagonal: bool = False
    ) -> None:
        trace = trace_model(model, example_inputs)
        self._build(trace, model, channel_flow(trace, model), silence=silence, diagonal=diagonal)

    def _build(
        self, trace: Trace, model: nn.Module, flow: ChannelFlow, *, silence: bool = False, diagonal: bool = False
    ) -> None:
        self.trace = trace
        self.silence, self.diagonal = silence, diagonal
        self._places = Places(trace, model)
        order = {name: position for position, name in enumerate(self._places.order)}
        flows = sorted(flow.layers, key=lambda layer: (order[_owner(layer)], layer.name))
        unit_of_root, reasons = _number_units(flow, flows)
        norms = direct_norms(trace, model, flow.layers)
        self.num_units = len(unit_of_root)
        self.streams = {unit_of_root[flow.find(channel)] for channel in flow.streams}
        self.counted = {unit_of_root[flow.find(channel)] for channel in flow.counted}
        self.reasons: dict[int, str] = {}
        for channel, reason in reasons.items():
            self.reasons.setdefault(unit_of_root[channel], reason)

        def units(ids: np.ndarray) -> np.ndarray:
            return np.array([unit_of_root[flow.find(int(channel))] for channel in ids], dtype=np.int64)

        self.layers: dict[str, Layer] = {}
        for item in flows:
            known = self.layers.get(item.name)
            if known is not None:  # called again
                nodes, macs_each = (*known.nodes, item.node), known.macs_each + item.macs_each
                self.layers[item.name] = replace(known, nodes=nodes, macs_each=macs_each)
                continue
            in_units = None if item.in_ids is None else units(item.in_ids)
            norm = norms.get(item.name)
            self.layers[item.name] = Layer(
                item.name, item.kind, (item.node,), units(item.out_ids), in_units, item.macs_each, item.dim, norm
            )
        self.sites = self._sites_behind_producers()
        self._protect_units_without_compactors()
        self._settle_constants(model)
        self.groups = self._find_groups()
        self.removed = np.zeros(self.num_units, dtype=bool)
        self.remaining: dict[str, dict[int, tuple[np.ndarray, int]]] = {}
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

    def present(self, units: np.ndarray) -> np.ndarray:
        """Those of `units` that haven't been taken out of the live model."""
        return units[~self.removed[units]]

    def outputs_left(self, layer: Layer) -> np.ndarray:
        """The places that are left of a layer's own outputs: all, but in the live model behind a fold (rr.refold)."""
        left = self.remaining.get(f"{layer.name}.weight", {}).get(layer.output_dim)
        return np.arange(len(layer.out_units)) if left is None else left[0]

    def at_full_width(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A parameter or buffer, by its name in the model, with zeros where channels were taken out of it."""
        for dim, (positions, size) in self.remaining.get(name, {}).items():
            shape = list(tensor.shape)
            shape[dim] = size
            full = tensor.new_ones(shape) if name.endswith("running_var") else tensor.new_zeros(shape)
            tensor = full.index_copy(dim, torch.from_numpy(positions).to(tensor.device), tensor)
        return tensor

    def sites_of(self, selected: np.ndarray) -> list[Site]:
        """The places for compactors with a row for any of the units in `selected` ([num_units] of bool)."""
        return [site for site in self.sites.values() if selected[site.units].any()]

    def insert_compactors(self, model: nn.Module, selected: np.ndarray) -> dict[str, Compactor]:
        """Put identity compactors where the selected units are made, in place; by host name."""
        sites = self.sites_of(selected)
        return insert_compactors(
            model, {site.host: len(site.units) for site in sites}, {site.host: site.groups for site in sites}
        )

    def widths(self, alive: np.ndarray) -> list[int]:
        """The flat list of widths ("deps") with `alive` ([num_units] of bool): every conv, then hidden linears.

        In building order; the network's classifiers (linear layers whose outputs leave it) are not in it.
        """
        return [int(alive[layer.out_units].sum()) for layer in self._width_layers()]

    def width_names(self) -> list[str]:
        """The layer behind each entry of `widths`."""
        return [layer.name for layer in self._width_layers()]

    def _width_layers(self) -> list[Layer]:
        with_width = [layer for layer in self.layers.values() if layer.has_width]
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
        index = {
            node: position for position, name in enumerate(self.indexed_layers()) for node in self.layers[name].nodes
        }
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
            if not layer.has_width:
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

    def protect(self, units: np.ndarray, reason: str) -> None:
        """These units can't be pruned, for `reason` (the first one given stays)."""
        for unit in units:
            self.reasons.setdefault(int(unit), reason)

    def _sites_behind_producers(self) -> dict[str, Site]:
        producers = (layer for layer in self.layers.values() if layer.kind in PRODUCERS)
        sites = {layer.name: self._site_behind(layer) for layer in producers}
        return {name: site for name, site in sites.items() if site is not None}

    def _site_behind(self, layer: Layer) -> Site | None:
        """The place behind a layer, or behind its BN; None where a hook would come after something else."""
        last = self.layers[layer.norm] if layer.norm else layer
        host = self._places.place_behind(last.name, last.nodes)
        if host is None:
            return None
        if layer.norm and host == layer.norm:
            host = self._places.container(layer, last.nodes) or host
        groups = 1
        if layer.kind in ("depthwise", "norm") or (self.diagonal and layer.kind in PRODUCERS):
            groups = len(layer.out_units)
        elif layer.kind == "grouped":
            groups = self._places[layer.name].groups
        return Site(host, layer.name, last.nodes, layer.out_units, groups)

    def _settle_constants(self, model: nn.Module) -> None:
        """What dead channels leave must be nothing or a constant that a bias can hold.

        Where it isn't, a (block-)diagonal compactor behind the last layer that keeps channels apart silences them
        there once more; where there is no such layer either, the units can't be pruned.
        """
        direct = {layer.norm for layer in self.layers.values()}
        per_channel = [
            layer
            for layer in self.layers.values()
            if layer.kind in PER_GROUP or (layer.kind == "norm" and layer.name not in direct)
        ]
        candidates = {layer.name: site for layer in per_channel if (site := self._site_behind(layer)) is not None}
        while found := inexact_consumers(self, model):
            nearer = self._sites_before(found, candidates)
            self.sites.update(nearer)
            if not nearer:
                for unit, inexact in found.items():
                    self.reasons.setdefault(unit, inexact.reason)
        while self.silence and (nearer := self._sites_before(inexact_consumers(self, model, silent=True), candidates)):
            self.sites.update(nearer)
        order = {name: position for position, name in enumerate(self.layers)}
        of_use = [site for site in self.sites.values() if site.layer not in candidates or self._any_prunable(site)]
        self.sites = {site.layer: site for site in sorted(of_use, key=lambda site: order[site.layer])}

    def _any_prunable(self, site: Site) -> bool:
        return any(int(unit) not in self.reasons for unit in site.units)

    def _sites_before(self, found: Mapping[int, Inexact], candidates: Mapping[str, Site]) -> dict[str, Site]:
        """Of the candidates that aren't sites yet, the nearest before the places where constants can't be folded.

        Such a place may be a candidate's own layer: what its padding cuts, a compactor behind it silences.
        """
        at_node = {node: site for site in candidates.values() for node in (*site.nodes, *self.layers[site.layer].nodes)}
        ends = {node for layer in self.layers.values() if layer.kind in PRODUCERS for node in layer.nodes}
        units_at: dict[fx.Node, set[int]] = {}
        for unit, inexact in found.items():
            units_at.setdefault(inexact.node, set()).add(unit)
        nearest = {}
        for consumer, units in units_at.items():
            waiting, seen = [consumer], set()
            while waiting:
                node = waiting.pop()
                if node in seen or node.op != "call_function" or (node.name in ends and node is not consumer):
                    continue
                seen.add(node)
                site = at_node.get(node.name)
                if site is not None and units.intersection(site.units.tolist()):
                    nearest[site.layer] = site
                else:
                    waiting.extend(node.all_input_nodes)
        return {name: site for name, site in nearest.items() if name not in self.sites}

    def _protect_units_without_compactors(self) -> None:
        """A unit some of whose channels no compactor can silence stays (a producer has no site, or there is none)."""
        for layer in self.layers.values():
            if layer.kind in PRODUCERS and layer.name not in self.sites:
                self.protect(layer.out_units, f"{layer.name} goes on after its own operation in its forward")
        covered = np.zeros(self.num_units, dtype=bool)
        for site in self.sites.values():
            covered[site.units] = True
        self.protect(np.flatnonzero(~covered), "made by a layer that takes no compactor")

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
    producing = [layer.out_ids for layer in layers if layer.kind not in WITHOUT_WIDTH]
    passing = [ids for layer in layers for ids in (layer.in_ids, layer.out_ids) if ids is not None]
    for ids in (*producing, *passing, np.array(list(reasons), dtype=np.int64)):
        for channel in ids:
            numbers.setdefault(flow.find(int(channel)), len(numbers))
    return numbers, reasons


def _owner(layer: LayerFlow) -> str:
    """The module that a layer is, or that has it as a parameter."""
    return layer.name.rpartition(".")[0] if layer.kind == "vector" else layer.name
