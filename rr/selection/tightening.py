"""A target that tightens while the network trains, in place of a budget of rows at each mask update."""

from __future__ import annotations

from dataclasses import replace

from rr.graph import Target


def tightened(target: Target, progress: float) -> Target:
    """The target at `progress` (0 to 1, more counts as 1) of the way: all is kept at 0, the target itself holds at 1.

    Zhu & Gupta 2017 (To prune, or not to prune), eq. 1: kept(t) = target + (full - target) (1 - t / T)^3, so that most
    goes early, while the network is still wide, and the last of it slowly.
    """
    full = 1.0 if target.value <= 1 else max(target.cost.full, target.value)
    left = (1 - min(max(progress, 0.0), 1.0)) ** 3
    return replace(target, value=target.value * (1 - left) + full * left)  # exact at both ends
