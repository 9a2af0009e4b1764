"""ResRep as hooks on the user's own optimiser: gradient reset and penalty before each step, masks after it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rr.compactors import Compactor, CompactorRows, StepHooks, StepWatch, check_counted, check_loop, check_optimizer
from rr.config import ResRepConfig
from rr.conversion import ConversionReport, alive_units, convert, report_of
from rr.errors import InputError
from rr.graph import ChannelGraph, Inputs, LiveModel, Site, Standing, Target
from rr.narrowing import Narrowing
from rr.parameter_groups import param_groups
from rr.planning import check_arguments, plan, steps_of
from rr.runtime import is_first
from rr.selection import MaskSelection

logger = logging.getLogger(__name__)


class ResRepPruner:
    """Compactors in `model` (put there in place), the masks' schedule, and the gradients' reset and penalty.

    What replaces modules (SyncBatchNorm) comes before the pruner; what wraps the model (DistributedDataParallel,
    torch.compile, AveragedModel) comes after it. Then, and when the model gets narrower, all that this process has
    compiled is compiled again (`torch.compiler.reset`).

    Args:
        model: the network, trained.
        example_inputs: what it is called with: a tensor, a sequence of arguments, or a dict of keyword arguments.
        config: the settings, in steps (`ResRepConfig.for_run`); None: the paper's.
        graph: of the model, to use in place of tracing it now.

    Attributes:
        model, example_inputs, config: as given.
        graph: of the model, with what a rehearsal found unprunable.
        selected: [num_units] of bool, the units to prune.
        compactors: by host.
        sites: their places, with the units that are left.
        steps: optimiser steps so far.

    Raises:
        InputError: before any training, when the config has shares of a run, the model can't be traced, nothing is
            prunable, the given graph has other compactors than the config asks for, or the target can't be reached.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        config: ResRepConfig | None = None,
        *,
        graph: ChannelGraph | None = None,
    ) -> None:
        check_arguments(model, config)
        self.model, self.example_inputs = model, example_inputs
        self.config = config or ResRepConfig()
        self.config.check_is_for_a_run()
        planned = plan(model, example_inputs, self.config, graph)
        self.graph, self.selected, self._left_out = planned.graph, planned.selected, planned.left_out
        selection = MaskSelection(self.graph, self.selected, self.config, planned.least, next(model.parameters()))
        self.live = planned.put_compactors(model)
        self._selection, self._narrowing = selection, None
        if (settings := self.config.narrowing).mode != "no":
            self._narrowing = Narrowing(self.live, example_inputs, settings, selection.least, selection.multiples)
        self._rows_changed()
        self.steps, self._loop_is_checked = 0, False
        self._report: ConversionReport | None = None
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hooks = StepHooks(self._before_step, self._after_step)
        self._watch = StepWatch(self._rows.weights[0])

    @property
    def compactors(self) -> dict[str, Compactor]:
        """The model's compactors, by host."""
        return self.live.compactors

    def __repr__(self) -> str:
        goals = " and ".join(f"{target.name}={target.value:g}" for target in self._selection.targets)
        if self.retired:
            state = "pruning is over, the network is narrow"
        else:
            state = f"{self._selection.costs(self.unmasked.alive)} not masked, next update after step "
            state += f"{self._selection.next_update(self.steps)}"
        return f"{type(self).__name__}({goals}; {self.steps} steps; {state})"

    # The user's loop ------------------------------------------------------------------------------------------

    def param_groups(
        self, lr: float, momentum: float = 0.9, weight_decay: float = 1e-4, bias_lr_factor: float = 2.0
    ) -> list[dict[str, object]]:
        """Groups for torch.optim.SGD: those of `rr.param_groups`, and the compactors, with a momentum of their own."""
        compactors = {
            "params": list(self._rows.weights),
            "lr": lr,
            "momentum": self.config.decay.momentum,
            "weight_decay": 0.0,
            "name": "compactors",
        }
        plain = param_groups(
            self.model, lr=lr, momentum=momentum, weight_decay=weight_decay, bias_lr_factor=bias_lr_factor
        )
        return [*plain, compactors]

    def attach(self, optimizer: torch.optim.Optimizer, *others: torch.optim.Optimizer) -> None:
        """Hook `optimizer.step`: reset and penalise gradients before it, count and update masks after it.

        Where `step` is given a closure, the closure makes the gradients, so they are adjusted each time it returns. A
        second call moves the hooks to another optimiser: no step is ever penalised twice.

        Args:
            optimizer: the one that has all compactors.
            others: optimisers of other parameters of the model, which `narrow` cuts as well.

        Raises:
            InputError: if the optimiser doesn't hold the compactors' parameters, or they are frozen; and, in the first
                step, if the loop can't work (`rr.compactors.check_loop`).
        """
        check_optimizer(optimizer, self.compactors, may_be_frozen=self.retired, narrows=self._narrowing is not None)
        self._loop_is_checked, self._optimizers = False, [optimizer, *others]
        self._hooks.attach(optimizer)

    def detach(self) -> None:
        """Leave the optimiser alone from now on."""
        self._hooks.remove()

    def adjust_gradients(self, scale: Tensor | float = 1.0) -> None:
        """Reset and penalise the compactors' gradients, as the hook before each step does.

        Args:
            scale: what the gradients are multiplied by at present (by a gradient scaler).
        """
        self._rows.adjust_gradients(scale, self._selection.observe)

    def shrink_masked(self, optimizer: torch.optim.Optimizer) -> None:
        """Shrink masked rows by a proximal step, as the hook after each step does with the setting `proximal`."""
        self._rows.shrink_masked(optimizer)

    def after_step(self) -> None:
        """Count an optimiser step; update the masks when that is due."""
        self.steps += 1
        self._watch.counted()
        if self.masks_are_due():
            self.update_masks()

    def leave_step_out(self) -> None:
        """Forget what a step's passes have measured: the loop leaves the step out, as its loss is NaN, say."""
        if self._narrowing is not None:
            self._narrowing.measure_anew()

    def masks_are_due(self, ahead: int = 0) -> bool:
        """Whether the masks are updated after the step counted last, or `ahead` later; never once pruning is over."""
        return not self.retired and self._selection.is_due(self.steps + ahead)

    @property
    def next_step_is_alike(self) -> bool:
        """Whether the next step updates no mask and measures nothing, so that a step recorded before may be replayed.

        Of a CUDA graph, say. A replay runs no hook: call `after_step` after it, which counts the step.
        """
        return not self.masks_are_due(ahead=1) and not (self._narrowing is not None and self._narrowing.is_measuring)

    def update_masks(self) -> None:
        """Choose the units to forget by their scores, afresh for all (section 3.3); the same on every rank."""
        kept, removed = self.unmasked.alive, self.live.remaining.removed
        forgotten = self._selection.forgotten(self.steps, self.live.unit_norms(), kept, removed)
        self._rows.set_masks(~forgotten & ~removed)
        if is_first():
            count, ratio = forgotten.sum(), self.unmasked.macs_ratio
            logger.debug("step %d: %d rows forgotten, %.4f of the MACs", self.steps, count, ratio)

    def retarget(self, flops_target: float) -> None:
        """Ask for another share of the MACs from the next mask update on; InputError if it can't be reached."""
        self._selection.retarget(flops_target)

    @property
    def narrow_is_due(self) -> bool:
        """Whether `narrow` may find something to do: masks were updated, or what a fold needs is measured."""
        return self._narrowing is not None and (self.masks_are_due() or self._narrowing.is_measured)

    @torch.no_grad()
    def narrow(self, also: Sequence[nn.Module] = ()) -> int:
        """Take masked units that have died out of the model and its optimiser.

        Between steps, and before the next forward pass: a unit with a norm under `narrow_threshold` is set to zero and
        goes, with all that belongs to it alone; the training function stays what it is with that unit at zero. With
        narrow='full' compactors are folded when nothing more is to die: one call has what that needs measured in the
        steps that follow, a later one folds, and training goes on with the plain narrow network. Parameters stay the
        same objects; what wraps the model (DistributedDataParallel) must be built again if any went. Same on all ranks.

        Args:
            also: copies of the model that follow it (an average of its weights: `AveragedModel.module`).

        Returns:
            How many units and outputs went.

        Raises:
            InputError: without the setting `narrow`.
        """
        if self._narrowing is None:
            raise InputError("channels can be taken out only with the setting narrow='rows' or 'full'")
        if gone := self._narrowing.narrow(~self.unmasked.alive, self.target_met, self._optimizers, also):
            self._rows_changed()
        return gone

    @property
    def retired(self) -> bool:
        """Whether pruning is over and the compactors are out of use (`narrow='full'`)."""
        return self._narrowing is not None and self._narrowing.retired

    @property
    def settled(self) -> bool:
        """Whether all channels that are to go in mid-run are gone, or none will: the time to compile a network."""
        return self._narrowing is None or self._narrowing.is_settled(~self.unmasked.alive, self.target_met)

    # Where it stands ------------------------------------------------------------------------------------------

    @property
    def unmasked(self) -> Standing:
        """The units whose mask says keep, and all that are not pruned: what is left once all others have died."""
        masked = self._rows.masked(self.graph.num_units)
        return Standing(self.graph, ~masked & ~self.live.remaining.removed)

    @property
    def remaining(self) -> Standing:
        """The units that a conversion would keep now (norm at or over the threshold)."""
        settings, norms = self.config, self.live.unit_norms()
        least, multiple = self._selection.least, settings.selection.width_multiple
        return Standing(self.graph, alive_units(self.live, norms, settings.decay.threshold, least, multiple))

    @property
    def targets(self) -> list[Target]:
        """The targets to reach, that of MACs first."""
        return self._selection.targets

    @property
    def candidates(self) -> np.ndarray:
        """[candidates], the units that may be forgotten."""
        return self._selection.candidates

    def candidate_norms(self) -> np.ndarray:
        """[candidates], the norm of every unit that may be forgotten."""
        return self.live.unit_norms()[self.candidates]

    def candidate_scores(self) -> np.ndarray:
        """[candidates], the scores that mask selection ranks these units by: the lowest go first."""
        return self._selection.scores(self.live.unit_norms(), self.unmasked.alive, self.live.remaining.removed)

    @property
    def target_met(self) -> bool:
        """Whether the masked widths reach every target."""
        return not self._selection.missed(self.unmasked.alive)

    @property
    def report(self) -> ConversionReport:
        """What the last conversion did and showed; before the first, what one would leave now. Prints as a table."""
        if self._report is not None:
            return self._report
        threshold, norms = self.config.decay.threshold, self.live.unit_norms()
        return report_of(self.live, self.remaining.alive, norms, threshold, self._left_out)

    # The end, and across a restart ----------------------------------------------------------------------------

    def convert(self, model: nn.Module | None = None, *, prove: bool = True) -> nn.Module:
        """The plain, narrow model, proven equal; what was done and shown is in `report`.

        Args:
            model: a copy to convert in place of the pruner's own model, such as an average of its weights (an
                AveragedModel, or the module in it). It lags: rows that are zero in the model are slightly above that in
                it. They are left out of it as well; the report's `cut_difference` says what that changes.
            prove: compare it with the model as trained, on the example inputs' shapes, in float64 and float32.

        Raises:
            ConversionError: if the proof fails.
            InputError: if `model` is no copy of the pruner's, a module was replaced, or no step was counted.
        """
        self.live.check_modules(self.selected)
        remaining = self.remaining.alive
        check_counted(self.steps, nothing_goes=remaining.all())
        slim, self._report = convert(
            self.live if model is None else self._follower(model),
            self.example_inputs,
            threshold=self.config.decay.threshold,
            min_width=self._selection.least,
            width_multiple=self.config.selection.width_multiple,
            alive=None if model is None else remaining,
            left_out=self._left_out,
            prove=prove,
        )
        masked = ~self.unmasked.alive & ~self.live.remaining.removed
        undead = int((masked & (self.live.unit_norms() >= self.config.decay.threshold)).sum())
        self._selection.tell_of_missed(remaining, undead)
        return slim

    def state_dict(self) -> dict[str, Any]:
        """What the model's own state dict doesn't hold (masks and compactors are in that)."""
        state = {"steps": self.steps, **self._selection.state_dict()}
        return state | (self._narrowing.state_dict() if self._narrowing else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; load the model's and the optimiser's own states as well, after this.

        With `narrow` the model gets the widths that it had, so that those states fit.
        """
        self.steps = steps_of(state)
        self._selection.load_state_dict(state)
        if self._narrowing is not None:
            self._narrowing.load_state_dict(state, self._optimizers)
            self._rows_changed()

    # Within -----------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, scale: Tensor | float) -> None:
        if self.retired:
            return
        self._watch.in_step()
        if not self._loop_is_checked:
            self.live.check_modules(self.selected)
            check_loop(self._rows.weights, optimizer)
            self._loop_is_checked = True
        self.adjust_gradients(scale)

    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.config.decay.proximal and not self.retired:
            self.shrink_masked(optimizer)
        self.after_step()

    def _rows_changed(self) -> None:
        """Look up where each compactor row's unit is, again after the model got narrower."""
        present = self.live.remaining.present
        sites = self.graph.sites_of(self.selected)
        self.sites: list[Site] = [replace(site, units=present(site.units)) for site in sites]
        compactors = [self.compactors[site.host] for site in self.sites]
        units = [site.units for site in self.sites]
        self._rows = CompactorRows(compactors, units, self.selected, self.config)

    def _follower(self, model: nn.Module) -> LiveModel:
        """A copy of the model; AveragedModel has it as its `module`."""
        live = self.live.follower(model.module if isinstance(model, AveragedModel) else model)
        if live.compactors.keys() != self.compactors.keys():
            raise InputError("this isn't a copy of the pruner's model: make it after the pruner, with its compactors")
        return live
