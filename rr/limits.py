"""Which numbers a setting of the method can be, with the words for all others."""

from __future__ import annotations

import math

from rr.settings import Share

STEPS = "must be a whole number of steps, or a share of the run's: Share(0.01), on a command line 1%"
MOST_CHANNELS = 2**31 - 1  # more than any layer has, and still a number that NumPy's sums can hold
LARGEST_PENALTY = 1e38  # about what float32 holds
LARGEST_THRESHOLD = 0.01  # of a row's norm: living rows were at 0.03 and more in every run (docs/log.md)


def is_steps(value: object) -> bool:
    """Whether it is a number of steps, 0 included, or a share of the run's."""
    return isinstance(value, Share) or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def is_target(value: float | None) -> bool:
    """Whether so much can be asked for: over 0 and finite; None asks for nothing."""
    return value is None or 0 < value < math.inf


def is_penalty(value: float) -> bool:
    """Whether a row's gradient can hold it."""
    return 0 <= value <= LARGEST_PENALTY
