"""Which of a pruner's units would go, by scores of the caller's own: for networks that are made before any training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rr import ResRepPruner
from rr.graph.widths import floors
from rr.selection import select_forgotten


def random_scores(pruner: ResRepPruner) -> np.ndarray:
    """[candidates]: one random order, the same each time."""
    return np.random.default_rng(0).permutation(len(pruner.candidates)).astype(np.float64)


def forgotten(
    pruner: ResRepPruner,
    scores: np.ndarray,
    met: Callable[[np.ndarray], bool],
    *,
    limit: int | None = None,
    width_multiple: int | None = None,
) -> tuple[np.ndarray, int]:
    """What `select_forgotten` gives, with the widths that the pruner's settings ask for.

    Args:
        pruner: has the graph, the candidates and the settings.
        scores: [candidates], the lowest go first.
        met: whether live units per group ([groups]) meet the target.
        limit: how many units may go; None for all.
        width_multiple: another one than the settings'.
    """
    graph, chosen = pruner.graph, pruner.config.selection
    macs = graph.macs
    return select_forgotten(
        scores,
        macs.group_of_unit[pruner.candidates],
        macs.group_sizes,
        met,
        min_width=floors(macs.group_sizes, chosen.min_width, chosen.min_width_share),
        limit=len(scores) if limit is None else limit,
        multiples=graph.multiples_in_units(width_multiple or chosen.width_multiple),
    )
