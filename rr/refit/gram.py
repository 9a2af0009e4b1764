"""Gram matrices of what layers read, in float64, and the least squares that they solve."""

from __future__ import annotations

import torch
from torch import Tensor

from rr.refit.feed import check_finite
from rr.refit.processes import added_up
from rr.runtime import are_several

NEVER = 1e-6  # of the mean: rows with less count as if they had that
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of which the best one is taken


class Gram:
    """The mean of x'x over rows x with a one at their end, and of x'y for targets y; of two halves of the images.

    Args:
        is_halved: whether the halves are told apart.

    Attributes:
        count: rows so far.
    """

    def __init__(self, *, is_halved: bool = True) -> None:
        self._counts = [0, 0] if is_halved else [0]
        self._sums: list[tuple[Tensor, Tensor | None] | None] = [None for _ in self._counts]

    def add(self, rows: Tensor, targets: Tensor | None = None) -> None:
        """Take more rows in: [n, rows], and their targets [n, columns]; those of an image stand one after the other.

        Raises:
            InputError: if they aren't all finite.
        """
        parts = [slice(None)]
        if len(self._counts) == 2:
            middle = len(rows) // 2 if len(rows) > 1 else self._counts[0] > self._counts[1]
            parts = [slice(middle), slice(middle, None)]
        for half, part in enumerate(parts):
            self._add(half, rows[part], None if targets is None else targets[part])

    def _add(self, half: int, rows: Tensor, targets: Tensor | None) -> None:
        if not len(rows):
            return
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        products = [(rows.T @ rows).double(), None if targets is None else (rows.T @ targets.to(rows)).double()]
        check_finite(*(product for product in products if product is not None))
        self._counts[half] += len(rows)
        earlier = self._sums[half]
        if earlier is None:
            self._sums[half] = (products[0], products[1])
        else:
            for total, product in zip(earlier, products, strict=True):
                if product is not None:
                    total.add_(product)

    def add_up(self, rows: int, columns: int | None, like: Tensor) -> None:
        """Add what all processes have taken in together, in place.

        Args:
            rows: without the constant's.
            columns: of the targets; None: there are none.
            like: a tensor on their device.
        """
        if not are_several():
            return
        counts = added_up(torch.tensor(self._counts, device=like.device)).tolist()
        for half, count in enumerate(counts):
            if count:  # of the others' rows, where this process has none
                size = rows + 1
                zeros = [
                    like.new_zeros(size, each, dtype=torch.float64) for each in (size, columns) if each is not None
                ]
                xx, xy = self._sums[half] or (*zeros, None)[:2]
                self._sums[half] = added_up(xx), None if xy is None else added_up(xy)
        self._counts = counts

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def xx(self) -> Tensor:
        """[rows + 1, rows + 1], the mean of x'x."""
        return sum(sums[0] for sums in self._sums if sums is not None) / self.count

    @property
    def xy(self) -> Tensor:
        """[rows + 1, columns], the mean of x'y."""
        return sum(sums[1] for sums in self._sums if sums is not None) / self.count

    @property
    def halves(self) -> list[tuple[Tensor, Tensor | None]]:
        """The means of x'x and x'y of each half; none if one of them is empty."""
        if 0 in self._counts:
            return []
        return [
            (xx / count, None if xy is None else xy / count)
            for (xx, xy), count in zip(self._sums, self._counts, strict=True)
        ]


def regularised(xx: Tensor, ridge: float, has_constant: bool) -> Tensor:
    """The Gram matrix with a share of its diagonal added to that, so that it can be inverted.

    Each row counts in its own unit: a share of the mean would hold small ones fast and leave large ones free.

    Args:
        xx: [rows + 1, rows + 1], the last row and column those of the constant.
        ridge: the share.
        has_constant: whether a constant can be added to the outputs; without, its row and column are left out.
    """
    size = len(xx) - (not has_constant)
    system, pixels = xx[:size, :size].clone(), len(xx) - 1
    diagonal = system.diagonal()[:pixels]
    least = max(NEVER * float(diagonal.mean()), torch.finfo(torch.float64).tiny)  # for rows that are always 0
    diagonal += ridge * diagonal.clamp_min(least)
    return system


def fitted(xx: Tensor, xy: Tensor, anchor: Tensor, rows: Tensor, ridge: float) -> Tensor:
    """The least squares [rows + 1, columns] with some rows alone, drawn by the ridge towards what there is.

    Args:
        xx: [rows + 1, rows + 1], the mean of x'x.
        xy: [rows + 1, columns], the mean of x'y.
        anchor: [rows + 1, columns], what there is.
        rows: indices of those that may differ from 0.
        ridge: a share of the diagonal of `xx`.
    """
    system = regularised(xx, ridge, has_constant=True)
    right = xy + (system - xx).diagonal()[:, None] * anchor
    solution = torch.zeros_like(anchor)
    solution[rows] = solve(system[rows[:, None], rows], right[rows])
    return solution


def best_ridge(gram: Gram, anchor: Tensor, rows: Tensor, targets: Tensor | None = None) -> float:
    """The ridge with which each half of the images is best foretold by a fit on the other one.

    Args:
        gram: of both.
        anchor, rows: as `fitted` takes them.
        targets: [rows + 1, columns], a matrix that gives the targets, where `gram` has none.
    """
    halves = [(xx, xx @ targets if xy is None else xy) for xx, xy in gram.halves]
    if not halves:
        return RIDGES[-1]
    errors = dict.fromkeys(RIDGES, 0.0)
    for ridge in RIDGES:
        for (xx, xy), (other_xx, other_xy) in (halves, halves[::-1]):
            solution = fitted(xx, xy, anchor, rows, ridge)
            errors[ridge] += float((solution * (other_xx @ solution - 2 * other_xy)).sum())  # w'x'x w - 2 w'x'y
    return min(errors, key=errors.__getitem__)


def root_of(system: Tensor) -> Tensor:
    """The Cholesky factor L of LL'; of a matrix that isn't positive, with the least on its diagonal that mends it.

    Raises:
        InputError: if its values aren't finite, which nothing mends.
    """
    check_finite(system)
    jitter, scale = 0.0, float(system.diagonal().mean()) or 1.0
    while True:
        factor, failed = torch.linalg.cholesky_ex(system + jitter * scale * torch.eye(len(system)).to(system))
        if not failed:
            return factor
        jitter = max(10 * jitter, 1e-12)


def inverse_of(system: Tensor) -> Tensor:
    """The inverse of a positive matrix."""
    return torch.cholesky_inverse(root_of(system))


def solve(system: Tensor, right: Tensor) -> Tensor:
    """The solution W of system W = right, for a symmetric positive matrix."""
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:  # as good as singular: the least squares of least length
        return (
            torch.linalg.lstsq(system, right, driver="gelsd").solution
            if system.device.type == "cpu"
            else (torch.linalg.pinv(system, hermitian=True) @ right)
        )
    return torch.cholesky_solve(right, factor)
