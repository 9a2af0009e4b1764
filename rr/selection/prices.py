"""What a unit costs, by which its score may be divided."""

from __future__ import annotations

import numpy as np

from rr.graph import CostOfWidths


def relative_unit_costs(cost: CostOfWidths, widths: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """What the cost falls by when the group of each candidate loses one unit, relative to the mean: [candidates].

    A group without units costs what its last one did.

    Args:
        cost: as a function of all widths.
        widths: [groups], the widths to start from.
        groups: [candidates], the group of each.
    """
    costs = np.zeros(len(widths))
    for group in np.unique(groups):
        more = widths.copy()
        more[group] = max(widths[group], 1)
        less = more.copy()
        less[group] -= 1
        costs[group] = cost.of_group_widths(more) - cost.of_group_widths(less)
    each = costs[groups]
    if not each.any():
        return np.ones(len(groups))
    return np.maximum(each, 1e-9 * each.max()) / each.mean()  # a unit that frees nothing comes last
