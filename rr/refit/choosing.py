"""Which units go in a round, by what all that reads them loses, refitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rr.graph import ChannelGraph, CostOfWidths, Target
from rr.graph.widths import PerGroup, rounded_up
from rr.refit.capture import Sink
from rr.refit.elimination import Elimination, Surgeon
from rr.refit.feed import Feed
from rr.refit.fisher import capture_with_gradients
from rr.refit.gram import Gram, best_ridge, regularised, root_of
from rr.refit.rows import REFITTED, Reader, matrix_of, reader_of
from rr.refit.settings import RefitConfig
from rr.refit.watch import Seen
from rr.runtime import as_first_decides

MOST_ROWS = 10_000  # of a layer's matrix: its Gram matrix takes 8 bytes for each pair


def readers_of(graph: ChannelGraph, model: nn.Module, units: np.ndarray) -> list[Reader]:
    """The layers that read any of `units` ([num_units] of bool) and can be refitted, in the order in which they run."""
    order = {node.name: position for position, node in enumerate(graph.trace.nodes)}
    layers = [layer for layer in graph.layers.values() if layer.kind in REFITTED and units[layer.in_units].any()]
    layers.sort(key=lambda layer: order[layer.nodes[0]])
    return [reader_of(layer, model.get_submodule(layer.name)) for layer in layers]


def refittable(graph: ChannelGraph, model: nn.Module, selected: np.ndarray) -> np.ndarray:
    """[num_units] of bool: those of `selected` that nothing reads but layers that can be refitted, or go by channel.

    Raises:
        InputError: if there are none.
    """
    selected = selected.copy()
    for layer in graph.layers.values():
        if layer.in_units is None or layer.kind.is_by_group:
            continue
        known = layer.kind in REFITTED
        if not known or len(reader_of(layer, model.get_submodule(layer.name)).units) > MOST_ROWS:
            selected[layer.in_units] = False
    return graph.prunable_of(selected)


class Chooser:
    """Finds the order in which units go.

    Args:
        graph: of the network.
        selected: [num_units] of bool, the units that may go.
        least: [groups], units that each group keeps.
        settings: of the Gram matrices and the labels drawn.
    """

    def __init__(self, graph: ChannelGraph, selected: np.ndarray, least: PerGroup, settings: RefitConfig) -> None:
        self._graph, self._selected, self._least, self._settings = graph, selected, least, settings
        self._generator = torch.Generator().manual_seed(settings.seed)

    def order(
        self, model: nn.Module, feed: Feed, alive: np.ndarray, cost: CostOfWidths, sink: Sink | None = None
    ) -> Order:
        """The order in which units go from now on.

        Args:
            model: the network as it is now.
            feed: images, of which those that are held out have no say.
            alive: [num_units] of bool, who is there now.
            cost: what units are weighed against.
            sink: gets what is seen of the layers that read candidates.
        """
        candidates = self._selected & alive
        surgeons = self._surgeons(model, feed, candidates, sink)
        elimination = Elimination(surgeons, alive, candidates, cost, self._least)
        return Order(self._graph, alive, elimination, next(model.parameters()))

    def _surgeons(self, model: nn.Module, feed: Feed, candidates: np.ndarray, sink: Sink | None) -> list[Surgeon]:
        readers = readers_of(self._graph, model, candidates)
        grams = {reader.layer.name: Gram() for reader in readers}

        def take_in(reader: Reader, batch: int, seen: Seen) -> None:
            grams[reader.layer.name].add(seen.rows)
            if sink is not None:
                sink(reader, batch, seen)

        fisher = capture_with_gradients(model, readers, self._settings.places, feed, self._generator, take_in)
        units, surgeons = set(np.flatnonzero(candidates).tolist()), []
        for reader in readers:
            gram, matrix = grams.pop(reader.layer.name), matrix_of(reader, model.get_submodule(reader.layer.name))
            gram.add_up(len(matrix), None, matrix)
            if not gram.count:
                continue  # it runs in training alone
            ridge = self._settings.ridge
            if ridge is None:
                ridge = self._ridge(gram, reader, matrix, units)
            system = regularised(gram.xx, ridge, reader.has_bias)
            surgeons.append(Surgeon(reader.units, units, system, matrix, _root(reader, fisher, matrix)))
        return surgeons

    def _ridge(self, gram: Gram, reader: Reader, matrix: Tensor, candidates: set[int]) -> float:
        """The best one when each third of the candidates is gone."""
        here = [unit for unit in np.unique(reader.units).tolist() if unit in candidates]
        left = torch.from_numpy(np.flatnonzero(~np.isin(reader.units, here[::3]))).to(matrix.device)
        rows = torch.cat([left, left.new_tensor([len(matrix)])]) if reader.has_bias else left
        whole = torch.cat([matrix, matrix.new_zeros(1, matrix.shape[1])])
        return best_ridge(gram, whole, rows, whole)


class Order:
    """Who is left of a network at any target.

    Args:
        graph: of the network.
        alive: [num_units] of bool, who is there at the start.
        elimination: who goes when.
        like: a tensor on the device that the processes talk over.
    """

    def __init__(self, graph: ChannelGraph, alive: np.ndarray, elimination: Elimination, like: Tensor) -> None:
        self._macs, self._alive, self._elimination, self._like = graph.macs, alive, elimination, like

    def left(self, targets: Sequence[Target], multiples: PerGroup) -> np.ndarray:
        """[num_units] of bool: who is left when the targets are met, or nobody else may go.

        Args:
            targets: what is to be met.
            multiples: [groups], what each group's width is to be a multiple of.
        """

        def rounded(widths: np.ndarray) -> np.ndarray:
            return rounded_up(widths, self._macs.group_sizes, multiples)

        gone = self._elimination.until(lambda widths: all(target.met(rounded(widths)) for target in targets))
        left = self._alive.copy()
        left[gone] = False
        widths = self._macs.group_widths(left)
        missing = rounded(widths) - widths
        for unit in reversed(gone):  # the last ones that went come back, until widths are multiples
            group = self._macs.group_of_unit[unit]
            if missing[group] > 0:
                left[unit] = True
                missing[group] -= 1
        return as_first_decides(left, self._like)


def _root(reader: Reader, fisher: dict[str, Tensor], matrix: Tensor) -> Tensor:
    """[outputs, outputs], a root of the Fisher matrix; of layers without a gradient nothing matters."""
    outputs = len(reader.layer.out_units)
    found = fisher.get(reader.layer.name)
    return matrix.new_zeros(outputs, outputs) if found is None else root_of(found.to(matrix))
