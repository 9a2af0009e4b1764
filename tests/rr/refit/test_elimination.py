"""The optimal brain surgeon by blocks against refits by plain least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rr.graph.costs import MacsOfWidths
from rr.graph.layers import Group, Layer, LayerKind
from rr.refit.elimination import Elimination, Surgeon
from rr.refit.gram import Gram, regularised, solve

UNITS, TAPS, OUTPUTS = 6, 3, 4


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that depend on each other, a matrix, and a root of the outputs' Fisher matrix."""
    torch.manual_seed(seed)
    mixed = torch.randn(UNITS * TAPS, UNITS * TAPS) * 0.5 + torch.eye(UNITS * TAPS)
    rows = (torch.randn(500, UNITS * TAPS) @ mixed + 0.3).double()
    return rows, torch.randn(UNITS * TAPS, OUTPUTS).double(), torch.rand(OUTPUTS, OUTPUTS).tril().double()


def refit_loss(rows: Tensor, matrix: Tensor, root: Tensor, left: list[int], constant: bool) -> float:
    """Mean squared error of the best fit with the rows of these units alone."""
    kept = [unit * TAPS + tap for unit in left for tap in range(TAPS)]
    inputs = torch.cat([rows[:, kept], rows.new_ones(len(rows), int(constant))], 1)
    targets = rows @ matrix
    error = targets - inputs @ torch.linalg.lstsq(inputs, targets).solution
    return float((error @ root).square().sum() / len(rows))


def surgeon(rows: Tensor, matrix: Tensor, root: Tensor, constant: bool) -> Surgeon:
    gram = Gram()
    gram.add(rows[:200])
    gram.add(rows[200:])
    units = np.repeat(np.arange(UNITS), TAPS)
    return Surgeon(units, set(range(UNITS)), regularised(gram.xx, 1e-12, constant), matrix, root)


@pytest.mark.parametrize("constant", [False, True])
def test_losses_are_those_of_refits_one_after_the_other(constant: bool) -> None:
    rows, matrix, root = problem()
    found = surgeon(rows, matrix, root, constant)
    left, lost = list(range(UNITS)), 0.0
    for gone in (3, 0, 5, 1):
        for unit, loss in found.losses().items():
            others = [other for other in left if other != unit]
            assert lost + loss == pytest.approx(refit_loss(rows, matrix, root, others, constant), rel=1e-6)
        lost += found.losses()[gone]
        found.remove(gone)
        left.remove(gone)
    assert sorted(found.units) == left


def cost_of_two_layers() -> MacsOfWidths:
    """Units 0 to 2 are one group, 3 to 5 another, which costs four times as much."""
    groups = [Group(np.arange(3), ("a",)), Group(np.arange(3, 6), ("b",))]
    fixed = np.array([6])
    layers = [
        Layer(name, LayerKind.CONV, (name,), units, np.zeros(1, dtype=np.int64) + 6, macs)
        for name, units, macs in (("a", np.arange(3), 10), ("b", np.arange(3, 6), 40))
    ]
    return MacsOfWidths(layers, [*groups, Group(fixed, ())], 7, 150)


def test_the_cheapest_loss_for_its_cost_goes_first_and_the_least_width_stays() -> None:
    rows, matrix, root = problem(1)
    cost, alive = cost_of_two_layers(), np.ones(7, dtype=bool)
    candidates = alive.copy()
    candidates[6] = False
    elimination = Elimination([surgeon(rows, matrix, root, True)], alive, candidates, cost, 1)
    some, gone = (elimination.until(lambda widths, most=most: widths.sum() <= most) for most in (5, 3))
    assert some == gone[:2] == elimination.until(lambda widths: widths.sum() <= 5)  # one order, whoever asks when
    left = list(range(UNITS))
    for unit in gone:
        groups = cost.group_of_unit
        may_go = [other for other in left if sum(groups[left] == groups[other]) > 1]
        now = refit_loss(rows, matrix, root, left, True)
        scores = {
            other: (refit_loss(rows, matrix, root, [each for each in left if each != other], True) - now)
            / (10 if other < 3 else 40)
            for other in may_go
        }
        assert unit == min(scores, key=scores.get)
        left.remove(unit)
    assert len(gone) == 4  # one of each group stays
    assert {int(cost.group_of_unit[unit]) for unit in left} == {0, 1}


def test_least_squares_of_singular_systems() -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, 5).double()  # fewer than unknowns
    targets = rows @ torch.randn(5, 2).double()
    gram = Gram()
    gram.add(rows, targets)
    solution = solve(regularised(gram.xx, 1e-9, True), gram.xy)
    torch.testing.assert_close(rows @ solution[:-1] + solution[-1], targets, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        solve(torch.zeros(3, 3).double(), torch.zeros(3, 2).double()), torch.zeros(3, 2).double()
    )
