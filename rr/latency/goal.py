"""A target of time: the networks that are tried for it, and what was found."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from rr.conversion import fold, with_unfoldable
from rr.copies import copy_of
from rr.errors import InputError
from rr.graph import Inputs, LiveModel
from rr.latency.rounds import spread
from rr.latency.search import TOLERANCE, Measure, Tried, is_slow, search
from rr.latency.settings import Timing
from rr.latency.stopwatch import Stopwatch, TimeShares, image_shape
from rr.runtime import of_first

MULTIPLES = (8, 4, 2, 1)  # of widths, the first one that does: runtimes fill their vectors with 8 channels or 16
BUILDS, BUILD_S = 4, 2.0  # how many times both networks are made ready to measure a result, and for how long each

AliveAt = Callable[[float, int], np.ndarray]  # share of the MACs, multiple of the widths -> [num_units], who stays

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatencyGoal:
    """What share of the full network's time the narrow one is to take, and where.

    Attributes:
        asked: the share, both networks with BN folded.
        timing: where it is measured; or a function that measures it (`TimeShares`), on another device, say.
        multiples: what widths are multiples of: the first one with which the target can be reached.

    Raises:
        InputError: if the share isn't over 0 and under 1.
    """

    asked: float
    timing: Timing | TimeShares = field(default_factory=Timing)
    multiples: tuple[int, ...] = MULTIPLES

    def __post_init__(self) -> None:
        if not 0 < self.asked < 1:
            raise InputError(
                f"latency_target is {self.asked}: give a share of the full network's time, over 0 and under 1"
            )
        if not isinstance(self.timing, Timing) and not callable(self.timing):
            raise InputError(f"timing must be a Timing or a function that measures, not {type(self.timing).__name__}")

    @property
    def where(self) -> str:
        """Where it is measured, in words."""
        return str(self.timing) if isinstance(self.timing, Timing) else "as your function measures it"

    def stopwatch(self, example_inputs: Inputs) -> TimeShares:
        """What measures it.

        Raises:
            InputError: if the network takes anything but images, or this machine can't run it like that.
        """
        if isinstance(self.timing, Timing):
            return Stopwatch(self.timing, image_shape(example_inputs))
        return self.timing


@dataclass(frozen=True)
class LatencyReport:
    """What share of the full network's time the narrow one takes.

    Attributes:
        asked: the share that was asked for.
        median, low, high: of the measured shares, over the rounds: the median and the quartiles.
        rounds: how many.
        macs_share: of the full network's MACs.
        width_multiple: what the widths are multiples of.
        tried: how many networks were timed on the way.
        where: runtime, precision, threads and batch; empty for a function of one's own.
    """

    asked: float
    median: float
    low: float
    high: float
    rounds: int
    macs_share: float
    width_multiple: int
    tried: int
    where: dict[str, Any]

    @property
    def is_slow(self) -> bool:
        """Whether it takes more than was asked for, by more than `TOLERANCE` of it."""
        return is_slow(self.median, self.asked)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        where = str(Timing(**self.where)) if self.where else "as your function measures it"
        return (
            f"{self.median:.1%} of the full network's time ({where}; quartiles {self.low:.1%} and {self.high:.1%} over "
            f"{self.rounds} rounds, BN folded in both), {self.asked:.1%} was asked for; {self.macs_share:.1%} of the "
            f"MACs, widths in multiples of {self.width_multiple}"
        )


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        bound: the share of the MACs to ask for.
        multiple: what widths are to be multiples of.
        tried: the networks that were timed with it, the nearest first.
    """

    bound: float
    multiple: int
    tried: list[Tried]


class LatencySearch:
    """Looks for the network that takes the share of the time.

    Args:
        goal: what is asked.
        live: the network, with compactors; its weights as they are now make the full network of all comparisons.
        example_inputs: what it is called with.

    Raises:
        InputError: as `LatencyGoal.stopwatch` does.
    """

    def __init__(self, goal: LatencyGoal, live: LiveModel, example_inputs: Inputs) -> None:
        self.goal, self._live, self._inputs = goal, live, example_inputs
        self._stopwatch = goal.stopwatch(example_inputs)
        self._full = _folded(live, np.ones(live.graph.num_units, dtype=bool))
        self._made: tuple[bytes, nn.Module] | None = None
        self._timed = 0

    def find(
        self, alive_at: AliveAt, least_at: Callable[[int], float], most: float = 1.0, near: Found | None = None
    ) -> Found:
        """The share of the MACs at which the network takes the share of the time that was asked for.

        Args:
            alive_at: the network for a share of the MACs and a multiple of the widths.
            least_at: the least share of the MACs that can be reached with a multiple.
            most: the largest share of the MACs that may be kept.
            near: what was found before for nearly the same networks, to begin with; no coarser multiples are tried.

        Raises:
            InputError: if even the narrowest network takes more time, by over `TOLERANCE` of what was asked.
        """
        best, start = None, near.bound if near else self.goal.asked
        for multiple in (each for each in self.goal.multiples if near is None or each <= near.multiple):
            found = self._find(multiple, alive_at, (start, least_at(multiple), most))
            if best is None or self._off(found) < self._off(best):
                best = found
            nearest = best.tried[0]
            if nearest.off(self.goal.asked) - 2 * nearest.error / self.goal.asked <= TOLERANCE:
                break  # or what it is off by may be chance, which finer steps don't mend
            start = best.bound
        if self._off(best) > TOLERANCE:
            self._check_is_reached(best, alive_at)
            logger.info(
                "%.1f%% of the time was asked for, the nearest network takes %.1f%%",
                100 * self.goal.asked,
                100 * best.tried[0].median,
            )
        return best

    def share_of(self, alive: np.ndarray) -> float:
        """The share of the time that the network of these units ([num_units] of bool) takes."""
        measure = self._measure_of(alive)
        tried = Tried(1.0, alive.tobytes())
        while not tried.is_known(self.goal.asked):
            tried.shares.append(measure(tried.seconds))
        return tried.median

    def report(self, slim: nn.Module, macs_share: float, multiple: int) -> LatencyReport:
        """Measure the converted network itself, exported anew; in this process alone.

        Args:
            slim: the network.
            macs_share: of the full one's.
            multiple: what its widths are multiples of.
        """
        stopwatch, narrow = self.goal.stopwatch(self._inputs), copy_of(slim).cpu().float().eval()
        shares = [share for _ in range(BUILDS) for share in _checked(stopwatch(self._full, narrow, BUILD_S))]
        found = spread(shares)
        timing = self.goal.timing
        report = LatencyReport(
            asked=self.goal.asked,
            median=found.median,
            low=found.low,
            high=found.high,
            rounds=len(shares),
            macs_share=macs_share,
            width_multiple=multiple,
            tried=self._timed,
            where=asdict(timing) if isinstance(timing, Timing) else {},
        )
        if report.is_slow:
            logger.warning("the converted network takes %s", report)
        return report

    def _off(self, found: Found) -> float:
        return found.tried[0].off(self.goal.asked)

    def _find(self, multiple: int, alive_at: AliveAt, bounds: tuple[float, float, float]) -> Found:
        def network_at(bound: float) -> tuple[bytes, Measure]:
            alive = alive_at(bound, multiple)
            return alive.tobytes(), self._measure_of(alive)

        tried = search(self.goal.asked, *bounds, network_at)
        self._timed += len(tried)
        return Found(tried[0].bound, multiple, tried)

    def _measure_of(self, alive: np.ndarray) -> Measure:
        """How the network of these units is timed; no more than the last one is held."""
        key = alive.tobytes()

        def measure(seconds: float) -> list[float]:
            if self._made is None or self._made[0] != key:
                self._made = key, _folded(self._live, alive)
            narrow = self._made[1]
            shares = of_first(lambda: _checked(self._stopwatch(self._full, narrow, seconds)))
            macs = self._live.graph.macs
            logger.info(
                "%.1f%% of the MACs: %.1f%% of the time (%s)",
                100 * macs(alive) / macs.full,
                100 * spread(shares).median,
                self.goal.where,
            )
            return shares

        return measure

    def _check_is_reached(self, best: Found, alive_at: AliveAt) -> None:
        """Check that not all networks that were tried are too slow."""
        shares = {tried.bound: tried.median for tried in best.tried}
        if min(shares.values()) <= self.goal.asked:
            return
        bound, share = min(shares.items(), key=lambda item: item[1])
        macs = self._live.graph.macs
        kept = macs(alive_at(bound, best.multiple)) / macs.full
        raise InputError(
            f"latency_target {self.goal.asked:g} can't be reached ({self.goal.where}): the least is {share:.1%} of the "
            f"full network's time, at {kept:.1%} of its MACs, with every chosen layer at its least width. Raise it, or "
            "let more layers be pruned (layers='all')"
        )


def _folded(live: LiveModel, alive: np.ndarray) -> nn.Module:
    """The network of these units with BN folded, in float32."""
    return fold(live, *with_unfoldable(live, alive)).float()


def _checked(shares: Sequence[float]) -> list[float]:
    """What a function of a person's own measured, if that can be shares of a time.

    Raises:
        InputError: if not.
    """
    found = [float(share) for share in shares]
    if len(found) < 2 or not all(0 < share < math.inf for share in found):
        raise InputError(
            f"timing returned {found}: it must return the narrow network's time over the full one's, a number above 0 "
            "for each of at least two rounds"
        )
    return found
