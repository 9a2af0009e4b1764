"""What a fold in mid-run has to know besides means: the variances of a compactor's outputs, measured in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rr.compactors import Compactor

PASSES = 20  # training passes over which the variances of a fold are measured


class VarianceMeter:
    """The mean, over the training passes since it was made, of the variance of each of a compactor's outputs.

    Attributes:
        units: [D], the unit of each output.
        total: [D] of float32, the sum over the passes.
        passes: how many there were.
    """

    def __init__(self, compactor: Compactor, units: np.ndarray, state: Mapping[str, Any] | None = None) -> None:
        self.units = units
        self.passes = 0 if state is None else int(state["passes"])
        rows = compactor.pwc.weight
        self.total = torch.zeros(len(rows), device=rows.device) if state is None else state["total"].to(rows.device)
        self._handle = compactor.register_forward_hook(self._look)

    def mean_of(self, units: np.ndarray) -> Tensor:
        """[R] of float32, for those of the meter's units."""
        kept = torch.from_numpy(np.flatnonzero(np.isin(self.units, units)))
        return self.total[kept.to(self.total.device)] / self.passes

    def reset(self) -> None:
        """Begin again, without any pass."""
        self.passes, self.total = 0, torch.zeros_like(self.total)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is stopped between measuring and folding goes on with."""
        return {"passes": self.passes, "total": self.total.cpu()}

    def remove(self) -> None:
        """Stop measuring."""
        self._handle.remove()

    @torch.no_grad()
    def _look(self, compactor: Compactor, _: object, output: Tensor) -> None:
        if compactor.training:
            others = [dim for dim in range(output.dim()) if dim != compactor.channel_dim % output.dim()]
            self.total += output.detach().float().var(others, correction=0)
            self.passes += 1
