"""When dead channels leave a model in training, and in the end the compactors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from rr.config import NarrowingConfig
from rr.graph import Inputs, LiveModel
from rr.graph.widths import PerGroup, rounded_up
from rr.narrowing.refold import (
    can_retire,
    folded_outputs,
    outputs_of_layer,
    put_out_of_use,
    refold,
    refoldable,
    retire,
    take_columns_out,
)
from rr.narrowing.take_out import silent_units, take_out
from rr.narrowing.tensors import OptimizerState
from rr.narrowing.variance import PASSES, VarianceMeter
from rr.runtime import are_several, as_first_decides, compile_anew


class Narrowing:
    """What has left a model, what is about to, and the rule for both; `narrow` is called between training steps.

    Args:
        live: the model, and what is left of it.
        example_inputs: what it is called with.
        settings: under which norm masked units go, and whether compactors are folded when nothing more is to die.
        least: units that each group keeps at least.
        multiples: what each group's width is to be a multiple of.

    Attributes:
        silent: [num_units] of bool, the units that may go in mid-run.
        retired: whether the compactors are out of use.
    """

    def __init__(
        self,
        live: LiveModel,
        example_inputs: Inputs,
        settings: NarrowingConfig,
        least: PerGroup,
        multiples: PerGroup,
    ) -> None:
        self._live, self._example_inputs = live, example_inputs
        self._threshold, self._folds = settings.threshold, settings.mode == "full"
        self._least, self._multiples = np.maximum(least, 1), multiples
        self.silent = silent_units(live.graph, live.model)
        self.retired = False
        self._meters: dict[str, VarianceMeter] = {}  # by layer, of those that are to be folded next

    @property
    def is_measuring(self) -> bool:
        """Whether training passes are looked at, for the next fold."""
        return bool(self._meters)

    @property
    def is_measured(self) -> bool:
        """Whether what the next fold needs is known."""
        return any(meter.passes >= PASSES for meter in self._meters.values())

    def measure_anew(self) -> None:
        """Forget what is measured for the next fold, and measure it from now on."""
        for meter in self._meters.values():
            meter.reset()

    def narrow(
        self,
        masked: np.ndarray,
        target_met: bool,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        also: Sequence[nn.Module] = (),
    ) -> int:
        """Take out the masked units that have died, and fold what is measured.

        Args:
            masked: [num_units] of bool.
            target_met: whether the widths without them reach the target.
            optimizers: of the model.
            also: copies that follow it.

        Returns:
            How many units went, and outputs of layers, and channels of the compactors when they retire, all together.
        """
        going = self._in_multiples(self._dying(masked) & (self._live.unit_norms() < self._threshold))
        going = as_first_decides(going, next(self._live.model.parameters()))
        lives = [self._live, *(self._live.follower(model) for model in also)]
        states = [optimizer.state for optimizer in optimizers]
        if going.any():
            self._live.zero_dead_rows(~going)
            take_out(lives, np.flatnonzero(going), states)
        gone, measured = int(going.sum()), self.is_measuring
        if self._folds and not self.retired:
            is_over = self._is_over(masked, target_met)
            retires = is_over and self._may_retire(masked)
            gone += self._fold(retires, lives, states)
            self._measure(is_over, retires)
        if gone or measured or self.is_measuring:
            compile_anew("the network has other shapes, or is measured for a fold")
        return gone

    def is_settled(self, masked: np.ndarray, target_met: bool) -> bool:
        """Whether nothing more will go.

        Args:
            masked, target_met: as in `narrow`.
        """
        if self.retired:
            return True
        is_over = self._is_over(masked, target_met)
        return is_over and not self._meters and not (self._folds and self._may_retire(masked))

    def _is_over(self, masked: np.ndarray, target_met: bool) -> bool:
        return target_met and not self._in_multiples(self._dying(masked)).any()

    def _dying(self, masked: np.ndarray) -> np.ndarray:
        """[num_units] of bool: the masked units that are still there and may go."""
        return masked & ~self._live.remaining.removed & self.silent

    def _in_multiples(self, dying: np.ndarray) -> np.ndarray:
        """Of the dying units, those that leave each group at a multiple; the others wait until there are more."""
        present = ~self._live.remaining.removed
        macs = self._live.graph.macs
        least = np.maximum(macs.group_widths(present & ~dying), self._least)
        kept = rounded_up(least, macs.group_sizes, self._multiples)
        going = np.zeros_like(dying)
        for group, width, now in zip(self._live.graph.groups, kept, macs.group_widths(present), strict=True):
            going[group.units[dying[group.units]][: max(now - width, 0)]] = True
        return going

    def _fold(self, retires: bool, lives: Sequence[LiveModel], states: Sequence[OptimizerState]) -> int:
        """Fold what is measured, and retire the compactors when that is all of them; returns how many channels went."""
        variances = {name: self._variance(name, meter) for name, meter in self._meters.items() if meter.passes}
        sizes = [outputs_of_layer(self._live, name) for name in variances]
        gone = sum(outputs - alive for alive, outputs in sizes)
        if variances:
            norms = self._live.unit_norms()
            for follower in lives[1:]:  # an average still has something of rows that are zero and yet stay
                follower.zero_dead_rows(norms > 0)
            refold(lives, variances, self._example_inputs, states)
        if retires and set(variances) == set(refoldable(self._live)):
            retire(lives, self._example_inputs, states)
            self.retired = True
            gone += sum(len(compactor.mask) for compactor in self._live.compactors.values())
        return gone

    def _measure(self, is_over: bool, retires: bool) -> None:
        """Measure what is to be folded once nothing more will die: layers with dead outputs, or all, to retire them.

        All at once: a fold while others still die disturbs the training (docs/log.md).
        """
        for meter in self._meters.values():
            meter.remove()
        self._meters = {}
        if self.retired or not is_over:
            return
        for name in refoldable(self._live):
            alive, outputs = outputs_of_layer(self._live, name)
            if retires or alive < outputs:
                self._meters[name] = self._meter(name)

    def _may_retire(self, masked: np.ndarray) -> bool:
        """Whether the compactors need not run any more: no masked unit is left, as only its row keeps it at zero."""
        return can_retire(self._live) and not (masked & ~self._live.remaining.removed).any()

    def _meter(self, name: str, state: Mapping[str, Any] | None = None) -> VarianceMeter:
        site = self._live.graph.sites[name]
        return VarianceMeter(self._live.compactors[site.host], self._live.remaining.present(site.units), state)

    def _variance(self, name: str, meter: VarianceMeter) -> torch.Tensor:
        """[R], the mean over the processes; their BNs' statistics become the first one's, so that all fold the same."""
        graph = self._live.graph
        variance = meter.mean_of(self._live.remaining.present(graph.sites[name].units))
        norm = graph.layers[name].norm
        if are_several():
            dist.all_reduce(variance)
            variance /= dist.get_world_size()
            if norm is not None:
                module = self._live.modules[norm]
                for statistic in (module.running_mean, module.running_var):
                    dist.broadcast(statistic, src=0)
        return variance

    def state_dict(self) -> dict[str, Any]:
        """What a model needs to get the widths that it has."""
        state: dict[str, Any] = {"removed": np.flatnonzero(self._live.remaining.removed).tolist()}
        if self._folds:
            state["folded"] = folded_outputs(self._live)
            state["meters"] = {name: meter.state_dict() for name, meter in self._meters.items()}
            state["retired"] = self.retired
        return state

    def load_state_dict(self, state: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer] = ()) -> None:
        """Give the model the widths that it had, so that its state and the optimiser's load."""
        removed = np.array(state.get("removed", []), dtype=np.int64)
        if len(removed):
            take_out([self._live], removed, [optimizer.state for optimizer in optimizers])
        take_columns_out(self._live, state.get("folded", {}))
        self._meters = {name: self._meter(name, measured) for name, measured in state.get("meters", {}).items()}
        if state.get("retired"):
            put_out_of_use(self._live)
            self.retired = True
        if state.get("removed") or state.get("folded") or self._meters or self.retired:
            compile_anew("the network has the shapes of the state that was loaded")
