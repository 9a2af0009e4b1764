"""The method in the training loop of the scripts."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from experiments.row_norms import encoded
from rr import ResRepPruner
from rr.conversion.widths_plot import width_figure
from training import Callback, TrainState

BEFORE_FIRST_MASK = "before_first_mask.hdf5"
ROW_RECORDS = 200  # in a run, of all rows' norms
ROW_INTERVAL = 5  # steps between two at least: reading them waits for the device
REMAIN_INTERVAL = 1000  # steps between log lines on what a conversion would leave

logger = logging.getLogger(__name__)


class ResRepCallback(Callback):
    """The method in the training loop: the pruner's hooks, log lines, curves and files.

    Args:
        pruner: of the model that is trained.
    """

    def __init__(self, pruner: ResRepPruner) -> None:
        self.pruner = pruner
        self._drawn: dict[str, int] | None = None  # the widths of the last image; a run that goes on draws anew
        self._rows: dict[str, dict[str, str]] = {}  # step -> layer -> its rows' norms, of this epoch

    def on_start(self, state: TrainState) -> None:
        self.pruner.attach(state.optimizer)
        state.settled = lambda: self.pruner.settled
        if self.pruner.config.selection.warmup_steps == 0:
            state.save_weights(BEFORE_FIRST_MASK)

    def before_first_step(self, state: TrainState) -> None:
        self._rows = {str(state.step): self._row_norms()}

    def after_step(self, state: TrainState) -> None:
        pruner = self.pruner
        if state.step == pruner.config.selection.warmup_steps < state.total_steps:
            state.save_weights(BEFORE_FIRST_MASK)
        if state.skipped_in_a_row:
            pruner.leave_step_out()  # it counted no step, and what was due after the one before is done
        else:
            self._narrow(state)
        if state.epoch and state.step == state.epoch * state.steps_per_epoch + 1:
            self._rows = {}  # they were of the epoch before
        if state.step % max(ROW_INTERVAL, state.total_steps // ROW_RECORDS) == 0 or state.step == state.total_steps:
            self._rows[str(state.step)] = self._row_norms()
        if state.step % REMAIN_INTERVAL == 0:
            remaining = pruner.remaining
            logger.info(
                "step %d, channels that a conversion would leave now (rows under %g go): %s, %.2f%% of the MACs, "
                "%.2f%% of the parameters",
                state.step,
                pruner.config.decay.threshold,
                remaining.widths,
                100 * remaining.macs_ratio,
                100 * remaining.params_ratio,
            )

    def _narrow(self, state: TrainState) -> None:
        """Tell of new masks, and take out of the network what has died."""
        pruner = self.pruner
        if pruner.masks_are_due():
            logger.info("step %d, channels that are to stay, by layer: %s", state.step, pruner.unmasked.widths)
        before = pruner.live.remaining.removed.sum()
        if pruner.narrow_is_due and (gone := pruner.narrow()):
            state.rewrap()
            dead = int(pruner.live.remaining.removed.sum() - before)
            folds = ", and compactors folded into the layers before them" if gone > dead else ""
            logger.info("step %d, %d dead channels taken out of the network%s", state.step, dead, folds)
            if pruner.retired:
                logger.info(
                    "step %d, pruning is over: the added layers (compactors) are gone, the narrow network trains on",
                    state.step,
                )

    def after_epoch(self, state: TrainState) -> None:
        graph, left = self.pruner.graph, self._of_pruned_layers(self.pruner.unmasked.widths)
        if state.world.is_first and left != self._drawn:
            self._drawn = left
            full = self._of_pruned_layers(graph.widths(np.ones(graph.num_units, dtype=bool)))
            state.log.figure("Widths", width_figure(list(left), list(full.values()), list(left.values())), state.step)

    def _of_pruned_layers(self, widths: list[int]) -> dict[str, int]:
        """Those of the layers that are pruned, by name."""
        layers = {site.layer for site in self.pruner.sites}
        named = zip(self.pruner.graph.width_names(), widths, strict=True)
        return {name: width for name, width in named if name in layers}

    def next_step_is_alike(self) -> bool:
        return self.pruner.next_step_is_alike

    def after_replay(self) -> None:
        self.pruner.after_step()

    def scalars(self) -> dict[str, float]:
        pruner = self.pruner
        unmasked, remaining, norms = pruner.unmasked, pruner.remaining, pruner.candidate_norms()
        widths = self._of_pruned_layers(unmasked.widths)
        return {
            "MACs/masked": unmasked.macs_ratio,
            "MACs/remaining": remaining.macs_ratio,
            "parameters/masked": unmasked.params_ratio,
            "parameters/remaining": remaining.params_ratio,
            "norm/min": float(norms.min()),
            "norm/mean": float(norms.mean()),
            "norm/max": float(norms.max()),
            **{f"width/{name}": float(width) for name, width in widths.items()},
        }

    def records(self) -> dict[str, Any]:
        return {"row_norms": self._rows} if self._rows else {}

    def _row_norms(self) -> dict[str, str]:
        """Those of all rows that there were at the run's start, by layer."""
        sites, norms = self.pruner.graph.sites, self.pruner.live.unit_norms()
        if self.pruner.retired:  # what is left of the compactors is the identity, and out of use
            norms[norms > 0] = np.inf
        return {site.layer: encoded(norms[sites[site.layer].units]) for site in self.pruner.sites}

    def progress(self) -> dict[str, str]:
        ratios = {"MACs to stay": self.pruner.unmasked.macs_ratio, "MACs left": self.pruner.remaining.macs_ratio}
        return {name: f"{ratio:.1%}" for name, ratio in ratios.items()}

    def state_dict(self) -> dict[str, Any]:
        return {**self.pruner.state_dict(), "row_norms": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = state.pop("row_norms", {})  # older checkpoints have none
        self.pruner.load_state_dict(state)
