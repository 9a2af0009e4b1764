"""Which units go: those whose loss is the least for what they cost, with all that reads them refitted.

For a layer Y = X W that is to give what it gave with some rows of X gone, the least squares refit loses, when the block
c of rows goes, tr(W_c' [(H^-1)_cc]^-1 W_c) with H the mean of x'x: the optimal brain surgeon by blocks (Hassibi & Stork
1993; Frantar & Alistarh 2022; Kurtic et al. 2023, ZipLM). Errors of the outputs count by the task's Fisher matrix there
(`rr.refit.fisher`; Martens & Grosse 2015, K-FAC), so losses of all layers are on one scale and add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rr.graph import CostOfWidths
from rr.graph.widths import PerGroup
from rr.refit.gram import inverse_of
from rr.selection.prices import relative_unit_costs


class Surgeon:
    """One layer, with the loss of each unit that it reads.

    Args:
        units: [rows], the unit of each row of the layer's matrix.
        candidates: the units that may go.
        system: [rows, rows], or with one row more for a constant: the mean of x'x, invertible.
        matrix: [rows, columns], the layer's own.
        root: [outputs, outputs], a root of the Fisher matrix F in the outputs: F = root root'. A transposed
            convolution's matrix has a column for each tap of an output, one after the other.
    """

    def __init__(self, units: np.ndarray, candidates: set[int], system: Tensor, matrix: Tensor, root: Tensor) -> None:
        self._rows = {unit: np.flatnonzero(units == unit) for unit in np.unique(units).tolist() if unit in candidates}
        constant = matrix.new_zeros(len(system) - len(matrix), matrix.shape[1])
        by_tap = matrix.unflatten(1, (len(root), -1)).transpose(1, 2)  # [rows, taps, outputs]
        weighted = (by_tap @ root).flatten(1)
        self._inverse, self._matrix = inverse_of(system), torch.cat([weighted, constant])

    @property
    def units(self) -> list[int]:
        """Those that may go and are still there."""
        return list(self._rows)

    def losses(self) -> dict[int, float]:
        """Unit -> what its going would lose, with all others that are still there refitted."""
        by_size: dict[int, list[int]] = {}
        for unit, rows in self._rows.items():
            by_size.setdefault(len(rows), []).append(unit)
        found = {}
        for units in by_size.values():
            rows = torch.from_numpy(np.stack([self._rows[unit] for unit in units])).to(self._inverse.device)
            blocks = self._inverse[rows[:, :, None], rows[:, None, :]]  # [units, taps, taps]
            own = self._matrix[rows]  # [units, taps, columns]
            lost = (own * torch.linalg.solve(blocks, own)).sum((1, 2))
            found |= dict(zip(units, lost.tolist(), strict=True))
        return found

    def remove(self, unit: int) -> None:
        """Let a unit go: the others take over what they can."""
        rows = torch.from_numpy(self._rows.pop(unit)).to(self._inverse.device)
        columns = self._inverse[:, rows]
        shares = torch.linalg.solve(self._inverse[rows[:, None], rows], columns.T).T  # [rows, taps]
        self._matrix -= shares @ self._matrix[rows]
        self._inverse -= shares @ columns.T


class Elimination:
    """The units that go, in this order: each time the one that loses least for what it costs.

    The order is found as far as it is asked for, and a second question begins with what is known.

    Args:
        surgeons: of the layers that read candidates; theirs to change from now on.
        alive: [num_units] of bool, those that are there at the start.
        candidates: [num_units] of bool, those that may go.
        cost: what units are weighed against.
        least: units that each group keeps.
    """

    def __init__(
        self,
        surgeons: Sequence[Surgeon],
        alive: np.ndarray,
        candidates: np.ndarray,
        cost: CostOfWidths,
        least: PerGroup,
    ) -> None:
        self._cost, self._widths = cost, cost.group_widths(alive)
        self._gone: list[int] = []
        self._steps = _steps(surgeons, alive.copy(), candidates, cost, least)

    def until(self, met: Callable[[np.ndarray], bool]) -> list[int]:
        """The units that go until the target is met, or nobody else may go.

        Args:
            met: whether live units per group ([groups]) meet it.
        """
        widths, count = self._widths.copy(), 0
        while not met(widths):
            if count == len(self._gone):
                unit = next(self._steps, None)
                if unit is None:
                    break
                self._gone.append(unit)
            widths[self._cost.group_of_unit[self._gone[count]]] -= 1
            count += 1
        return self._gone[:count]


def _steps(
    surgeons: Sequence[Surgeon], alive: np.ndarray, candidates: np.ndarray, cost: CostOfWidths, least: PerGroup
) -> Iterator[int]:
    """One unit after the other; `alive` is changed in place."""
    readers: dict[int, list[int]] = {}
    lost = np.zeros((len(surgeons), len(alive)))
    for position, surgeon in enumerate(surgeons):
        for unit, loss in surgeon.losses().items():
            lost[position, unit] = loss
            readers.setdefault(unit, []).append(position)
    widths = cost.group_widths(alive)
    floors = np.broadcast_to(np.asarray(least), widths.shape)
    while len(may_go := np.flatnonzero(alive & candidates & (widths > floors)[cost.group_of_unit])):
        costs = _costs(cost, widths)
        scores = lost[:, may_go].sum(0) / costs[cost.group_of_unit[may_go]]
        unit = int(may_go[scores.argmin()])
        alive[unit] = False
        widths[cost.group_of_unit[unit]] -= 1
        yield unit
        for position in readers.get(unit, ()):
            surgeons[position].remove(unit)
            lost[position] = 0.0
            for other, loss in surgeons[position].losses().items():
                lost[position, other] = loss


def _costs(cost: CostOfWidths, widths: np.ndarray) -> np.ndarray:
    """[groups]: what a unit of each costs at these widths."""
    return relative_unit_costs(cost, widths, np.arange(len(widths)))
