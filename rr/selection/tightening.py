"""A target that tightens while the network trains, in place of a budget of rows at each mask update."""

from __future__ import annotations

from dataclasses import replace

from rr.graph import Target


def tightened(target: Target, progress: float) -> Target:
    """The target that holds for now: at first all is kept, at the end the target itself holds.

    Zhu & Gupta 2017 (To prune, or not to prune), eq. 1: kept(t) = target + (full - target) (1 - t / T)^3, so that most
    goes early, while the network is still wide, and the last of it slowly.

    Args:
        target: what holds at the end.
        progress: t / T, from 0 to 1; more counts as 1.
    """
    full = 1.0 if target.value <= 1 else max(target.cost.full, target.value)
    left = (1 - min(max(progress, 0.0), 1.0)) ** 3
    return replace(target, value=target.value * (1 - left) + full * left)  # exact at both ends
