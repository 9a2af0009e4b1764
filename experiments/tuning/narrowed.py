"""A network as most steps of a pruning run find it: random units dead up to the target, and out of the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from rr import ResRepPruner
from rr.selection import select_forgotten


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
    graph = pruner.graph
    candidates = np.flatnonzero(pruner.selected)
    scores = np.random.default_rng(0).permutation(len(candidates)).astype(np.float64)
    forgotten, _ = select_forgotten(
        scores,
        graph.macs.group_of_unit[candidates],
        graph.macs.group_sizes,
        pruner.targets[0].met,
        min_width=max(1, pruner.config.selection.min_width),
        limit=len(candidates),
        multiples=graph.multiples_in_units(pruner.config.selection.width_multiple),
    )
    alive = np.ones(graph.num_units, dtype=bool)
    alive[candidates[forgotten]] = False
    return alive


def mask(pruner: ResRepPruner, alive: np.ndarray) -> None:
    """Mask some units and set their compactor rows to zero, as if they had died.

    Args:
        pruner: of the network.
        alive: [num_units] of bool, the units that stay.
    """
    for site in pruner.sites:
        pruner.compactors[site.host].mask.copy_(torch.from_numpy(alive[site.units]))
    pruner.live.zero_dead_rows(alive)
