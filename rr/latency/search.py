"""Which share of the MACs gives a share of the time: a bisection on a function that can only be measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rr.latency.rounds import spread

TOLERANCE = 0.03  # of what is asked: what a result may be off by
NEAR = 0.01  # of what is asked: what is nearer needs no side
SURE = 0.012  # of what is asked: what the search stops at, once a network was timed for long
FINEST = 0.002  # the least step in the share of the MACs, of what is asked
FIRST_S = 0.5  # seconds for a pair of networks, each time for as long as so far: 0.5, 0.5, 1, 2, 4
# Times that a network is timed: fewer where its rounds are long and alike, more where the machine isn't quiet.
LEAST_TIMES, ENOUGH, MOST_TIMES = 3, 5, 7
PRECISE = 0.008  # of what is asked: the standard error of a median that is known well enough
MOST = 16  # networks that are tried
EDGE = 0.1  # of a bracket: no try is nearer to its ends
BEYOND = 1.25  # times the step that a straight line promises, until both sides are known

Measure = Callable[[float], Sequence[float]]  # for so many seconds: shares of the time, round by round


@dataclass
class Tried:
    """A network that was timed.

    Attributes:
        bound: the share of the MACs that was its bound.
        widths: what it is known by: two bounds may have the same network.
        shares: of the full network's time, round by round, of each time that both were made ready.
    """

    bound: float
    widths: bytes
    shares: list[list[float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What it is to be timed for next: as long as so far, so that the error falls by the same share each time."""
        return FIRST_S * 2 ** max(len(self.shares) - 1, 0)

    @property
    def median(self) -> float:
        """The share of the time."""
        return statistics.median(share for shares in self.shares for share in shares)

    @property
    def error(self) -> float:
        """Standard error of the median, by the rounds or by the times made ready, whichever says more."""
        rounds = [share for shares in self.shares for share in shares]
        of_rounds = 1.2533 * spread(rounds).standard_deviation / math.sqrt(len(rounds))
        if len(self.shares) < 2:
            return of_rounds
        medians = [statistics.median(shares) for shares in self.shares]
        return max(of_rounds, statistics.stdev(medians) / math.sqrt(len(medians)))

    def off(self, asked: float) -> float:
        """How far the median is from what is asked, as a share of that."""
        return abs(self.median / asked - 1)

    def is_known(self, asked: float) -> bool:
        """Whether it was timed for as long as the one that is taken."""
        times = len(self.shares)
        if times < LEAST_TIMES:
            return False
        return times >= MOST_TIMES or self.error <= (PRECISE if times >= ENOUGH else PRECISE / 2) * asked


def is_slow(median: float, asked: float) -> bool:
    """Whether a network takes more of the time than was asked for, by more than `TOLERANCE` of it."""
    return median > (1 + TOLERANCE) * asked


def search(
    asked: float, start: float, least: float, most: float, network_at: Callable[[float], tuple[bytes, Measure]]
) -> list[Tried]:
    """Look for the share of the MACs at which a network takes a share of the full one's time.

    Far from it a pair of networks is measured shortly, and near it for longer, until the side is clear. At full width
    the share is 1 without a measurement.

    Args:
        asked: the share of the time.
        start: the bound to try first.
        least, most: the bounds that make sense.
        network_at: the network for a bound: what its widths are known by, and how it is timed.

    Returns:
        What was tried, the nearest to what is asked first.
    """
    found: dict[bytes, Tried] = {}
    measures: dict[bytes, Measure] = {}
    at: dict[float, Tried] = {}
    bound = min(max(start, least), most)
    while len(found) < MOST:
        widths, measure = network_at(bound)
        if widths not in found:
            found[widths], measures[widths] = Tried(bound, widths), measure
            _weigh(found[widths], asked, measure)
        tried = at[bound] = found[widths]
        if tried.off(asked) <= max(SURE, min(tried.error / asked, TOLERANCE / 2)):  # or no nearer can be told
            break
        if bound <= least if tried.median > asked else bound >= most:
            break
        bound = min(max(_next(asked, at), least), most)
        if min(abs(bound - other) for other in at) < FINEST * asked:
            break
    nearest = min(found.values(), key=lambda tried: tried.off(asked))
    while not nearest.is_known(asked):  # it may be the nearest by chance alone
        nearest.shares.append(list(measures[nearest.widths](nearest.seconds)))
        nearest = min(found.values(), key=lambda tried: tried.off(asked))
    return sorted(found.values(), key=lambda tried: tried.off(asked))


def _weigh(tried: Tried, asked: float, measure: Measure) -> None:
    """Time a network until it is clear on which side of what is asked it is, or it was timed long enough."""
    while not tried.is_known(asked):
        tried.shares.append(list(measure(tried.seconds)))
        if tried.off(asked) > NEAR + 3 * tried.error / asked:
            return


def _next(asked: float, at: Mapping[float, Tried]) -> float:
    """The bound to try: by a straight line, and by halves each third time, in case there are steps."""
    too_fast = [bound for bound, tried in at.items() if tried.median <= asked]
    low = max(too_fast, default=0.0)
    high = min((bound for bound, tried in at.items() if tried.median > asked and bound > low), default=1.0)
    high_share = at[high].median if high in at else 1.0
    if not too_fast:
        slope = max((1 - high_share) / (1 - high), 0.1) if high < 1 else 1.0
        return max(high - max(BEYOND * (high_share - asked) / slope, FINEST * asked), 0.5 * high)
    low_share = at[low].median
    if len(at) % 3 == 0 or high_share <= low_share:
        return (low + high) / 2
    straight = low + (asked - low_share) / (high_share - low_share) * (high - low)
    return min(max(straight, low + EDGE * (high - low)), high - EDGE * (high - low))
