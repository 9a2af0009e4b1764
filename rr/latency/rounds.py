"""Several calls timed in turn, in short blocks, so that a machine's slow moments hit all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

BLOCK_S = 0.02  # of one call's repetitions: long enough for the clock, short beside a machine's slow moments
LEAST_ROUNDS = 5
WARM_UP = 2  # calls: memory, and the choice of kernels


@dataclass(frozen=True)
class Spread:
    """Of what was measured round by round: the median, and the quartiles."""

    median: float
    low: float
    high: float

    @property
    def standard_deviation(self) -> float:
        """By the quartiles, which outliers don't move: as that of a normal distribution with these."""
        return (self.high - self.low) / 1.349


def in_turn(
    calls: Sequence[Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Time calls round by round: in a round each has a block of repetitions, every other round in reverse order.

    Args:
        calls: what is timed.
        seconds: for all rounds; there are at least `LEAST_ROUNDS`, whatever they take.
        clock: seconds, from anywhere.

    Returns:
        For each call its seconds, one number a round.
    """
    repetitions = []
    for call in calls:
        for _ in range(WARM_UP):
            call()
        repetitions.append(max(1, math.ceil(BLOCK_S / max(_seconds_of(call, 1, clock), 1e-9))))
    found: list[list[float]] = [[] for _ in calls]
    places = list(range(len(calls)))
    began = clock()
    while len(found[0]) < LEAST_ROUNDS or clock() - began < seconds:
        for place in places:
            found[place].append(_seconds_of(calls[place], repetitions[place], clock))
        places.reverse()
    return found


def spread(values: Sequence[float]) -> Spread:
    """The median and quartiles of at least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def _seconds_of(call: Callable[[], object], repetitions: int, clock: Callable[[], float]) -> float:
    """Of one call, the mean of a block."""
    began = clock()
    for _ in range(repetitions):
        call()
    return (clock() - began) / repetitions
