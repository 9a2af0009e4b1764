"""What a network costs as a function of its widths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rr.graph import ChannelGraph, Layer

PRODUCERS = ("conv", "linear")  # layers whose outputs are new channels


class MacsOfWidths:
    """MACs per example as a function of which units are alive, or of how many units of each group are.

    Equal to half of what `torch.utils.flop_counter` counts for the real narrow network.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.group_of_unit = np.zeros(graph.num_units, dtype=np.int64)
        for position, group in enumerate(graph.groups):
            self.group_of_unit[group.units] = position
        self.group_sizes = np.array([len(group.units) for group in graph.groups])
        counted = [layer for layer in graph.layers.values() if layer.kind != "norm"]
        self._each = np.array([layer.macs_each for layer in counted], dtype=np.float64)
        self._dense = np.array([layer.kind in PRODUCERS for layer in counted])
        self._out = np.stack([self._per_group(layer.out_units) for layer in counted])  # [layers, groups]
        self._in = np.stack([self._per_group(layer.in_units) for layer in counted])
        # Attention, say: what no layer here counts, and no width changes.
        self._fixed = graph.trace.macs - round(self._of_layers(self.group_sizes))

    def _per_group(self, units: np.ndarray) -> np.ndarray:
        """A layer's channels in each group, per unit of it."""
        return np.bincount(self.group_of_unit[units], minlength=len(self.group_sizes)) / self.group_sizes

    def of_group_widths(self, widths: np.ndarray) -> float:
        """MACs with `widths` ([groups]) live units in each group."""
        return self._fixed + self._of_layers(widths)

    def _of_layers(self, widths: np.ndarray) -> float:
        inputs = np.where(self._dense, self._in @ widths, 1.0)
        return float(np.sum(self._each * inputs * (self._out @ widths)))

    def group_widths(self, alive: np.ndarray) -> np.ndarray:
        """[groups], the number of live units of each."""
        return np.bincount(self.group_of_unit[alive], minlength=len(self.group_sizes))

    def __call__(self, alive: np.ndarray) -> int:
        """MACs with the units of `alive` ([num_units] of bool)."""
        return round(self.of_group_widths(self.group_widths(alive)))

    @staticmethod
    def of_layer(layer: Layer, alive: np.ndarray) -> int:
        """MACs of one layer."""
        inputs = int(alive[layer.in_units].sum()) if layer.kind in PRODUCERS else 1
        return layer.macs_each * inputs * int(alive[layer.out_units].sum())
