"""The bisection on functions of the MACs: no clock is read, and what is found is judged by the function itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rr.latency.search import MOST, TOLERANCE, search

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "as the MACs": lambda macs: macs,
    "with what no width changes": lambda macs: 0.3 + 0.7 * macs,
    "slow to fall": lambda macs: macs**0.4,
    "quick to fall": lambda macs: macs**3,
    "of a cliff": lambda macs: 0.2 * macs if macs < 0.43 else 0.5 + 0.5 * macs,
}


class Networks:
    """Networks whose time is a function of their MACs, with steps and noise."""

    def __init__(self, share: Callable[[float], float], step: float, noise: float, seed: int) -> None:
        self.share, self.step, self.noise = share, step, noise
        self.random, self.tried, self.seconds = np.random.default_rng(seed), [], 0.0

    def macs(self, bound: float) -> float:
        return bound if self.step == 0 else max(np.floor(bound / self.step + 1e-9), 1) * self.step

    def at(self, bound: float) -> tuple[bytes, Callable[[float], Sequence[float]]]:
        macs = self.macs(bound)
        self.tried.append(macs)

        def measure(seconds: float) -> list[float]:
            self.seconds += seconds
            made_ready = 1 + 0.2 * self.noise * self.random.standard_normal()
            return list(self.share(macs) * made_ready * self.random.lognormal(0, self.noise, round(20 * seconds)))

        return np.float64(macs).tobytes(), measure


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("step", [0.0, 0.013])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "of a cliff"])
def test_what_is_found_takes_what_was_asked_for(name: str, step: float, noise: float) -> None:
    share = FUNCTIONS[name]
    for seed, asked in itertools.product(range(3), (0.4, 0.5, 0.7, 0.9)):
        networks = Networks(share, step, noise, seed)
        best, *_ = search(asked, asked, 0.01, 1.0, networks.at)
        steps = [share(count * step) for count in range(1, 78)] if step else [asked]
        nearest = min(abs(each / asked - 1) for each in steps)  # that there is
        assert abs(share(networks.macs(best.bound)) / asked - 1) <= TOLERANCE + nearest
        assert len(set(networks.tried)) <= MOST


def test_it_is_measured_for_longer_the_nearer_it_is() -> None:
    networks = Networks(FUNCTIONS["as the MACs"], 0, 0.05, 0)
    best, *others = search(0.5, 0.9, 0.01, 1.0, networks.at)
    far = max(others, key=lambda tried: tried.off(0.5))
    assert len(far.shares) == 1 < len(best.shares)
    assert far.off(0.5) > 0.5
    assert networks.seconds < 100


def test_where_time_jumps_the_nearest_side_is_found() -> None:
    networks = Networks(FUNCTIONS["of a cliff"], 0, 0.0, 0)
    best, *_ = search(0.5, 0.5, 0.01, 1.0, networks.at)
    assert best.median == pytest.approx(0.715, abs=0.01) or best.median == pytest.approx(0.086, abs=0.005)
    assert len(networks.tried) <= 3 * MOST


def test_the_least_is_tried_before_anything_is_called_too_slow() -> None:
    networks = Networks(FUNCTIONS["with what no width changes"], 0, 0.02, 0)
    tried = search(0.3, 0.3, 0.1, 1.0, networks.at)
    assert min(one.bound for one in tried) == 0.1
    assert all(one.median > 0.3 for one in tried)


def test_no_more_macs_are_kept_than_may_be() -> None:
    networks = Networks(FUNCTIONS["as the MACs"], 0, 0.0, 0)
    best, *_ = search(0.7, 0.7, 0.01, 0.4, networks.at)
    assert best.bound == 0.4
    assert set(networks.tried) == {0.4}
