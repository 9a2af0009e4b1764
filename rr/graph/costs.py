"""What a network costs as a function of its widths, and the targets for that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from rr.compactors import find_compactors
from rr.graph.layers import Group, Layer, LayerKind


class CostOfWidths(ABC):
    """A cost as a function of which units are alive, or of how many units of each group are.

    Attributes:
        group_of_unit: [num_units], the group of each unit.
        group_sizes: [groups], all units of each.
        full: the cost of the network as it came.
    """

    full: int

    def __init__(self, groups: Sequence[Group], num_units: int) -> None:
        self.group_of_unit = np.zeros(num_units, dtype=np.int64)
        for position, group in enumerate(groups):
            self.group_of_unit[group.units] = position
        self.group_sizes = np.array([len(group.units) for group in groups])
        for array in (self.group_of_unit, self.group_sizes):
            array.setflags(write=False)

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

    def _of_each(self, units: Iterable[np.ndarray]) -> np.ndarray:
        """`_per_group` of each layer, [layers, groups]; there may be no layer that is understood."""
        return np.array([self._per_group(channels) for channels in units]).reshape(-1, len(self.group_sizes))


class MacsOfWidths(CostOfWidths):
    """MACs per example: half of what `torch.utils.flop_counter` counts for the real narrow network.

    Args:
        layers: all layers.
        groups: all groups.
        num_units: how many units there are.
        total: MACs of the whole network at full width, including what no layer here counts (attention, say).
    """

    def __init__(self, layers: Iterable[Layer], groups: Sequence[Group], num_units: int, total: int) -> None:
        super().__init__(groups, num_units)
        counted = [layer for layer in layers if layer.kind.has_macs]
        self._each = np.array([layer.macs_each for layer in counted], dtype=np.float64)
        self._dense = np.array([layer.kind.reads_all for layer in counted])
        self._out = self._of_each(layer.out_units for layer in counted)
        self._in = self._of_each(_inputs_of(layer) for layer in counted)
        self._fixed = total - round(self._of_layers(self.group_sizes))  # what no width changes
        self.full = round(self.of_group_widths(self.group_sizes))

    def of_group_widths(self, widths: np.ndarray) -> float:
        """MACs with `widths` ([groups]) live units in each group."""
        return self._fixed + self._of_layers(widths)

    def _of_layers(self, widths: np.ndarray) -> float:
        inputs = np.where(self._dense, self._in @ widths, 1.0)
        return float(np.sum(self._each * inputs * (self._out @ widths)))


def _inputs_of(layer: Layer) -> np.ndarray:
    return np.zeros(0, dtype=np.int64) if layer.in_units is None else layer.in_units


def macs_of_layer(layer: Layer, alive: np.ndarray) -> int:
    """MACs per example of one layer.

    Args:
        layer: the layer.
        alive: [num_units] of bool.
    """
    inputs = int(alive[layer.in_units].sum()) if layer.kind.reads_all else 1
    return layer.macs_each * inputs * int(alive[layer.out_units].sum())


class MacsFromDeps(CostOfWidths):
    """MACs by a user's own function of the flat list of widths ("deps").

    Args:
        layers: the layers in that list.
        groups: all groups.
        num_units: how many units there are.
        macs_of_deps: the function.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        groups: Sequence[Group],
        num_units: int,
        macs_of_deps: Callable[[Sequence[int]], float],
    ) -> None:
        super().__init__(groups, num_units)
        self._macs_of_deps = macs_of_deps
        self._channels = np.stack([self._per_group(layer.out_units) for layer in layers])  # [layers, groups]
        self.full = round(self.of_group_widths(self.group_sizes))

    def of_group_widths(self, widths: np.ndarray) -> float:
        """MACs with `widths` ([groups]) live units in each group."""
        return float(self._macs_of_deps([round(width) for width in self._channels @ widths]))


class ParametersOfWidths(CostOfWidths):
    """Parameters of the converted network: a conv's BN has become its bias, a BN that stands alone keeps its own.

    Exact but for one thing, where it counts too many rather than too few: a conv or linear layer with neither bias
    nor BN is given a bias when dead inputs leave it a constant (`rr.graph.dead_constants`). Whether they do depends on
    the weights at the end, so such a bias counts from the first dead input on.

    Args:
        layers: all layers.
        groups: all groups.
        num_units: how many units there are.
        model: the model, with compactors or without.
        sites: the layers behind which there is a place for a compactor.
        full: the parameters of the network as it came, without compactors (so even at full width less is counted: a BN
            has two parameters per channel, a bias one).
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        groups: Sequence[Group],
        num_units: int,
        model: nn.Module,
        sites: Collection[str],
        full: int,
    ) -> None:
        super().__init__(groups, num_units)
        modules, parameters = dict(model.named_modules()), dict(model.named_parameters(remove_duplicate=False))
        self.full = full
        self._dense = np.array([layer.kind.reads_all for layer in layers])
        self._out = self._of_each(layer.out_units for layer in layers)
        self._in = self._of_each(_inputs_of(layer) for layer in layers)
        self._full_in = self._in @ self.group_sizes
        folded_norms = {layer.norm for layer in layers}
        counts = [_parameters_of(layer, modules, parameters, folded_norms, sites) for layer in layers]
        self._weights, self._vectors, gains = np.array(counts, dtype=np.float64).reshape(-1, 3).T
        self._gains_bias = gains.astype(bool)
        self._fixed = _parameters_beside(layers, model)

    def of_group_widths(self, widths: np.ndarray) -> float:
        """Parameters with `widths` ([groups]) live units in each group."""
        inputs = self._in @ widths
        gained = self._gains_bias & (np.round(inputs) < np.round(self._full_in))
        per_output = self._weights * np.where(self._dense, inputs, 1.0) + self._vectors + gained
        return self._fixed + float(np.sum(per_output * (self._out @ widths)))


def _parameters_of(
    layer: Layer,
    modules: Mapping[str, nn.Module],
    parameters: Mapping[str, nn.Parameter],
    folded_norms: Collection[str | None],
    sites: Collection[str],
) -> tuple[float, int, bool]:
    """What a layer has once converted.

    Returns:
        Parameters per live (input, output) pair (per output where its groups go as a whole), parameters per live
        output, and whether it is given a bias for what dead inputs leave.
    """
    if layer.kind is LayerKind.VECTOR:
        return 0.0, int(layer.name in parameters), False  # else it is a buffer
    if layer.kind in (LayerKind.AFFINE, LayerKind.NEIGHBOURS):
        return 0.0, 0, False  # none; or its vectors are layers of their own
    if not layer.kind.is_module:  # one for each row and column
        return float(layer.kind is LayerKind.COLUMNS), 0, False
    module = modules[layer.name]
    if layer.kind is LayerKind.NORM:
        if layer.name in folded_norms:
            return 0.0, 0, False
        affine = (module.weight is not None) + (module.bias is not None)
        return 0.0, 2 if layer.name in sites else affine, False  # a compactor behind it becomes its gamma and beta
    pairs = len(layer.out_units) * (len(layer.in_units) if layer.kind.makes_channels else 1)
    has_bias = module.bias is not None or layer.norm is not None
    may_gain = layer.kind in (LayerKind.CONV, LayerKind.LINEAR) and len(layer.nodes) == 1  # no constant reaches others
    return module.weight.numel() / pairs, int(has_bias), may_gain and not has_bias


def count_parameters(model: nn.Module) -> int:
    """Those that the model has without compactors."""
    compactors = _compactor_weights(model)
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in compactors)


def _compactor_weights(model: nn.Module) -> set[int]:
    return {id(compactor.pwc.weight) for compactor in find_compactors(model).values()}


def _parameters_beside(layers: Sequence[Layer], model: nn.Module) -> int:
    """How many parameters stand outside the graph's layers: no width changes them."""
    own, compactors = set(), _compactor_weights(model)
    for layer in layers:
        own |= {f"{layer.name}.weight", f"{layer.name}.bias"} if layer.kind.is_module else {layer.name}
    beside = {
        id(parameter): parameter.numel()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in own and id(parameter) not in compactors
    }
    return sum(beside.values())


@dataclass(frozen=True)
class Target:
    """A bound on one cost.

    Attributes:
        name: the setting that it comes from, as messages call it.
        value: up to 1 a share of `cost.full`, above 1 a number.
        cost: what is bounded.
        noun: what is counted.
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
