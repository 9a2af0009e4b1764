"""Which units a conversion keeps."""

from __future__ import annotations

import numpy as np

from rr.graph import LiveModel
from rr.graph.vanishing import without_unread
from rr.graph.widths import PerGroup, rounded_up


def alive_units(
    live: LiveModel, norms: np.ndarray, threshold: float, min_width: PerGroup = 1, width_multiple: int = 1
) -> np.ndarray:
    """[num_units] of bool: units that stay, those with a norm of at least `threshold` and some of the others.

    Where fewer than `min_width` would stay, or a number that makes their layers' channels no multiple of
    `width_multiple`, the largest of the others stay as well, up to that or to the full width: that loses nothing.

    Args:
        live: the model, and what is left of it.
        norms: [num_units], as `LiveModel.unit_norms` has them.
        threshold: units with a smaller norm are dropped.
        min_width: units that each group ([groups]), or any, keeps.
        width_multiple: what a layer's channels are to be a multiple of.
    """
    graph, removed = live.graph, live.remaining.removed
    alive = ((norms >= threshold) & ~removed) | ~graph.prunable
    sizes = graph.macs.group_sizes
    widths = np.maximum(graph.macs.group_widths(alive), min_width)
    widths = rounded_up(widths, sizes, graph.multiples_in_units(width_multiple))
    for group, width in zip(graph.groups, widths, strict=True):
        if alive[group.units].sum() < width:  # those that are alive anyway have the largest norms
            alive[group.units[np.argsort(-norms[group.units], kind="stable")[:width]]] = True
    alive &= ~removed
    # Where a group is gone, nothing may read others any more, whatever their norms.
    return without_unread(graph, alive, graph.prunable & np.isfinite(norms)) if (widths == 0).any() else alive
