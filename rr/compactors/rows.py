"""All rows of all compactors together: their norms, penalty, gradient reset, proximal step and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rr.compactors.compactor import Compactor
from rr.config import ResRepConfig
from rr.errors import InputError
from rr.runtime import are_several

# Rows are scaled by this power of two (exactly) before they are squared: norms from 1e-30 to 1e3 neither
# underflow nor overflow in float32.
_SCALE = 2.0**50
_SMALLEST_SCALED_NORM = 1e-20  # below every such norm, and far enough above 0 that no quotient overflows

# Products of each compactor, norms [rows], units [rows], masks [rows]: as `TaylorScores.observe` takes.
Observer = Callable[[Sequence[Tensor], Tensor, Tensor, Tensor], None]


class CompactorRows:
    """The rows of several compactors, one after the other.

    A unit that p layers make has p rows, one mask bit and one norm: the root mean square over its rows, so that p = 1
    is the paper's rule.

    Args:
        compactors: the compactors.
        units: of each compactor [D], the unit of each row.
        selected: [num_units] of bool, the units to prune; rows of others are left alone.
        config: how masked rows go to zero (`decay`), and whether compactors keep what each image's own gradient is, for
            `adjust_gradients`' observer (`selection.by_image`).

    Attributes:
        weights: the compactors' parameters.
    """

    def __init__(
        self, compactors: Sequence[Compactor], units: Sequence[np.ndarray], selected: np.ndarray, config: ResRepConfig
    ) -> None:
        self._compactors, self._decay = list(compactors), config.decay
        self.weights: list[nn.Parameter] = [compactor.pwc.weight for compactor in compactors]
        self._sizes = [len(part) for part in units]
        self._all_units = np.concatenate(units)
        self._is_selected = selected[self._all_units]
        distinct, positions, counts = np.unique(self._all_units, return_inverse=True, return_counts=True)
        for compactor in self._compactors:
            compactor.image_products = [] if config.selection.by_image else None
        self._share_units = len(distinct) < len(self._all_units)
        self._positions, self._counts = positions, counts
        self._put_on_device()

    def _put_on_device(self) -> None:
        anchor = self.weights[0]
        self._units = torch.from_numpy(self._all_units).to(anchor.device)
        self._row_units = torch.from_numpy(self._positions).to(anchor.device)
        self._unit_rows = torch.from_numpy(self._counts).to(anchor.device, anchor.dtype)
        self._penalised = torch.from_numpy(self._is_selected).to(anchor.device, anchor.dtype)

    @torch.no_grad()
    def adjust_gradients(self, scale: Tensor | float = 1.0, observe: Observer | None = None) -> None:
        """grad(q_i) = m_i dL/dq_i + lambda q_i / |q_i|, in place (0 for a row that is 0; section 3.3).

        lambda is `penalty`; for masked rows it is `masked_penalty` where that is given, and 0 where the proximal step
        takes its place. A compactor that is frozen at present gets no gradient.

        Args:
            scale: what the gradients are multiplied by at present (by a gradient scaler).
            observe: called with the task's gradients before anything is done to them.

        Raises:
            InputError: if the compactors have other parameters by now.
        """
        penalty = self._decay.penalty
        masked_penalty = 0.0 if self._decay.proximal else self._decay.masked_penalty
        weights = self.weights
        if any(own.pwc.weight is not weight for own, weight in zip(self._compactors, weights, strict=True)):
            raise InputError(
                "the model's parameters are other objects than those that the optimizer and the pruner have, so that "
                "nothing is trained any more: load weights without `assign=True`"
            )
        if self._penalised.device != weights[0].device:  # the model was moved since
            self._put_on_device()
        for weight in weights:
            if weight.grad is None:  # not reached by this step's loss
                weight.grad = torch.zeros_like(weight)
        scaled = torch._foreach_mul(weights, _SCALE)
        norms = self._scaled_norms(scaled)
        masks = [compactor.mask.view(-1, 1, 1, 1) for compactor in self._compactors]
        flat_masks = torch.cat(masks).flatten()
        gradients = [weight.grad for weight in weights]
        if observe is not None:
            observe(self._products(gradients, scaled), norms * scale, self._units, flat_masks)
        factors = penalty * scale / norms  # [rows]: lambda over the scaled norm
        if masked_penalty is not None:
            factors = torch.where(flat_masks == 0, masked_penalty * scale / norms, factors)
        factors = factors * self._penalised
        torch._foreach_mul_(gradients, masks)
        torch._foreach_mul_(scaled, [part.view(-1, 1, 1, 1) for part in factors.split(self._sizes)])
        torch._foreach_add_(gradients, scaled)
        for weight in weights:
            if not weight.requires_grad:  # a penalty without the task's part would only wipe it out
                weight.grad = None

    def _products(self, gradients: Sequence[Tensor], scaled: Sequence[Tensor]) -> list[Tensor]:
        """<dL/dq_i, q_i> times `_SCALE`, of each compactor [n, D]: of each image, where these are kept, else n = 1."""
        if not any(compactor.image_products for compactor in self._compactors):
            return [part.flatten(1).sum(1)[None] for part in torch._foreach_mul(gradients, scaled)]
        products = []
        for compactor in self._compactors:
            kept = compactor.image_products or [compactor.mask.new_zeros(1, len(compactor.mask))]
            products.append(torch.cat(kept) * _SCALE)
            compactor.image_products = []
        return products

    @torch.no_grad()
    def shrink_masked(self, optimizer: torch.optim.Optimizer) -> None:
        """q_i <- q_i max(0, 1 - t / |q_i|) for masked rows: the proximal step of the penalty.

        t = lr lambda / (1 - m) is what the penalty's gradient moves a row by at each step of SGD with momentum m. The
        learning rate is the optimiser's for the compactor at present, the momentum is the configured one, whatever the
        optimiser; lambda is `masked_penalty`, or `penalty` where that isn't given. The gradient would overshoot and
        leave rows oscillating around zero by as much; this ends at zero and stays there.

        Args:
            optimizer: the one that has the compactors.
        """
        penalty = self._decay.penalty if self._decay.masked_penalty is None else self._decay.masked_penalty
        rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        norms = self._scaled_norms(torch._foreach_mul(self.weights, _SCALE)) / _SCALE
        of_weights = [rates.get(id(weight), 0.0) for weight in self.weights]
        rate = of_weights[0]
        if any(other is not rate and other != rate for other in of_weights):
            sizes = zip(of_weights, self._sizes, strict=True)
            rate = torch.cat([norms.new_full((size,), float(value)) for value, size in sizes])
        travel = rate * penalty / (1 - self._decay.momentum)
        masks = torch.cat([compactor.mask for compactor in self._compactors])
        kept = torch.where(masks == 0, (1 - travel / norms).clamp_min(0.0), 1.0).split(self._sizes)
        torch._foreach_mul_(self.weights, [part.view(-1, 1, 1, 1) for part in kept])

    def masked(self, num_units: int) -> np.ndarray:
        """[num_units] of bool: the units whose mask says forget."""
        masked = np.zeros(num_units, dtype=bool)
        bits = torch.cat([compactor.mask for compactor in self._compactors]).detach().float().cpu().numpy()
        masked[self._all_units[bits == 0]] = True
        return masked

    @torch.no_grad()
    def set_masks(self, alive: np.ndarray) -> None:
        """Masks of 1 for the rows of `alive` units ([num_units] of bool), 0 for the others; rank 0 decides for all."""
        anchor = self.weights[0]
        bits = torch.from_numpy(alive[self._all_units]).to(anchor.device, anchor.dtype)
        if are_several():
            dist.broadcast(bits, src=0)  # so the ranks can never diverge
        for compactor, part in zip(self._compactors, bits.split(self._sizes), strict=True):
            compactor.mask.copy_(part)

    def _scaled_norms(self, scaled: Sequence[Tensor]) -> Tensor:
        """[rows]: the norm of each row's unit, times `_SCALE`, from weights that are multiplied by it."""
        squares = torch.cat([part.flatten(1).square().sum(1) for part in scaled])
        if self._share_units:
            per_unit = squares.new_zeros(self._unit_rows.numel()).index_add_(0, self._row_units, squares)
            squares = (per_unit / self._unit_rows)[self._row_units]
        return squares.sqrt().clamp_min(_SMALLEST_SCALED_NORM)
