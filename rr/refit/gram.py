"""Gram matrices of what layers read, in float64, and the least squares that they solve."""

from __future__ import annotations

import torch
from torch import Tensor

from rr.refit.feed import check_finite


class Gram:
    """The mean of x'x over rows x with a one at their end, and of x'y for targets y.

    Attributes:
        count: rows so far.
        xx: [rows + 1, rows + 1], the mean of x'x.
        xy: [rows + 1, columns], the mean of x'y; None without targets.
    """

    def __init__(self) -> None:
        self.count = 0
        self._xx: Tensor | None = None
        self._xy: Tensor | None = None

    def add(self, rows: Tensor, targets: Tensor | None = None) -> None:
        """Take more rows in: [n, rows], and their targets [n, columns].

        Raises:
            InputError: if they aren't all finite.
        """
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        products = [(rows.T @ rows).double(), None if targets is None else (rows.T @ targets.to(rows)).double()]
        check_finite(*(product for product in products if product is not None))
        self.count += len(rows)
        self._xx = products[0] if self._xx is None else self._xx.add_(products[0])
        if products[1] is not None:
            self._xy = products[1] if self._xy is None else self._xy.add_(products[1])

    @property
    def xx(self) -> Tensor:
        return self._xx / self.count

    @property
    def xy(self) -> Tensor | None:
        return None if self._xy is None else self._xy / self.count


def regularised(xx: Tensor, ridge: float, has_constant: bool) -> Tensor:
    """The Gram matrix with a share of its mean diagonal added to it, so that it can be inverted.

    Args:
        xx: [rows + 1, rows + 1], the last row and column those of the constant.
        ridge: the share.
        has_constant: whether a constant can be added to the outputs; without, its row and column are left out.
    """
    size = len(xx) - (not has_constant)
    system, pixels = xx[:size, :size].clone(), len(xx) - 1
    scale = system.diagonal()[:pixels].mean()
    system.diagonal()[:pixels] += ridge * scale + torch.finfo(torch.float64).tiny + 1e-12 * (scale == 0)
    return system


def inverse_of(system: Tensor) -> Tensor:
    """The inverse of a positive matrix; of one that rounding has made no longer that, with the least that mends it."""
    jitter, scale = 0.0, float(system.diagonal().mean())
    while True:
        factor, failed = torch.linalg.cholesky_ex(system + jitter * scale * torch.eye(len(system)).to(system))
        if not failed:
            return torch.cholesky_inverse(factor)
        jitter = max(10 * jitter, 1e-12)


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
