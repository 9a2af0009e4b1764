"""A model with its compactors while it trains: what changes, next to the graph, which doesn't."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rr.compactors import find_compactors
from rr.errors import InputError
from rr.graph.channel_graph import ChannelGraph
from rr.graph.layers import Layer
from rr.graph.tensors import in_float64


class Remaining:
    """What narrowing has left of a model: of its units, and of the positions in its tensors. A graph keeps all of them.

    Attributes:
        removed: [num_units] of bool, the units that have been taken out.
        positions: parameter or buffer -> dimension -> the positions that are left there, and how many there were.
    """

    def __init__(self, num_units: int) -> None:
        self.removed = np.zeros(num_units, dtype=bool)
        self.positions: dict[str, dict[int, tuple[np.ndarray, int]]] = {}

    def present(self, units: np.ndarray) -> np.ndarray:
        """Those of `units` that haven't been taken out."""
        return units[~self.removed[units]]

    def outputs_left(self, layer: Layer) -> np.ndarray:
        """The places that are left of a layer's own outputs: all, unless its compactor was folded in mid-run."""
        left = self.positions.get(f"{layer.name}.weight", {}).get(layer.output_dim)
        return np.arange(len(layer.out_units)) if left is None else left[0]

    def at_full_width(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter or buffer, by its name in the model, with zeros where channels were taken out of it."""
        for dim, (positions, size) in self.positions.get(name, {}).items():
            shape = list(tensor.shape)
            shape[dim] = size
            full = tensor.new_ones(shape) if name.endswith("running_var") else tensor.new_zeros(shape)
            tensor = full.index_copy(dim, torch.from_numpy(positions).to(tensor.device), tensor)
        return tensor

    def full_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the narrowed model at full width: zeros where channels were taken out.

        Weights written in mid-run thus load into the full network with its compactors, and convert to the same narrow
        one.
        """
        return {name: self.at_full_width(name, tensor) for name, tensor in state.items()}


class LiveModel:
    """A model with compactors, the graph of it as it came, and what is left of it.

    Attributes:
        model: the model, in training or after it.
        graph: of the model at full width.
        remaining: what narrowing has left.
        compactors: by host.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, remaining: Remaining | None = None) -> None:
        self.model, self.graph = model, graph
        self.remaining = remaining or Remaining(graph.num_units)
        self.compactors = find_compactors(model)
        self.modules = dict(model.named_modules())
        self._parameters = {name: tuple(module._parameters) for name, module in self.modules.items()}

    def follower(self, model: nn.Module) -> LiveModel:
        """A copy of the model (an average of its weights, say) that has the same channels left."""
        return LiveModel(model, self.graph, self.remaining)

    def with_modules(self, modules: Mapping[str, nn.Module]) -> LiveModel:
        """The same with other modules in some places, by name."""
        changed = copy.copy(self)
        changed.modules = {**self.modules, **modules}
        return changed

    def check_modules(self, selected: np.ndarray) -> None:
        """Check that the model still has the modules that it had.

        Args:
            selected: [num_units] of bool; what has no channel of any of these may be replaced.

        Raises:
            InputError: if one with a compactor, or one that gets narrower, is another one now, or has lost a parameter.
        """
        narrowed = (
            layer.name
            for layer in self.graph.layers.values()
            for units in (layer.out_units, layer.in_units)
            if layer.kind.is_module and units is not None and selected[units].any()
        )
        now = dict(self.model.named_modules())
        for name in (*self.compactors, *narrowed):
            if now.get(name) is not self.modules[name]:
                raise InputError(
                    f"{name!r} is another module than when the pruner was built, which knows nothing of it: replace "
                    "modules (SyncBatchNorm.convert_sync_batchnorm, another classifier) before the pruner is built"
                )
            for leaf in self._parameters[name]:
                if leaf not in now[name]._parameters and name not in self.graph.computed:
                    raise _lost(f"{leaf!r} of {name!r}")
        for host, compactor in self.compactors.items():
            if "weight" not in compactor.pwc._parameters:
                raise _lost(f"the matrix of the compactor behind {host!r}")

    def unit_norms(self) -> np.ndarray:
        """[num_units]: root mean square over a unit's rows of their L2 norms; infinite where a row has no compactor.

        For a unit of one row, as in the paper's layers, this is the row's norm.
        """
        squares = np.zeros(self.graph.num_units)
        rows = np.zeros(self.graph.num_units)
        for site in self.graph.sites.values():
            if site.host in self.compactors:
                matrix = in_float64(self.compactors[site.host].matrix).numpy()
                present = self.remaining.present(site.units)
                np.add.at(squares, present, (matrix**2).sum(axis=1))
                np.add.at(rows, present, 1)
            else:
                squares[site.units] = np.inf
        with np.errstate(invalid="ignore"):
            norms = np.where(rows > 0, np.sqrt(squares / np.maximum(rows, 1)), np.inf)
        norms[self.remaining.removed] = 0.0
        return norms

    @torch.no_grad()
    def zero_dead_rows(self, alive: np.ndarray) -> None:
        """Set the compactor rows of dead units to exactly zero, in place.

        Args:
            alive: [num_units] of bool.
        """
        for site in self.graph.sites.values():
            dead = torch.from_numpy(np.flatnonzero(~alive[self.remaining.present(site.units)]))
            if len(dead):
                self.compactors[site.host].pwc.weight[dead] = 0.0


def _lost(what: str) -> InputError:
    return InputError(
        f"{what} is no parameter any more, as it was when the pruner was built: put weight norms, parametrisations and "
        "torch.nn.utils.prune on before that, never on compactors, and remove what came later (prune.remove, "
        "parametrize.remove_parametrizations) before the conversion"
    )
