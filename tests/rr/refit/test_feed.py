"""The loss whose gradients weigh a network's errors."""

from __future__ import annotations

import pytest
import torch

from rr.refit.feed import drawn_loss


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 5)])
def test_a_drawn_loss_has_finite_gradients(shape: tuple[int, int]) -> None:
    """One output of one image has no deviation."""
    outputs = torch.ones(shape, requires_grad=True)
    drawn_loss(outputs, torch.Generator().manual_seed(0)).backward()
    assert outputs.grad.isfinite().all()
    assert outputs.grad.any()
