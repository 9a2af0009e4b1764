"""Calls timed in turn: by a clock that only they move on, so that nothing depends on the machine."""

from __future__ import annotations

import pytest

from rr.latency.rounds import BLOCK_S, LEAST_ROUNDS, WARM_UP, in_turn, spread


class Clock:
    """Time that passes only while a call runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, seconds: float) -> object:
        def call() -> None:
            self.now += seconds
            self.ran.append(name)

        return call


def test_blocks_are_as_long_for_each_and_every_other_round_is_reversed() -> None:
    clock = Clock()
    times = in_turn([clock.takes("a", 0.6 * BLOCK_S), clock.takes("b", 2 * BLOCK_S)], 0, clock)
    assert times == [pytest.approx([0.6 * BLOCK_S] * LEAST_ROUNDS), pytest.approx([2 * BLOCK_S] * LEAST_ROUNDS)]
    before = ["a"] * (WARM_UP + 1) + ["b"] * (WARM_UP + 1)
    assert clock.ran == before + ["a", "a", "b", "b", "a", "a"] * (LEAST_ROUNDS // 2) + ["a", "a", "b"]


def test_rounds_go_on_until_the_time_is_over() -> None:
    clock = Clock()
    times = in_turn([clock.takes("a", 1.5 * BLOCK_S)], 30 * BLOCK_S, clock)
    assert len(times[0]) in (20, 21)  # by rounding


def test_the_spread_is_the_middle_half() -> None:
    found = spread([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
