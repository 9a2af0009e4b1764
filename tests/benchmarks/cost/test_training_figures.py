"""What follows from times of training steps: ratios of pairs, whole runs, bars."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cost.training_figures import (
    FLOOR,
    FULL,
    PLAIN,
    ROWS,
    SHARES,
    VARIANTS,
    bars,
    paired_ratio,
    whole_run,
    whole_runs,
)


def test_ratios_are_of_pairs() -> None:
    """A machine that is slow in one round is so for both."""
    times = [{PLAIN: 1.0, ROWS: 0.8}, {PLAIN: 10.0, ROWS: 8.0}, {PLAIN: 2.0, ROWS: 1.8}]
    found = paired_ratio(times, ROWS)
    assert found["median"] == pytest.approx(0.8)
    assert found["quartiles"] == pytest.approx([0.8, 0.85])
    assert paired_ratio(times, PLAIN, over=ROWS)["median"] == pytest.approx(1.25)


@pytest.mark.parametrize("share", [0.1, 1 / 3, 1.0])
def test_a_whole_run_is_the_mean_over_its_steps(share: float) -> None:
    progress, ratios = [0.0, 0.2, 0.7, 1.0], [1.15, 1.1, 0.8, 0.7]
    steps = (np.arange(1_000_000) + 0.5) / 1_000_000
    by_hand = np.interp(np.minimum(steps / share, 1), progress, ratios).mean()
    assert whole_run(progress, ratios, share) == pytest.approx(by_hand, abs=1e-6)


def test_a_whole_run_needs_the_whole_way_to_the_target() -> None:
    for progress in ([0.0], [0.1, 1.0], [0.0, 0.9]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            whole_run(progress, [1.0] * len(progress), 0.5)
    with pytest.raises(ValueError, match="share"):
        whole_run([0.0, 1.0], [1.0, 1.0], 0.0)


def test_what_comes_between_the_steps_counts() -> None:
    points = [
        {"progress": at, "ratios": {name: {"median": ratio} for name in VARIANTS[1:]}}
        for at, ratio in ((0.0, 1.0), (1.0, 0.5))
    ]
    found = whole_runs(points, {ROWS: 0.01, FULL: 0.02})
    assert set(found) == {ROWS, FULL, FLOOR}
    assert found[FLOOR] == pytest.approx({"a third": 0.75 / 3 + 0.5 * 2 / 3, "a tenth": 0.075 + 0.45})
    for name in SHARES:
        assert found[ROWS][name] == pytest.approx(found[FLOOR][name] + 0.01)
        assert found[FULL][name] == pytest.approx(found[FLOOR][name] + 0.02)


@pytest.mark.parametrize(
    ("no_narrowing", "over_floor", "third", "tenth", "expected"),
    [
        (1.10, 1.03, 0.90, 0.82, [True, True, True, True]),
        (1.11, 1.03, 0.90, 0.82, [False, True, True, True]),
        (1.10, 1.04, 0.90, 0.82, [True, False, True, True]),
        (1.10, 1.03, 0.91, 0.82, [True, True, False, True]),
        (1.10, 1.03, 0.90, 0.83, [True, True, True, False]),
    ],
)
def test_each_bar_is_its_own(
    no_narrowing: float, over_floor: float, third: float, tenth: float, expected: list[bool]
) -> None:
    others = {"a third": 0.5, "a tenth": 0.5}
    figures = {
        "no_narrowing": {"median": no_narrowing},
        "over_floor": {FULL: {"median": over_floor}, ROWS: {"median": 0.5}},
        "whole_run": {FLOOR: others, ROWS: others, FULL: {"a third": third, "a tenth": tenth}},
    }
    assert list(bars(figures).values()) == expected
