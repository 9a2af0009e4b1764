"""What units are ranked by for forgetting, besides their norms: what the loss would lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

DECAY = 0.99  # of the running mean: it remembers the last hundred steps


class TaylorScores:
    """How much the loss would change, to first order, if a unit's rows q_i went to zero: |sum_i <dL/dq_i, q_i>|.

    Molchanov et al. 2019 (Importance Estimation for Neural Network Pruning), eq. 8, at a gate behind the BN; the root
    of a running mean of the square over the steps, with its start corrected as in Adam.

    What is averaged is the slope, sum_i <dL/dq_i, q_i> / |q|, with |q| the norm of the unit; the score is the slope
    times today's norm. For a kept unit, whose norm hardly moves in a hundred steps, that is the formula. A masked one's
    score falls with its rows at once, not a hundred steps later: one that has died comes before all that live. And its
    slope never rises while it is masked. In a trained network all slopes are small; a unit that shrinks gets a large
    one, since the loss wants it back. It would rise in the ranking just for having been masked, others would be masked
    in its place, and in the end all of them would be half shrunk. So, as with norms, a masked unit comes back only when
    others have fallen below it.

    The mean square of a batch's gradient, or the sum of those of its images, is, up to a factor, the diagonal of the
    empirical Fisher matrix. So what the loss loses by several units is, as far as they don't depend on each other, the
    sum of their squared scores (Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning,
    eq. 5): the squares are what is weighed against MACs.

    Args:
        num_units: how many units there are.
        like: a tensor on the device and of the type of what is observed.

    Attributes:
        squares: [num_units], the running mean of the squared slopes.
        weight: what the steps so far weigh in it, 0 to 1.
    """

    def __init__(self, num_units: int, like: torch.Tensor) -> None:
        self.squares = torch.zeros(num_units, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
        self.weight = self.squares.new_zeros(())

    @torch.no_grad()
    def observe(
        self,
        products: Sequence[torch.Tensor],
        norms: torch.Tensor,
        units: torch.Tensor,
        masks: torch.Tensor,
    ) -> None:
        """Count a step, unless a gradient isn't finite, as when a gradient scaler will skip the step.

        Args:
            products: of each compactor [n, D], <dL/dq_i, q_i> of its rows: of the batch (n = 1), or of each image.
            norms: [rows], the norm of each row's unit, above 0, times any factors that the products have.
            units: [rows], the unit of each row.
            masks: [rows], 0 for masked rows.
        """
        if self.squares.device != norms.device:  # the model was moved
            self.squares, self.weight = self.squares.to(norms.device), self.weight.to(norms.device)
        now = self._squared_slopes(products, norms, units)
        weight = DECAY * self.weight + (1 - DECAY)
        squares = self.squares + (1 - DECAY) / weight * (now - self.squares)
        masked = torch.zeros_like(squares, dtype=torch.bool).index_put_((units,), masks == 0)
        squares = torch.where(masked, torch.minimum(squares, self.squares), squares)
        finite = squares.isfinite().all()  # stays on the device: no step waits for it
        # In place: a step that is recorded (a CUDA graph) finds them where they were.
        self.squares.copy_(torch.where(finite, squares, self.squares))
        self.weight.copy_(torch.where(finite, weight, self.weight))

    def _squared_slopes(
        self, products: Sequence[torch.Tensor], norms: torch.Tensor, units: torch.Tensor
    ) -> torch.Tensor:
        """[num_units]: of this step, the sum over its images of the squared slopes, rows of a unit added before.

        Where compactors see other numbers of images (windows, the frames of a video), only those with the same number
        can be added before they are squared.
        """
        if len({len(product) for product in products}) == 1:
            return self._squares_of(torch.cat(list(products), 1), norms, units)
        sizes = [product.shape[1] for product in products]
        parts = list(zip(products, norms.split(sizes), units.split(sizes), strict=True))
        found = torch.zeros_like(self.squares)
        for number in {len(product) for product in products}:
            alike = zip(*(part for part in parts if len(part[0]) == number), strict=True)
            found += self._squares_of(*(torch.cat(each, -1) for each in alike))
        return found

    def _squares_of(self, products: torch.Tensor, norms: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        """The same of some rows, which see the same images: products [n, rows], norms and units [rows]."""
        slopes = self.squares.new_zeros(len(products), len(self.squares))
        return slopes.index_add_(1, units, (products / norms).to(slopes)).square().sum(0)

    def scores(self, norms: np.ndarray) -> np.ndarray:
        """The scores, [num_units]; before the first step these are the norms.

        Args:
            norms: [num_units], as they are now.
        """
        if not self.weight:
            return norms
        with np.errstate(invalid="ignore"):  # norms are infinite where nothing is pruned
            return norms * self.squares.sqrt().cpu().double().numpy()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {"squares": self.squares.clone(), "weight": self.weight.clone()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.squares.copy_(state["squares"])
        self.weight.copy_(state["weight"])
