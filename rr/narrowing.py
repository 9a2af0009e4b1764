"""When dead channels leave a model in training, and in the end the compactors (`ResRepConfig.narrow`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from rr.compactors import find_compactors
from rr.convert import unit_norms, zero_dead_rows
from rr.graph import ChannelGraph
from rr.masks import rounded_up
from rr.narrow import silent_units, take_out
from rr.refold import (
    VarianceMeter,
    can_retire,
    folded_outputs,
    outputs_of_layer,
    put_out_of_use,
    refold,
    refoldable,
    retire,
    take_columns_out,
)
from rr.trace import Inputs

PASSES = 20  # training passes over which the variances of a fold are measured


class Narrowing:
    """What has left a model, what is about to, and the rule for both; `narrow` is called between training steps.

    threshold: masked units with a smaller norm go; fold_share: None: rows alone go, else see `ResRepConfig`
    least, multiples: [groups], the least width of each and what it is to be a multiple of
    silent: [num_units] of bool, the units that may go in mid-run; retired: whether the compactors are out of use
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        example_inputs: Inputs,
        *,
        threshold: float,
        fold_share: float | None,
        least: np.ndarray,
        multiples: np.ndarray | int,
    ) -> None:
        self._model, self._graph, self._example_inputs = model, graph, example_inputs
        self._threshold, self._fold_share = threshold, fold_share
        self._least, self._multiples = np.maximum(least, 1), multiples
        self.silent = silent_units(graph, model)
        self.retired = False
        self._meters: dict[str, VarianceMeter] = {}  # by layer, of those that are to be folded next

    @property
    def is_measured(self) -> bool:
        """Whether what the next fold needs is known."""
        return any(meter.passes >= PASSES for meter in self._meters.values())

    def narrow(
        self,
        masked: np.ndarray,
        target_met: bool,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        also: Sequence[nn.Module] = (),
    ) -> int:
        """Take out the masked units that have died, fold what is measured; returns how many channels went.

        Units, outputs of layers, and the compactors' own when they retire.

        masked: [num_units] of bool; target_met: whether the widths without them reach the target
        """
        norms = unit_norms(self._graph, find_compactors(self._model))
        going = self._in_multiples(self._dying(masked) & (norms < self._threshold))
        if _distributed():
            decided = torch.from_numpy(going).to(next(self._model.parameters()).device, torch.uint8)
            dist.broadcast(decided, src=0)
            going = decided.cpu().numpy().astype(bool)
        models = [self._model, *also]
        if going.any():
            zero_dead_rows(self._model, self._graph, ~going)
            take_out(models, self._graph, np.flatnonzero(going), optimizers)
        gone, measured = int(going.sum()), bool(self._meters)
        if self._fold_share is not None and not self.retired:
            is_over = self._is_over(masked, target_met)
            retires = is_over and self._may_retire(masked)
            gone += self._fold(retires, models, optimizers)
            self._measure(is_over, retires)
        if gone or measured or self._meters:
            torch.compiler.reset()  # compiled code knows nothing of new shapes, nor of hooks that came after it
        return gone

    def is_settled(self, masked: np.ndarray, target_met: bool) -> bool:
        """Whether nothing more will go; arguments as for `narrow`."""
        if self.retired:
            return True
        is_over = self._is_over(masked, target_met)
        return is_over and not self._meters and not (self._fold_share is not None and self._may_retire(masked))

    def _is_over(self, masked: np.ndarray, target_met: bool) -> bool:
        return target_met and not self._in_multiples(self._dying(masked)).any()

    def _dying(self, masked: np.ndarray) -> np.ndarray:
        """[num_units] of bool: the masked units that are still there and may go."""
        return masked & ~self._graph.removed & self.silent

    def _in_multiples(self, dying: np.ndarray) -> np.ndarray:
        """Of the dying units, those that leave each group at a multiple; the others wait for company."""
        present = ~self._graph.removed
        macs = self._graph.macs
        kept = rounded_up(
            np.maximum(macs.group_widths(present & ~dying), self._least), macs.group_sizes, self._multiples
        )
        going = np.zeros_like(dying)
        for group, width, now in zip(self._graph.groups, kept, macs.group_widths(present), strict=True):
            going[group.units[dying[group.units]][: max(now - width, 0)]] = True
        return going

    def _fold(self, retires: bool, models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> int:
        """Fold what is measured, and retire the compactors when that is all of them; returns how many channels went."""
        variances = {name: self._variance(name, meter) for name, meter in self._meters.items() if meter.passes}
        sizes = [outputs_of_layer(self._graph, self._model, name) for name in variances]
        gone = sum(outputs - alive for alive, outputs in sizes)
        if variances:
            norms = unit_norms(self._graph, find_compactors(self._model))
            for follower in models[1:]:  # an average still has something of rows that are zero and yet stay
                zero_dead_rows(follower, self._graph, norms > 0)
            refold(models, self._graph, variances, self._example_inputs, optimizers)
        if retires and set(variances) == set(refoldable(self._graph, self._model)):
            retire(models, self._graph, self._example_inputs, optimizers)
            self.retired = True
            gone += sum(len(compactor.mask) for compactor in find_compactors(self._model).values())
        return gone

    def _measure(self, is_over: bool, retires: bool) -> None:
        """What is due to be folded: layers with enough dead outputs; in the end those with any, to retire all."""
        for meter in self._meters.values():
            meter.remove()
        self._meters = {}
        if self.retired:
            return
        least_share = self._fold_share
        if is_over:
            least_share = 0.0 if retires else np.finfo(float).tiny
        for name in refoldable(self._graph, self._model):
            alive, outputs = outputs_of_layer(self._graph, self._model, name)
            if 1 - alive / outputs >= least_share:
                self._meters[name] = self._meter(name)

    def _may_retire(self, masked: np.ndarray) -> bool:
        """Whether the compactors can do without being run: no masked unit is left, which only its row keeps at zero."""
        return can_retire(self._graph, self._model) and not (masked & ~self._graph.removed).any()

    def _meter(self, name: str, state: Mapping[str, Any] | None = None) -> VarianceMeter:
        site = self._graph.sites[name]
        return VarianceMeter(find_compactors(self._model)[site.host], self._graph.present(site.units), state)

    def _variance(self, name: str, meter: VarianceMeter) -> torch.Tensor:
        """[R], the mean over the processes; their BNs' statistics become the first one's, so that all fold alike."""
        variance = meter.mean_of(self._graph.present(self._graph.sites[name].units))
        norm = self._graph.layers[name].norm
        if _distributed():
            dist.all_reduce(variance)
            variance /= dist.get_world_size()
            if norm is not None:
                module = self._model.get_submodule(norm)
                for statistic in (module.running_mean, module.running_var):
                    dist.broadcast(statistic, src=0)
        return variance

    def state_dict(self) -> dict[str, Any]:
        """What a model needs to get the widths that it has."""
        state: dict[str, Any] = {"removed": np.flatnonzero(self._graph.removed).tolist()}
        if self._fold_share is not None:
            state["folded"] = folded_outputs(self._graph)
            state["meters"] = {name: meter.state_dict() for name, meter in self._meters.items()}
            state["retired"] = self.retired
        return state

    def load_state_dict(self, state: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer] = ()) -> None:
        """Give the model the widths that it had, so that its state and the optimiser's load."""
        removed = np.array(state.get("removed", []), dtype=np.int64)
        if len(removed):
            take_out([self._model], self._graph, removed, optimizers)
        take_columns_out(self._model, self._graph, state.get("folded", {}))
        self._meters = {name: self._meter(name, measured) for name, measured in state.get("meters", {}).items()}
        if state.get("retired"):
            put_out_of_use(self._model)
            self.retired = True
        torch.compiler.reset()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
