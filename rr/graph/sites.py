"""Where compactors go: behind layers that make channels, and wherever a dead channel's constant must be silenced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx, nn

from rr.graph.dead_constants import Findings, Inexact, dependent, probed
from rr.graph.elsewhere import Elsewhere
from rr.graph.hosts import Hosts
from rr.graph.layers import Layer, LayerKind, Site, Sum
from rr.graph.trace import Trace
from rr.graph.units import Units


@dataclass
class Places:
    """What `inexact_consumers` needs of a graph, with the sites as they are so far."""

    trace: Trace
    layers: Mapping[str, Layer]
    sites: dict[str, Site]
    sums: Sequence[Sum]


@dataclass(frozen=True)
class FoundSites:
    """What `find_sites` found.

    Attributes:
        sites: the places for compactors, by layer.
        reasons: unit -> why it can't be pruned.
        leave_constants: whether any dead channel leaves a constant that a bias is to hold.
    """

    sites: dict[str, Site]
    reasons: dict[int, str]
    leave_constants: bool


def find_sites(
    trace: Trace,
    model: nn.Module,
    units: Units,
    hosts: Hosts,
    *,
    silence: bool,
    diagonal: bool,
    elsewhere: Sequence[Elsewhere] = (),
) -> FoundSites:
    """The places for compactors, by layer, and why units can't be pruned.

    What dead channels leave must be nothing or a constant that a bias can hold. Where it isn't, a (block-)diagonal
    compactor behind the last layer that keeps channels apart silences them there once more; where there is no such
    layer either, the units can't be pruned.

    Args:
        trace: the operations.
        model: for its parameters' shapes.
        units: the units that the ids came to.
        hosts: where hooks can stand.
        silence: whether to silence even constants that a bias could hold.
        diagonal: whether compactors behind layers that make channels are diagonal.
        elsewhere: the network at another size of its input, or in eval mode, where constants must be the same.
    """
    finder = _SiteFinder(hosts, units.layers, diagonal)
    behind_makers = {layer.name: finder.behind(layer) for layer in units.layers.values() if layer.kind.makes_channels}
    sites = {name: site for name, site in behind_makers.items() if site is not None}
    reasons = _without_compactors(units, sites)
    places = Places(trace, units.layers, sites, units.sums)

    def prunable() -> np.ndarray:
        return units.without(reasons)

    def unfoldable(here: Findings) -> dict[int, Inexact]:
        found = dict(here.inexact)
        for other in () if found else elsewhere:
            there = _places_in(other, units, sites, diagonal)
            found |= dependent(places, there, here, probed(there, model, prunable()), other.where)
        return found

    candidates = finder.silencers()
    while found := unfoldable(here := probed(places, model, prunable())):
        nearer = _nearest_before(found, candidates, units.layers, sites)
        sites.update(nearer)
        if not nearer:
            for unit, inexact in found.items():
                reasons.setdefault(unit, inexact.reason)
    while silence and (nearer := _nearest_before(here.anything, candidates, units.layers, sites)):
        sites.update(nearer)
        here = probed(places, model, prunable())
    order = {name: position for position, name in enumerate(units.layers)}
    of_use = [site for site in sites.values() if site.layer not in candidates or prunable()[site.units].any()]
    in_order = {site.layer: site for site in sorted(of_use, key=lambda site: order[site.layer])}
    return FoundSites(in_order, reasons, bool(here.constant))


def _places_in(elsewhere: Elsewhere, units: Units, sites: Mapping[str, Site], diagonal: bool) -> Places:
    """The same layers and compactors at another size."""
    layers = elsewhere.layers_like(units.layers)
    finder = _SiteFinder(elsewhere.hosts, layers, diagonal)
    there = {name: finder.behind(layers[name]) for name in sites if name in layers}
    behind = {name: site for name, site in there.items() if site is not None}
    return Places(elsewhere.trace, layers, behind, elsewhere.sums_in(units.layers))


class _SiteFinder:
    def __init__(self, hosts: Hosts, layers: Mapping[str, Layer], diagonal: bool) -> None:
        self._hosts, self._layers, self._diagonal = hosts, layers, diagonal

    def behind(self, layer: Layer) -> Site | None:
        """The place behind a layer, or behind its BN; None where a hook would come after something else."""
        last = self._layers[layer.norm] if layer.norm else layer
        host = self._hosts.host_behind(last.name, last.nodes)
        if host is None:
            return None
        if layer.norm and host == layer.norm:
            host = self._hosts.container(layer.name, [*layer.nodes, *last.nodes]) or host
        return Site(host, layer.name, last.nodes, layer.out_units, self._groups(layer))

    def _groups(self, layer: Layer) -> int:
        if layer.kind is LayerKind.GROUPED or (layer.kind is LayerKind.ALIKE and not self._diagonal):
            return self._hosts[layer.name].groups
        is_diagonal = layer.kind in (LayerKind.DEPTHWISE, LayerKind.NORM, LayerKind.AFFINE) or (
            self._diagonal and layer.kind.makes_channels
        )
        return len(layer.out_units) if is_diagonal else 1

    def silencers(self) -> dict[str, Site]:
        """The places behind layers that keep channels apart."""
        direct = {layer.norm for layer in self._layers.values()}
        per_channel = [
            layer
            for layer in self._layers.values()
            if layer.kind.is_by_group
            or layer.kind is LayerKind.AFFINE
            or (layer.kind is LayerKind.NORM and layer.name not in direct)
        ]
        return {layer.name: site for layer in per_channel if (site := self.behind(layer)) is not None}


def _without_compactors(units: Units, sites: Mapping[str, Site]) -> dict[int, str]:
    """All reasons so far; a unit with channels that no compactor can silence stays as well."""
    reasons = dict(units.reasons)

    def protect(ids: Sequence[int] | np.ndarray, reason: str) -> None:
        for unit in ids:
            reasons.setdefault(int(unit), reason)

    for layer in units.layers.values():
        if layer.kind.makes_channels and layer.name not in sites:
            protect(layer.out_units, f"{layer.name} goes on after its own operation in its forward")
    covered = np.zeros(units.count, dtype=bool)
    for site in sites.values():
        covered[site.units] = True
    protect(np.flatnonzero(~covered), "made by a layer that takes no compactor")
    return reasons


def _nearest_before(
    found: Mapping[int, Inexact], candidates: Mapping[str, Site], layers: Mapping[str, Layer], sites: Mapping[str, Site]
) -> dict[str, Site]:
    """Of the candidates that aren't sites yet, the nearest before the places where constants can't be folded.

    Such a place may be a candidate's own layer: what its padding cuts, a compactor behind it silences. Where it is none
    of this trace, the last candidate is taken that has the unit.
    """
    at_node = {node: site for site in candidates.values() for node in (*site.nodes, *layers[site.layer].nodes)}
    ends = {node for layer in layers.values() if layer.kind.reads_all for node in layer.nodes}
    units_at: dict[fx.Node | None, set[int]] = {}
    for unit, inexact in found.items():
        units_at.setdefault(inexact.node, set()).add(unit)
    nearest = {}
    for unit in units_at.pop(None, ()):
        nearest |= {site.layer: site for site in [s for s in candidates.values() if unit in s.units][-1:]}
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
    return {name: site for name, site in nearest.items() if name not in sites}
