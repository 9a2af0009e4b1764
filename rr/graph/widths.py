"""Widths of groups: the least that they can have, and multiples that run fast."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from rr.graph.layers import Layer

PerGroup = np.ndarray | int  # [groups], or one for all of them


def rounded_up(widths: np.ndarray, group_sizes: np.ndarray, multiples: PerGroup, floors: PerGroup = 0) -> np.ndarray:
    """[groups]: the next width that a group may have: a multiple, and 0 or at least its floor; or its full width."""
    widths = np.where((widths > 0) & (widths < floors), floors, widths)
    return np.minimum(-(-widths // multiples) * multiples, group_sizes)


def floors(group_sizes: np.ndarray, min_width: int, min_width_share: float) -> np.ndarray:
    """[groups]: how many units each group keeps at least; one in any case.

    Args:
        group_sizes: [groups], units in each group.
        min_width: units that all keep.
        min_width_share: the share of its own units that each keeps, rounded up.
    """
    shares = np.ceil(min_width_share * group_sizes - 1e-9)  # 0.1 * 30 is a little over 3
    return np.maximum(shares.astype(np.int64), max(min_width, 1))


def least_widths(
    group: np.ndarray, group_sizes: np.ndarray, *, min_width: PerGroup, multiples: PerGroup = 1, floors: PerGroup = 0
) -> np.ndarray:
    """[groups]: the lowest possible widths.

    Args:
        group: [candidates], the group of each unit that may go.
        group_sizes: [groups], units in each group, candidates or not.
        min_width: units that each group keeps at least.
        multiples: what each group's width is to be a multiple of, or else its full width.
        floors: the least width that a group has if it has any.
    """
    candidates = np.bincount(group, minlength=len(group_sizes))
    return rounded_up(np.maximum(group_sizes - candidates, min_width), group_sizes, multiples, floors)


def multiples_in_units(
    layers: Iterable[Layer], group_of_unit: np.ndarray, num_groups: int, width_multiple: int
) -> np.ndarray:
    """[groups]: of how many units the live ones of each group must be a multiple, for channels in `width_multiple`s.

    A unit may hold several channels of a layer (a whole group of a grouped convolution, say), so fewer units may do. A
    layer whose channels are several groups of units has a multiple from each of them.

    Args:
        layers: all layers.
        group_of_unit: [num_units], the group of each unit.
        num_groups: how many groups there are.
        width_multiple: what a layer's channels are to be a multiple of.
    """
    multiples = np.ones(num_groups, dtype=np.int64)
    for layer in layers:
        units, channels = np.unique(layer.out_units, return_counts=True)
        for position, count in set(zip(group_of_unit[units].tolist(), channels.tolist(), strict=True)):
            multiples[position] = math.lcm(int(multiples[position]), width_multiple // math.gcd(width_multiple, count))
    return multiples
