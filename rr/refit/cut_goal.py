"""What a cut has to come to: bounds of MACs and parameters, or a share of the time that is looked for on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rr.config import ResRepConfig
from rr.errors import InputError
from rr.graph import CostOfWidths, LiveModel, Target
from rr.graph.widths import least_widths
from rr.latency.goal import Found, LatencySearch
from rr.refit.choosing import Order
from rr.selection.mask_selection import targets_of


class CutGoal:
    """What is to be left after each round.

    Args:
        config, live, selected, latency: as in `cut_and_refit`.
        least: [groups], units that each group keeps.

    Attributes:
        multiple: what the channels of a layer are to be a multiple of.
    """

    def __init__(
        self,
        config: ResRepConfig,
        live: LiveModel,
        selected: np.ndarray,
        least: np.ndarray,
        latency: LatencySearch | None,
    ) -> None:
        self._graph, self._selected, self._least, self._latency = live.graph, selected, least, latency
        self._targets = targets_of(config, live.graph)
        self._most = self._targets[0].limit / self._targets[0].cost.full
        self._found: Found | None = None  # by the search before
        self.multiple = config.selection.width_multiple

    @property
    def flops_target(self) -> float | None:
        """The bound of the MACs, as it is now."""
        return self._targets[0].value if self._targets[0].name == "flops_target" else None

    @property
    def cost(self) -> CostOfWidths:
        """What units are weighed against."""
        return self._targets[0].cost

    def left(self, order: Order, number: int, rounds: int) -> np.ndarray:
        """[num_units] of bool: who is left after a round.

        A share of time is looked for in the order of the first round, and again in that of the last one, which is then
        the network's own.
        """
        if self._latency is not None and number in (1, rounds):
            self._find(order)
        return self._left(order, _of_round(self._targets, number, rounds), self.multiple)

    def check(self, alive: np.ndarray) -> None:
        """Check that the targets are met."""
        widths = self._graph.macs.group_widths(alive)
        if missed := [target for target in self._targets if not target.met(widths)]:
            raise InputError(
                f"{missed[0].name} {missed[0].value:g} can't be reached: {missed[0].describe(widths)} remain. Raise "
                "it, or let more layers be pruned (layers='all')"
            )

    def _left(self, order: Order, targets: Sequence[Target], multiple: int) -> np.ndarray:
        return order.left(targets, self._graph.multiples_in_units(multiple))

    def _find(self, order: Order) -> None:
        macs, *others = self._targets

        def alive_at(bound: float, multiple: int) -> np.ndarray:
            return self._left(order, [replace(macs, value=bound), *others], multiple)

        found = self._latency.find(alive_at, self._least_share, self._most, self._found)
        self._targets, self.multiple = [replace(macs, value=found.bound), *others], found.multiple
        self._found = found

    def _least_share(self, multiple: int) -> float:
        """Of the MACs, with all that may go gone."""
        macs, multiples = self._graph.macs, self._graph.multiples_in_units(multiple)
        groups = macs.group_of_unit[np.flatnonzero(self._selected)]
        widths = least_widths(groups, macs.group_sizes, min_width=self._least, multiples=multiples)
        return round(macs.of_group_widths(widths)) / macs.full


def _of_round(targets: Sequence[Target], number: int, rounds: int) -> list[Target]:
    """The targets of a round: each round leaves the same share of what the last one left."""
    if number == rounds:
        return list(targets)
    return [
        replace(target, value=(target.limit / target.cost.full) ** (number / rounds) * target.cost.full)
        for target in targets
    ]
