"""Which units are masked: the candidates, their targets, and the choice at each update (section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from rr.config import ResRepConfig
from rr.errors import InputError
from rr.graph import ChannelGraph, Target
from rr.graph.widths import floors, least_widths
from rr.selection.forgetting import select_forgotten
from rr.selection.importance import TaylorScores
from rr.selection.prices import relative_unit_costs
from rr.selection.tightening import tightened

logger = logging.getLogger(__name__)


def targets_of(config: ResRepConfig, graph: ChannelGraph) -> list[Target]:
    """What is to be reached, that of MACs first.

    Raises:
        InputError: if a number is over all that the network has.
    """
    bounds = (
        ("flops_target", config.target.flops, graph.macs, "MACs"),
        ("params_target", config.target.params, graph.parameters, "parameters"),
    )
    targets = [Target(name, value, cost, noun) for name, value, cost, noun in bounds if value is not None]
    for target in targets:
        if target.limit > target.cost.full:
            raise InputError(
                f"{target.name} {target.value:g} is over the {target.cost.full:,} {target.noun} of the whole network: "
                "give fewer, or a share up to 1"
            )
    return targets


class MaskSelection:
    """Chooses the units to forget by their scores, afresh at each update.

    Args:
        graph: of the network.
        selected: [num_units] of bool, the units that may be forgotten.
        config: what is to be reached, what units are ranked by, and how many go at an update.
        least: [groups], units that each group keeps at least.
        like: a tensor of the compactors' device and type.

    Attributes:
        targets: what is to be reached, that of MACs first.
        least: as given.
        multiples: [groups], what each group's width is to be a multiple of.
        candidates: [candidates], the units that may be forgotten.
        groups: [candidates], the group of each.
        waiting: rows walked at the last update whose layers lack others to complete a multiple, or to go altogether.

    Raises:
        InputError: if the target can't be reached, saying what can.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        selected: np.ndarray,
        config: ResRepConfig,
        least: np.ndarray,
        like: Tensor,
    ) -> None:
        self._graph, self._config = graph, config.selection
        self.least, self.multiples = least, graph.multiples_in_units(config.selection.width_multiple)
        self._floors = floors(graph.macs.group_sizes, config.selection.min_width, config.selection.min_width_share)
        self.candidates = np.flatnonzero(selected)
        self.groups = graph.macs.group_of_unit[self.candidates]
        self.targets = targets_of(config, graph)
        self.waiting = 0
        self._check_target()
        self._taylor = TaylorScores(graph.num_units, like) if config.selection.score == "taylor" else None

    @property
    def observe(self) -> Callable[..., None] | None:
        """What to call with the task's gradients at each step (`TaylorScores.observe`); None where norms decide."""
        return None if self._taylor is None else self._taylor.observe

    def is_due(self, steps: int) -> bool:
        """Whether the masks are updated after this many steps: each `mask_interval` after the warm-up."""
        since = steps - self._config.warmup_steps
        return since > 0 and since % self._config.mask_interval == 0

    def next_update(self, steps: int) -> int:
        """The step after which the masks are updated next."""
        since = max(steps - self._config.warmup_steps, 0)
        return self._config.warmup_steps + (since // self._config.mask_interval + 1) * self._config.mask_interval

    def forgotten(self, steps: int, norms: np.ndarray, kept: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """[num_units] of bool: the units to forget.

        As many as the target needs, which may still be tightening; without tightening, at most `rows_per_update` more
        than the last time. While the present masks meet the target, as many as it takes: norms change places, and a
        target that was met stays met. Rows that wait for others to complete a multiple of widths count as if forgotten
        in what the next update may walk: a walk that stopped at them would never get any further.

        Args:
            steps: optimiser steps so far.
            norms: [num_units].
            kept: [num_units] of bool, the units that aren't masked at present.
            removed: [num_units] of bool, those that have left the model.
        """
        targets, limit = self.targets, len(self.candidates)
        if self._config.tighten_steps:
            since = steps - self._config.warmup_steps
            targets = [tightened(target, since / self._config.tighten_steps) for target in targets]
        elif self._missed(self._graph.macs.group_widths(kept)):
            already = int((~kept[self.candidates]).sum())
            limit = already + self.waiting + self._config.rows_per_update
        chosen, walked = select_forgotten(
            self.scores(norms, kept, removed),
            self.groups,
            self._graph.macs.group_sizes,
            lambda widths: all(target.met(widths) for target in targets),
            min_width=self.least,
            limit=limit,
            multiples=self.multiples,
            floors=self._floors,
        )
        self.waiting = walked - int(chosen.sum())
        forgotten = np.zeros(self._graph.num_units, dtype=bool)
        forgotten[self.candidates[chosen]] = True
        return forgotten

    def scores(self, norms: np.ndarray, kept: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """[candidates], what the units are ranked by: the lowest go first.

        Args:
            norms, kept, removed: as in `forgotten`.
        """
        scores = norms if self._taylor is None else self._taylor.scores(norms)
        scores = scores[self.candidates]
        if self._config.per_mac:
            costs = relative_unit_costs(self._graph.macs, self._graph.macs.group_widths(kept), self.groups)
            scores = scores / (costs if self._taylor is None else np.sqrt(costs))
        scores[removed[self.candidates]] = -1.0  # before what is zero too, but still there
        return scores

    def missed(self, alive: np.ndarray) -> str:
        """The targets that these units ([num_units] of bool) don't reach, with their values; "" if they reach all."""
        return self._missed(self._graph.macs.group_widths(alive))

    def costs(self, alive: np.ndarray) -> str:
        """What is left with these units ([num_units] of bool), of each cost that has a target."""
        return self._costs(self._graph.macs.group_widths(alive))

    def retarget(self, flops_target: float) -> None:
        """Ask for another share, or number, of the MACs from now on.

        Raises:
            InputError: if there was no target of MACs, or this one can't be reached.
        """
        if self.targets[0].name != "flops_target":
            raise InputError("there is no flops_target to change: give one to begin with, 1.0 say")
        self.targets = [replace(self.targets[0], value=flops_target), *self.targets[1:]]
        self._check_target()

    def tell_of_missed(self, alive: np.ndarray, undead: int) -> None:
        """Log which targets the units that are left don't reach, and why.

        Args:
            alive: [num_units] of bool.
            undead: how many masked rows aren't dead yet.
        """
        if goals := self.missed(alive):
            logger.warning(
                "%s not reached, %s remain: %s. Train for longer, or with a larger masked_penalty",
                goals,
                self.costs(alive),
                f"{undead} masked rows aren't dead yet" if undead else "too few rows are masked yet",
            )

    def _missed(self, widths: np.ndarray) -> str:
        return " and ".join(f"{target.name} {target.value:g}" for target in self.targets if not target.met(widths))

    def _costs(self, widths: np.ndarray) -> str:
        return " and ".join(target.describe(widths) for target in self.targets)

    def _check_target(self) -> None:
        sizes = self._graph.macs.group_sizes
        least = least_widths(self.groups, sizes, min_width=self.least, multiples=self.multiples, floors=self._floors)
        if goals := self._missed(least):
            floor = f"min_width = {self._config.min_width}"
            if self._config.min_width_share > 0:
                floor += f" and min_width_share = {self._config.min_width_share:g}"
            if self._config.width_multiple > 1:
                floor += f" (in multiples of {self._config.width_multiple})"
            reasons = self._graph.largest_reasons()
            raise InputError(
                f"{goals} can't be reached: with every chosen layer at {floor}, {self._costs(least)} remain. "
                + (f"Some channels have to stay ({reasons}). " if reasons else "")
                + "Raise the target, which is a share up to 1 and a number above, or let more layers be pruned "
                "(layers='all')."
            )

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        state: dict[str, Any] = {"waiting": self.waiting}
        if self.targets[0].name == "flops_target":
            state["flops_target"] = self.targets[0].value
        return state if self._taylor is None else {**state, "taylor": self._taylor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.waiting = int(state.get("waiting", 0))  # older states have none, and no multiples to wait for
        if "flops_target" in state:  # older states have the config's
            self.retarget(state["flops_target"])
        if self._taylor is not None and "taylor" in state:
            self._taylor.load_state_dict(state["taylor"])
