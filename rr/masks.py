"""Which units to forget next (section 3.3): a pure function of the norms, the widths and the target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MacsOfGroupWidths = Callable[[np.ndarray], float]


def removable_in_order(scores: np.ndarray, group: np.ndarray, group_sizes: np.ndarray, min_width: int) -> np.ndarray:
    """The candidates that may be forgotten, lowest score first; the highest of each group always stay.

    scores: [candidates], row norms; group: [candidates], the group of each; group_sizes: [groups], units in each
    group, candidates or not. A group keeps at least `min_width` units, by taking its highest-scored candidates out of
    the list altogether: what can't be forgotten uses up nothing of anyone's budget. Ties go by position.
    """
    order = np.argsort(scores, kind="stable")
    grouped = order[np.argsort(group[order], kind="stable")]  # by group, ascending in score within each
    sizes = np.bincount(group, minlength=len(group_sizes))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(scores), dtype=np.int64)
    rank[grouped] = np.arange(len(scores)) - np.repeat(starts, sizes)
    allowed = np.minimum(group_sizes - min_width, sizes)[group]
    return order[rank[order] < allowed[order]]


def select_forgotten(
    scores: np.ndarray,
    group: np.ndarray,
    group_sizes: np.ndarray,
    macs_of: MacsOfGroupWidths,
    target_macs: float,
    *,
    min_width: int,
    limit: int,
) -> np.ndarray:
    """[candidates] of bool: forget from the lowest norm up until the MACs reach the target or `limit` are forgotten.

    scores, group, group_sizes, min_width: as in `removable_in_order`
    macs_of: MACs for live units per group ([groups]); it must not rise when a unit goes
    limit: how many units may be forgotten in all (section 3.3: those forgotten already + begin_granularity)

    The walk's end is found by bisection, since the MACs only fall along the list: a dozen evaluations in place of one
    per row.
    """
    removable = removable_in_order(scores, group, group_sizes, min_width)

    def macs_without(count: int) -> float:
        gone = np.bincount(group[removable[:count]], minlength=len(group_sizes))
        return macs_of(group_sizes - gone)

    enough, most = 0, min(limit, len(removable))
    while enough < most:  # the smallest count that reaches the target, else `most`
        middle = (enough + most) // 2
        if macs_without(middle) <= target_macs:
            most = middle
        else:
            enough = middle + 1
    forgotten = np.zeros(len(scores), dtype=bool)
    forgotten[removable[:enough]] = True
    return forgotten


def least_macs(group: np.ndarray, group_sizes: np.ndarray, macs_of: MacsOfGroupWidths, *, min_width: int) -> float:
    """The fewest MACs that can be reached: every group with candidates at its minimum width."""
    candidates = np.bincount(group, minlength=len(group_sizes))
    return macs_of(group_sizes - np.clip(group_sizes - min_width, 0, candidates))
