"""Training steps that change nothing where their loss or their gradient isn't finite."""

from __future__ import annotations

import logging

import torch

from data import Batch
from training.callback import TrainState
from training.checkpoint_files import LATEST
from training.distributed import all_reduce_min
from training.observe import NonFiniteLoss, lr_of_step
from training.recipe import MOST_SKIPPED
from training.step import passes

logger = logging.getLogger(__name__)


class CarefulSteps:
    """`take_step`, but a step whose loss or gradient isn't finite, on any process, is left out on all, and counted.

    The optimiser doesn't step then, so nothing that hooks it counts a step either, and what the forward pass has
    written into buffers (BN's statistics) is as before. The batch is gone, and the schedule goes on: the run has as
    many steps as any other. Each step waits for the device.

    Args:
        state: the run, whose `skipped` and `skipped_in_a_row` are counted here.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        state.optimizer._opt_called = True  # the schedule would warn, where the first step of all is left out

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Train on one batch.

        Returns:
            This process's `batch_sums`; zeros where the step was left out.

        Raises:
            NonFiniteLoss: for the last of `MOST_SKIPPED` steps in a row.
        """
        state = self._state
        buffers = [buffer.clone() for buffer in state.model.buffers()]
        sums = passes(state, batch)
        if self._is_finite(sums):
            state.optimizer.step()
            state.skipped_in_a_row = 0
        else:
            for buffer, before in zip(state.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self._count()
            sums = torch.zeros_like(sums)
        state.optimizer.zero_grad(set_to_none=True)
        return sums

    def _is_finite(self, sums: torch.Tensor) -> bool:
        """Whether the loss is, on all processes, and the gradient."""
        gradients = [parameter.grad for parameter in self._state.model.parameters() if parameter.grad is not None]
        flags = torch.stack([sums[0].isfinite(), *(gradient.isfinite().all() for gradient in gradients)])
        return bool(all_reduce_min(self._state.world, flags.all().int()))

    def _count(self) -> None:
        state = self._state
        state.skipped += 1
        state.skipped_in_a_row += 1
        step, in_a_row = state.step + 1, state.skipped_in_a_row
        if in_a_row >= MOST_SKIPPED:
            raise NonFiniteLoss(
                f"the loss or the gradient isn't finite in {in_a_row} steps in a row, up to step {step} (learning rate "
                f"{lr_of_step(state, step):g}): lower --lr or add --warmup-epochs; {LATEST}, if there is one, holds "
                "weights from before"
            )
        logger.warning(
            "step %d is left out: its loss or its gradient isn't finite (%d in a row, %d so far)",
            step,
            in_a_row,
            state.skipped,
        )
