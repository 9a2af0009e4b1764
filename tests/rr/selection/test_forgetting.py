"""Mask selection against the walk of section 3.3, row after row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr.graph.widths import least_widths
from rr.selection.forgetting import removable_in_order, select_forgotten


def walk(
    scores: np.ndarray, group: np.ndarray, sizes: np.ndarray, macs_of: object, target: float, least: int, limit: int
) -> np.ndarray:
    """Up the sorted list, row after row; rows of groups at their minimum are skipped and cost nothing."""
    widths, forgotten = sizes.copy(), np.zeros(len(scores), dtype=bool)
    for row in np.argsort(scores, kind="stable"):
        if macs_of(widths) <= target or forgotten.sum() >= limit:
            break
        if widths[group[row]] - 1 >= least:
            widths[group[row]] -= 1
            forgotten[row] = True
    return forgotten


def walk_in_multiples(
    scores: np.ndarray,
    group: np.ndarray,
    sizes: np.ndarray,
    macs_of: object,
    target: float,
    least: int,
    limit: int,
    multiples: np.ndarray,
    floor: int = 0,
) -> tuple[list[bool], int]:
    """The same, where a group may only have the widths listed for it: walked rows wait for the next of these."""
    candidates = np.bincount(group, minlength=len(sizes))
    allowed = [
        [
            w
            for w in range(size + 1)
            if w == size or (w % m == 0 and w >= min(least, size) and w >= size - count and (w == 0 or w >= floor))
        ]
        for size, m, count in zip(sizes, multiples, candidates, strict=True)
    ]
    walked: list[list[int]] = [[] for _ in sizes]

    def widths() -> list[int]:
        return [
            min(w for w in ws if w >= size - len(rows)) for ws, size, rows in zip(allowed, sizes, walked, strict=True)
        ]

    for row in np.argsort(scores, kind="stable"):
        if macs_of(np.array(widths())) <= target or sum(map(len, walked)) >= limit:
            break
        g = group[row]
        if len(walked[g]) < sizes[g] - min(allowed[g]):
            walked[g].append(row)
    gone = {row for rows, size, width in zip(walked, sizes, widths(), strict=True) for row in rows[: size - width]}
    return [row in gone for row in range(len(scores))], sum(map(len, walked))


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    """A chain of layers with whole-number MACs, some of whose rows are candidates, with equal scores among them."""
    sizes = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=6)))
    candidates = [draw(st.integers(0, size)) for size in sizes]
    group = np.repeat(np.arange(len(sizes)), candidates)
    group = group[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(group))]
    scores = np.array(draw(st.lists(st.integers(0, 5), min_size=len(group), max_size=len(group))), dtype=float)
    costs = np.array(draw(st.lists(st.integers(0, 5), min_size=len(sizes) + 1, max_size=len(sizes) + 1)))

    def macs_of(widths: np.ndarray) -> float:
        return float((costs * np.concatenate([[3], widths]) * np.concatenate([widths, [2]])).sum())

    full = macs_of(sizes)
    return {
        "scores": scores,
        "group": group,
        "sizes": sizes,
        "macs_of": macs_of,
        "target": draw(st.floats(0, 1.1)) * full,
        "least": draw(st.integers(1, 3)),
        "limit": draw(st.integers(0, len(group) + 2)),
    }


def select(
    problem: dict[str, object], multiples: np.ndarray | int = 1, floors: int = 0, **changes: object
) -> tuple[np.ndarray, int]:
    p = problem | changes
    return select_forgotten(
        p["scores"],
        p["group"],
        p["sizes"],
        lambda widths: p["macs_of"](widths) <= p["target"],
        min_width=p["least"],
        limit=p["limit"],
        multiples=multiples,
        floors=floors,
    )


def widths_without(problem: dict[str, object], forgotten: np.ndarray) -> np.ndarray:
    return problem["sizes"] - np.bincount(problem["group"][forgotten], minlength=len(problem["sizes"]))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(problems())
def test_selection_is_the_walk(problem: dict[str, object]) -> None:
    forgotten, walked = select(problem)
    assert forgotten.tolist() == walk(**problem).tolist()
    assert walked == forgotten.sum()  # so the allowance of the next update is the paper's: forgotten + granularity


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(problems(), st.lists(st.integers(1, 4), min_size=6, max_size=6))
def test_selection_in_multiples_is_the_walk(problem: dict[str, object], multiples: list[int]) -> None:
    per_group = np.array(multiples[: len(problem["sizes"])])
    forgotten, walked = select(problem, per_group)
    assert (forgotten.tolist(), walked) == walk_in_multiples(**problem, multiples=per_group)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(problems(), st.lists(st.integers(1, 3), min_size=6, max_size=6), st.integers(1, 5))
def test_a_group_keeps_its_floor_or_goes_altogether(
    problem: dict[str, object], multiples: list[int], floor: int
) -> None:
    per_group = np.array(multiples[: len(problem["sizes"])])
    leaving = problem | {"least": 0}
    forgotten, walked = select(leaving, per_group, floor)
    assert (forgotten.tolist(), walked) == walk_in_multiples(**leaving, multiples=per_group, floor=floor)
    widths = widths_without(problem, forgotten)
    assert ((widths == 0) | (widths >= np.minimum(floor, problem["sizes"]))).all()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(problems(), st.lists(st.integers(1, 4), min_size=6, max_size=6), st.integers(1, 3))
def test_updates_in_multiples_never_stall(problem: dict[str, object], multiples: list[int], granularity: int) -> None:
    """A few more rows each time, with the waiting ones carried on, ends where a walk without a limit does."""
    per_group, walked = np.array(multiples[: len(problem["sizes"])]), 0
    for _ in range(len(problem["scores"]) + 1):
        forgotten, walked = select(problem, per_group, limit=walked + granularity)
    unlimited, _ = select(problem, per_group, limit=len(problem["scores"]))
    assert forgotten.tolist() == unlimited.tolist()
    widths = widths_without(problem, forgotten)
    assert ((widths % per_group == 0) | (widths == problem["sizes"])).all()
    least = least_widths(problem["group"], problem["sizes"], min_width=problem["least"], multiples=per_group)
    reachable = problem["macs_of"](least) <= problem["target"]
    assert (problem["macs_of"](widths) <= problem["target"]) == reachable


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(problems())
def test_a_larger_budget_only_adds_and_the_minimum_holds(problem: dict[str, object]) -> None:
    forgotten = np.zeros(len(problem["scores"]), dtype=bool)
    for limit in range(len(forgotten) + 1):
        more, _ = select(problem, limit=limit)
        assert more[forgotten].all()
        assert more.sum() <= limit
        forgotten = more
    assert (widths_without(problem, forgotten) >= np.minimum(problem["sizes"], problem["least"])).all()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(problems())
def test_least_macs_are_those_without_limit_or_target(problem: dict[str, object]) -> None:
    forgotten, _ = select(problem, target=-1.0, limit=len(problem["scores"]))
    widths = widths_without(problem, forgotten)
    least = least_widths(problem["group"], problem["sizes"], min_width=problem["least"])
    assert problem["macs_of"](least) == problem["macs_of"](widths)


def test_ties_go_by_position() -> None:
    scores, group, sizes = np.ones(6), np.array([0, 0, 0, 1, 1, 1]), np.array([3, 3])
    assert removable_in_order(scores, group, sizes, 1).tolist() == [0, 1, 3, 4]
    assert removable_in_order(scores, group, sizes, 2).tolist() == [0, 3]
    assert removable_in_order(scores, group, sizes, 4).tolist() == []


def test_the_highest_rows_of_a_layer_stay() -> None:
    scores, group = np.array([0.1, 0.2, 0.3, 5.0, 6.0]), np.array([0, 0, 0, 1, 1])
    forgotten, _ = select_forgotten(scores, group, np.array([3, 2]), lambda _: False, min_width=1, limit=3)
    assert forgotten.tolist() == [True, True, False, True, False]  # the skipped third row used up nothing


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_a_reached_target_forgets_nothing(limit: int) -> None:
    forgotten, _ = select_forgotten(
        np.ones(4), np.zeros(4, dtype=int), np.array([4]), lambda w: w.sum() <= 4, min_width=1, limit=limit
    )
    assert not forgotten.any()


def test_selection_among_ten_thousand_rows_asks_a_dozen_times() -> None:
    """The costs are what takes time in a large network: a bisection of 9,000 rows asks for them 14 times, and once."""
    rng = np.random.default_rng(0)
    sizes = np.full(50, 200)
    group, scores, asked = np.repeat(np.arange(50), sizes), rng.random(10_000), []

    def is_met(widths: np.ndarray) -> bool:
        asked.append(widths)
        return (widths[1:] * widths[:-1]).sum() <= 1e6

    forgotten, _ = select_forgotten(scores, group, sizes, is_met, min_width=1, limit=9_000)
    assert 0 < forgotten.sum() < 9_000
    assert len(asked) <= 15
