"""The channel graph: which channels live and die together, where compactors go, and MACs as a function of widths.

A *unit* is a set of channels, across all layers, that live and die together. A *group* is a set of units that look
alike to every layer (all rows of one convolution, say): its width is the number of its units that are alive, and
MACs depend on the widths alone. The graph is built once, from the model as it came, and then only read: what leaves the
model while it trains is in `Remaining`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType

import numpy as np
from torch import fx, nn

from rr.compactors import Compactor, insert_compactors
from rr.errors import InputError
from rr.graph.computed import ComputedLayer, computed_layers, with_plain_layers
from rr.graph.costs import CostOfWidths, MacsFromDeps, MacsOfWidths, ParametersOfWidths, count_parameters
from rr.graph.elsewhere import Elsewhere, depends_on_places, traced_elsewhere
from rr.graph.flow import channel_flow
from rr.graph.hosts import Hosts
from rr.graph.layers import Layer, LayerKind, Site
from rr.graph.sites import find_sites
from rr.graph.tables import LayerTables, flow_of_tables
from rr.graph.tensors import Inputs
from rr.graph.trace import Trace, trace_model
from rr.graph.units import grouped, units_of
from rr.graph.walk import Trials
from rr.graph.widths import least_widths, multiples_in_units


class ChannelGraph:
    """Units, groups, sites and costs of one network; `model` is only read, and may hold compactors or not.

    Args:
        model: the network.
        example_inputs: what it is called with: a tensor, a sequence of arguments, or a dict of keyword arguments.
        tables: hand-written layer tables in place of the traced channel units; a wrong table is caught at
            conversion, by its proof.
        silence: (block-)diagonal compactors also where dead channels leave constants that a bias could hold, so that
            they can be taken out in mid-run.
        diagonal: compactors that only multiply each channel by a factor, in place of dense ones.

    Attributes:
        trace: the operations.
        num_units: how many units there are.
        layers: by name, in building order (that of `named_modules`, which is that of "deps").
        sites: the places for compactors, by layer.
        groups: of units that look alike to every layer.
        reasons: unit -> why it can't be pruned; a unit that isn't in it is prunable.
        streams: the units that an addition joined from several layers' channels.
        counted: the units that the forward cuts or groups, perhaps by hard-coded sizes.
        sums: where channels are added up; sums_elsewhere: where that is in eval mode alone, or at another size.
        over_channels: means and extremes over channels that the layers which read them make up for.
        sizes: the numbers on modules that cut channels.
        no_layers: modules that run a convolution or a linear operation, but are no layer here -> why.
        macs, parameters: what widths cost.
        computed: the layers that compute their weight from parameters, by name; in all else of the graph they are the
            plain layers that a conversion makes of them.

    Raises:
        InputError: if the model can't be traced, or tables don't fit it.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        *,
        tables: LayerTables | None = None,
        silence: bool = False,
        diagonal: bool = False,
    ) -> None:
        own_parameters = count_parameters(model)
        self.trace, computed, model = _traced(model, example_inputs)
        self.computed = MappingProxyType(computed)
        self.silence, self.diagonal = silence, diagonal
        hosts = Hosts(self.trace, model)
        trials: Trials = {}
        flow = channel_flow(self.trace, model, trials, whole_groups=tables is not None)
        elsewhere = []
        if self.trace.in_eval is not None:
            elsewhere.append(Elsewhere.of("in eval mode", self.trace.in_eval, model, trials))
            elsewhere[0].unite_in(flow)
        norms = hosts.direct_norms(flow.layers)
        if tables is not None:
            flow = flow_of_tables(tables, flow, norms, hosts.order)
        units = units_of(flow, hosts.order, norms)
        find = partial(find_sites, self.trace, model, hosts=hosts, silence=silence, diagonal=diagonal)
        found = find(units=units, elsewhere=elsewhere)
        if tables is None and (depends_on_places(self.trace) or found.leave_constants):
            larger = traced_elsewhere(model, example_inputs, trials)
            if larger is not None:
                larger.unite_in(flow)
                units = units_of(flow, hosts.order, norms)
                elsewhere.append(larger)
                found = find(units=units, elsewhere=elsewhere)
        self.num_units = units.count
        self.layers = MappingProxyType(units.layers)
        self.sites = MappingProxyType(found.sites)
        self.reasons = MappingProxyType(found.reasons)
        self.streams, self.counted, self.sums, self.sizes = units.streams, units.counted, units.sums, units.sizes
        self.over_channels = units.over_channels
        self.no_layers = MappingProxyType(flow.no_layers)
        self.sums_elsewhere = tuple(place for other in elsewhere for place in other.sums_in(units.layers))
        self.groups = tuple(grouped(units.layers, units.count, found.reasons, units.streams))
        for array in _arrays(self.layers.values(), self.sites.values(), self.groups, self.over_channels):
            array.setflags(write=False)
        self.macs = self._macs(tables)
        layers = list(self.layers.values())
        self.parameters = ParametersOfWidths(layers, self.groups, self.num_units, model, self.sites, own_parameters)

    def _macs(self, tables: LayerTables | None) -> CostOfWidths:
        """MACs as the tables count them, where they do."""
        if tables is None or tables.macs_of_deps is None:
            return MacsOfWidths(list(self.layers.values()), self.groups, self.num_units, self.trace.macs)
        in_deps = self._width_layers()[: len(tables.deps)]
        return MacsFromDeps(in_deps, self.groups, self.num_units, tables.macs_of_deps)

    def with_reasons(self, reasons: dict[int, str]) -> ChannelGraph:
        """The same graph, in which these units can't be pruned either.

        Args:
            reasons: unit -> why; a reason that the graph has already stays.
        """
        graph = copy.copy(self)
        graph.reasons = MappingProxyType({**reasons, **self.reasons})
        return graph

    def of_plain_layers(self) -> ChannelGraph:
        """The same graph, of a copy of the model that has plain layers already (`rr.graph.computed`)."""
        graph = copy.copy(self)
        graph.computed = MappingProxyType({})
        return graph

    @property
    def prunable(self) -> np.ndarray:
        """[num_units] of bool: the units that may be pruned at all."""
        prunable = np.ones(self.num_units, dtype=bool)
        prunable[list(self.reasons)] = False
        return prunable

    def select(self, layers: str = "internal", include: Sequence[str] = (), exclude: Sequence[str] = ()) -> np.ndarray:
        """The units to prune, [num_units] of bool.

        Args:
            layers: 'internal', those that no addition joins into a residual stream (the paper's choice), or 'all'.
            include: name patterns (`stage1.*`) of layers that make channels; a unit is taken when each of its layers
                fits one (without a pattern all do).
            exclude: name patterns of the same kind; a unit is left out when one of its layers fits.

        Raises:
            InputError: for an unknown choice, a pattern that fits no layer, and when nothing is left.
        """
        if layers not in ("internal", "all"):
            raise InputError(f"layers must be 'internal' or 'all', not {layers!r}")
        makers = [layer.name for layer in self.layers.values() if layer.kind.makes_channels]
        for option, patterns in (("include", include), ("exclude", exclude)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in makers):
                    raise InputError(
                        f"{option} has a pattern that fits no layer, {pattern!r}; layers are {', '.join(makers)}"
                    )
        selected = np.zeros(self.num_units, dtype=bool)
        for group in self.groups:
            selected[group.units] = True
        selected[list(self.left_out(layers, include, exclude))] = False
        if (include or exclude) and not any(selected[self.layers[name].out_units].any() for name in makers):
            raise InputError(
                f"the patterns of include and exclude leave no layer to prune with layers={layers!r}; a residual "
                "stream is taken with layers='all', if all layers that add to it may go"
            )
        return self.prunable_of(selected)

    def left_out(self, layers: str, include: Sequence[str], exclude: Sequence[str]) -> dict[int, str]:
        """The units that a choice, as `select` takes it, leaves out whether they can be pruned or not -> why."""
        found = {}
        for group in self.groups:
            stay = [p for p in exclude if any(fnmatchcase(name, p) for name in group.producers)]
            fit = [name for name in group.producers if any(fnmatchcase(name, p) for p in include)]
            if layers != "all" and group.units[0] in self.streams:
                why = "in a residual stream: layers 'all' prunes it"
            elif stay:
                why = f"left out by name: exclude '{stay[0]}'"
            elif include and len(fit) < len(group.producers):
                other = next(name for name in group.producers if name not in fit)
                why = f"left out by name: no pattern of include fits {other}"
            else:
                continue
            found |= dict.fromkeys(group.units.tolist(), why)
        return found

    def prunable_of(self, selected: np.ndarray) -> np.ndarray:
        """Those of the units in `selected` ([num_units] of bool) that may be pruned.

        Raises:
            InputError: if there is none.
        """
        prunable = selected & self.prunable
        if not prunable.any():
            raise InputError(f"no prunable channels are left: {self.largest_reasons() or 'none were chosen'}")
        return prunable

    def largest_reasons(self, count: int = 3) -> str:
        """Why channels stay, in the layers with the most MACs of which some do: `conv2: ...; fc: ...`.

        Where no layer is understood (each quantises its weight, say), the first reasons on the way through the network.
        """
        if not self.layers:
            whys = dict.fromkeys(self.reasons[unit] for unit in sorted(self.reasons))
            return "; ".join([why for why in whys if "network's input" not in why][:count])
        stay = {
            layer.name: (layer.macs_each * layer.out_units.size, self.reasons[int(unit)])
            for layer in self.layers.values()
            if layer.kind.makes_channels
            for unit in layer.out_units
            if int(unit) in self.reasons
        }
        stay = {name: why for name, why in stay.items() if "network's output" not in why[1]} or stay
        largest = sorted(stay, key=lambda name: -stay[name][0])[:count]
        return "; ".join(f"{name}: {stay[name][1]}" for name in largest)

    def __deepcopy__(self, memo: object) -> ChannelGraph:
        return self  # it is never changed

    def sites_of(self, selected: np.ndarray) -> list[Site]:
        """The places for compactors with a row for any of the units in `selected` ([num_units] of bool)."""
        return [site for site in self.sites.values() if selected[site.units].any()]

    def insert_compactors(self, model: nn.Module, selected: np.ndarray) -> dict[str, Compactor]:
        """Put identity compactors where the selected units are made, in place; by host name."""
        sites = self.sites_of(selected)
        return insert_compactors(
            model, {site.host: len(site.units) for site in sites}, {site.host: site.groups for site in sites}
        )

    # Widths and tables, as the original has them ----------------------------------------------------------------

    def widths(self, alive: np.ndarray) -> list[int]:
        """The flat list of widths ("deps") with `alive` ([num_units] of bool): every conv, then hidden linears.

        In building order; the network's classifiers (linear layers whose outputs leave it) are not in it.
        """
        return [int(alive[layer.out_units].sum()) for layer in self._width_layers()]

    def width_names(self) -> list[str]:
        """The layer that each entry of `widths` belongs to."""
        return [layer.name for layer in self._width_layers()]

    def indexed_layers(self) -> list[str]:
        """Layer names, indexed as in the original's tables: the convs, then the linear layers, classifier last."""
        return self.width_names() + [layer.name for layer in self._linears() if self._is_output(layer)]

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

    def removable_share(self, selected: np.ndarray | None = None) -> float:
        """Share of the MACs that are gone when one unit of each group is left, of `selected` units or all prunable."""
        groups = self.macs.group_of_unit[np.flatnonzero(self.prunable if selected is None else selected)]
        least = least_widths(groups, self.macs.group_sizes, min_width=1)
        return 1 - self.macs.of_group_widths(least) / self.macs.full

    def multiples_in_units(self, width_multiple: int) -> np.ndarray:
        """[groups]: of how many units the live ones must be a multiple (`rr.graph.widths.multiples_in_units`)."""
        return multiples_in_units(self.layers.values(), self.macs.group_of_unit, len(self.groups), width_multiple)

    def _width_layers(self) -> list[Layer]:
        convs = [layer for layer in self.layers.values() if layer.kind.has_width and layer.kind is not LayerKind.LINEAR]
        return convs + [layer for layer in self._linears() if not self._is_output(layer)]

    def _linears(self) -> list[Layer]:
        return [layer for layer in self.layers.values() if layer.kind is LayerKind.LINEAR]

    def _is_output(self, layer: Layer) -> bool:
        return all("network's output" in self.reasons.get(int(unit), "") for unit in layer.out_units)


def _traced(model: nn.Module, example_inputs: Inputs) -> tuple[Trace, dict[str, ComputedLayer], nn.Module]:
    """The trace, the layers that compute their weight, and what was traced: a copy with plain layers in their place."""
    trace = trace_model(model, example_inputs)
    computed = computed_layers(trace, model)
    if computed:
        model = with_plain_layers(model, computed)
        trace = trace_model(model, example_inputs)
    return trace, computed, model


def _arrays(*data: Iterable[object]) -> Iterable[np.ndarray]:
    """The arrays that are fields of plain data."""
    for items in data:
        for item in items:
            yield from (value for value in vars(item).values() if isinstance(value, np.ndarray))
