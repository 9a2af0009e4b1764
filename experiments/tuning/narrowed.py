"""A network as most steps of a pruning run find it: random units dead up to the target, and out of the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from experiments.deaths import forgotten, random_scores
from rr import ResRepPruner


def narrow_at_random(pruner: ResRepPruner, step: Callable[[], object]) -> None:
    """Let random units die until the target is met, and take them out.

    Args:
        pruner: of the network in training, attached to its optimiser.
        step: makes a training step; what folding the compactors needs is measured in one.
    """
    mask(pruner, alive_at_target(pruner))
    pruner.narrow()
    if pruner.config.narrowing.mode == "full":
        step()
        pruner.narrow()


def alive_at_target(pruner: ResRepPruner) -> np.ndarray:
    """[num_units] of bool: as few random units are dead as meet the first target, in the widths asked for."""
    return RandomDeaths(pruner).alive_at(1.0)


class RandomDeaths:
    """Units that die one by one, in one random order, until the first target is met.

    Args:
        pruner: has the graph, the target and the multiples of widths.
    """

    def __init__(self, pruner: ResRepPruner) -> None:
        self._pruner, self._scores = pruner, random_scores(pruner)
        self._most = self._forgotten(len(self._scores))[1]

    def alive_at(self, progress: float) -> np.ndarray:
        """[num_units] of bool, after a share `progress` of the deaths; widths are multiples by the method's rule."""
        alive = np.ones(self._pruner.graph.num_units, dtype=bool)
        alive[self._pruner.candidates[self._forgotten(round(progress * self._most))[0]]] = False
        return alive

    def _forgotten(self, limit: int) -> tuple[np.ndarray, int]:
        return forgotten(self._pruner, self._scores, self._pruner.targets[0].met, limit=limit)


def mask(pruner: ResRepPruner, alive: np.ndarray) -> None:
    """Mask some units and set their compactor rows to zero, as if they had died.

    Args:
        pruner: of the network.
        alive: [num_units] of bool, the units that stay.
    """
    for site in pruner.sites:
        pruner.compactors[site.host].mask.copy_(torch.from_numpy(alive[site.units]))
    pruner.live.zero_dead_rows(alive)
