"""Which units to forget next (section 3.3): a pure function of the norms, the widths and the target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rr.graph.widths import PerGroup, least_widths, rounded_up


def removable_in_order(
    scores: np.ndarray,
    group: np.ndarray,
    group_sizes: np.ndarray,
    min_width: PerGroup,
    multiples: PerGroup = 1,
    floors: PerGroup = 0,
) -> np.ndarray:
    """The candidates that may be forgotten, lowest score first; the highest of each group always stay.

    A group keeps its least width, by taking its highest-scored candidates out of the list altogether: what can't be
    forgotten uses up none of the budget. Ties are broken by position.

    Args:
        scores: [candidates], what they are ranked by.
        group: [candidates], the group of each.
        group_sizes: [groups], units in each group, candidates or not.
        min_width: units that each group keeps.
        multiples: what each group's width is to be a multiple of, or else its full width.
        floors: the least width that a group has if it has any: it may go altogether where `min_width` is 0.

    Returns:
        [removable], the positions of these candidates.
    """
    order = np.argsort(scores, kind="stable")
    least = least_widths(group, group_sizes, min_width=min_width, multiples=multiples, floors=floors)
    allowed = (group_sizes - least)[group]
    return order[_rank_in_group(order, group, len(group_sizes)) < allowed[order]]


def select_forgotten(
    scores: np.ndarray,
    group: np.ndarray,
    group_sizes: np.ndarray,
    met: Callable[[np.ndarray], bool],
    *,
    min_width: PerGroup,
    limit: int,
    multiples: PerGroup = 1,
    floors: PerGroup = 0,
) -> tuple[np.ndarray, int]:
    """Walk from the lowest score up until the target is met or `limit` rows are walked; forget what was walked.

    Where widths go in multiples, a group forgets only the lowest of its walked rows, as many as make its width a
    multiple; the others wait for those that complete the next one. Rows under a floor wait until all are walked, and
    the whole group goes.

    The walk's end is found by bisection, since widths only fall along the list: a dozen evaluations in place of one
    per row.

    Args:
        scores, group, group_sizes, min_width, multiples, floors: as in `removable_in_order`.
        met: whether live units per group ([groups]) meet the target; with fewer units it must stay so.
        limit: how many rows may be walked in all (section 3.3: those of the last time + `rows_per_update`).

    Returns:
        [candidates] of bool, what to forget, and how many rows were walked.
    """
    removable = removable_in_order(scores, group, group_sizes, min_width, multiples, floors)

    def widths_after(count: int) -> np.ndarray:
        walked = np.bincount(group[removable[:count]], minlength=len(group_sizes))
        return rounded_up(group_sizes - walked, group_sizes, multiples, floors)

    enough, most = 0, min(limit, len(removable))
    while enough < most:  # the smallest count that meets the target, else `most`
        middle = (enough + most) // 2
        if met(widths_after(middle)):
            most = middle
        else:
            enough = middle + 1
    walked = removable[:enough]
    complete = (group_sizes - widths_after(enough))[group[walked]]
    forgotten = np.zeros(len(scores), dtype=bool)
    forgotten[walked[_rank_in_group(walked, group, len(group_sizes)) < complete]] = True
    return forgotten, enough


def _rank_in_group(ordered: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """[ordered]: how many of the candidates before each one in `ordered` are of its own group."""
    groups_of = group[ordered]
    grouped = np.argsort(groups_of, kind="stable")
    sizes = np.bincount(groups_of, minlength=groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(ordered), dtype=np.int64)
    rank[grouped] = np.arange(len(ordered)) - np.repeat(starts, sizes)
    return rank
