"""What a network costs as a function of its widths, the targets for that, and the widths that run fast."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from rr.compactors import find_compactors
from rr.flow import PRODUCERS

if TYPE_CHECKING:
    from rr.graph import ChannelGraph, Layer


class CostOfWidths(ABC):
    """A cost as a function of which units are alive, or of how many units of each group are.

    group_of_unit: [num_units]; group_sizes: [groups], all units of each; full: the cost of the network as it came
    """

    full: int

    def __init__(self, graph: ChannelGraph) -> None:
        self.group_of_unit = np.zeros(graph.num_units, dtype=np.int64)
        for position, group in enumerate(graph.groups):
            self.group_of_unit[group.units] = position
        self.group_sizes = np.array([len(group.units) for group in graph.groups])

    @abstractmethod
    def of_group_widths(self, widths: np.ndarray) -> float:
        """The cost with `widths` ([groups]) live units in each group; it never rises when a unit goes."""

    def group_widths(self, alive: np.ndarray) -> np.ndarray:
        """[groups], the number of live units of each."""
        return np.bincount(self.group_of_unit[alive], minlength=len(self.group_sizes))

    def __call__(self, alive: np.ndarray) -> int:
        """The cost with the units of `alive` ([num_units] of bool)."""
        return round(self.of_group_widths(self.group_widths(alive)))

    def _per_group(self, units: np.ndarray) -> np.ndarray:
        """A layer's channels in each group, per unit of it."""
        return np.bincount(self.group_of_unit[units], minlength=len(self.group_sizes)) / self.group_sizes


class MacsOfWidths(CostOfWidths):
    """MACs per example: half of what `torch.utils.flop_counter` counts for the real narrow network."""

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        counted = [layer for layer in graph.layers.values() if layer.has_width]
        self._each = np.array([layer.macs_each for layer in counted], dtype=np.float64)
        self._dense = np.array([layer.kind in PRODUCERS for layer in counted])
        self._out = np.stack([self._per_group(layer.out_units) for layer in counted])  # [layers, groups]
        self._in = np.stack([self._per_group(layer.in_units) for layer in counted])
        # Attention, say: what no layer here counts, and no width changes.
        self._fixed = graph.trace.macs - round(self._of_layers(self.group_sizes))

    @property
    def full(self) -> int:
        """MACs at full width."""
        return round(self.of_group_widths(self.group_sizes))

    def of_group_widths(self, widths: np.ndarray) -> float:
        """MACs with `widths` ([groups]) live units in each group."""
        return self._fixed + self._of_layers(widths)

    def _of_layers(self, widths: np.ndarray) -> float:
        inputs = np.where(self._dense, self._in @ widths, 1.0)
        return float(np.sum(self._each * inputs * (self._out @ widths)))

    @staticmethod
    def of_layer(layer: Layer, alive: np.ndarray) -> int:
        """MACs of one layer."""
        inputs = int(alive[layer.in_units].sum()) if layer.kind in PRODUCERS else 1
        return layer.macs_each * inputs * int(alive[layer.out_units].sum())


class ParametersOfWidths(CostOfWidths):
    """Parameters of the converted network: a conv's BN has become its bias, a BN that stands alone keeps its own.

    Exact but for one thing, where it counts too many rather than too few: a conv or linear layer with neither bias
    nor BN is given a bias when dead inputs leave it a constant (rr.constants). Whether they do depends on the weights
    at the end, so that bias counts from the first dead input on.

    full: the parameters of the network as it came, without compactors (so even at full width less is counted: a BN has
    two parameters per channel, a bias one)
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module) -> None:
        super().__init__(graph)
        layers = list(graph.layers.values())
        modules, parameters = dict(model.named_modules()), dict(model.named_parameters(remove_duplicate=False))
        folded_norms = {layer.norm for layer in layers}
        compactors = {id(compactor.pwc.weight) for compactor in find_compactors(model).values()}
        self.full = sum(p.numel() for p in model.parameters() if id(p) not in compactors)
        self._dense = np.array([layer.kind in PRODUCERS for layer in layers])
        self._out = np.stack([self._per_group(layer.out_units) for layer in layers])  # [layers, groups]
        none = np.zeros(0, dtype=np.int64)
        self._in = np.stack([self._per_group(none if layer.in_units is None else layer.in_units) for layer in layers])
        self._full_in = self._in @ self.group_sizes
        weights, vectors, gains = [], [], []
        for layer in layers:
            gains.append(False)
            if layer.kind == "vector":
                weights.append(0.0)
                vectors.append(int(layer.name in parameters))  # else it is a buffer
            elif layer.kind == "norm":
                module = modules[layer.name]
                affine = (module.weight is not None) + (module.bias is not None)
                weights.append(0.0)
                # A compactor behind a BN that stands alone becomes its gamma and beta.
                vectors.append(0 if layer.name in folded_norms else 2 if layer.name in graph.sites else affine)
            else:
                module = modules[layer.name]
                pairs = len(layer.out_units) * (len(layer.in_units) if layer.kind in PRODUCERS else 1)
                weights.append(module.weight.numel() / pairs)
                vectors.append(int(module.bias is not None or layer.norm is not None))
                may_gain = layer.kind in ("conv", "linear") and len(layer.nodes) == 1  # no constant reaches the others
                gains[-1] = may_gain and not vectors[-1]
        self._weights = np.array(weights)  # [layers], per live (input, output) pair, or per output where not dense
        self._vectors = np.array(vectors)  # [layers], per live output
        self._gains_bias = np.array(gains)
        self._fixed = _parameters_beside(graph, model, compactors)

    def of_group_widths(self, widths: np.ndarray) -> float:
        """Parameters with `widths` ([groups]) live units in each group."""
        inputs = self._in @ widths
        gained = self._gains_bias & (np.round(inputs) < np.round(self._full_in))
        per_output = self._weights * np.where(self._dense, inputs, 1.0) + self._vectors + gained
        return self._fixed + float(np.sum(per_output * (self._out @ widths)))


def _parameters_beside(graph: ChannelGraph, model: nn.Module, compactors: set[int]) -> int:
    """How many parameters stand outside the graph's layers: no width changes them."""
    own: set[str] = set()
    for layer in graph.layers.values():
        own |= {layer.name} if layer.kind == "vector" else {f"{layer.name}.weight", f"{layer.name}.bias"}
    beside = {
        id(parameter): parameter.numel()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in own and id(parameter) not in compactors
    }
    return sum(beside.values())


@dataclass(frozen=True)
class Target:
    """The user's bound on one cost: `value` is a share of `cost.full` where it is at most 1, else a number.

    name: the setting it comes from, as messages call it; noun: what is counted
    """

    name: str
    value: float
    cost: CostOfWidths
    noun: str

    @property
    def limit(self) -> float:
        """The most that the cost may be."""
        return self.value * self.cost.full if self.value <= 1 else self.value

    def met(self, widths: np.ndarray) -> bool:
        """Whether `widths` ([groups]) live units in each group cost no more than the limit."""
        return round(self.cost.of_group_widths(widths)) <= self.limit

    def describe(self, widths: np.ndarray) -> str:
        """What these widths cost: a share of the full network's, and the number."""
        cost = round(self.cost.of_group_widths(widths))
        return f"{cost / self.cost.full:.4f} of the {self.noun} ({cost:,})"


def multiples_in_units(graph: ChannelGraph, width_multiple: int) -> np.ndarray:
    """[groups]: of how many units the live ones of each group must be a multiple, for channels in `width_multiple`s.

    A unit may hold several channels of a layer (a whole group of a grouped convolution, say), so fewer units may do. A
    layer whose channels are several groups of units has a multiple from each of them.
    """
    position_of = graph.macs.group_of_unit
    multiples = np.ones(len(graph.groups), dtype=np.int64)
    for layer in graph.layers.values():
        units, channels = np.unique(layer.out_units, return_counts=True)
        for position, count in set(zip(position_of[units].tolist(), channels.tolist(), strict=True)):
            multiples[position] = math.lcm(int(multiples[position]), width_multiple // math.gcd(width_multiple, count))
    return multiples
