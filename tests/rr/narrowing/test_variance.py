"""Variances of a compactor's outputs, over the training passes since the meter was made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rr.compactors import Compactor
from rr.narrowing.variance import VarianceMeter
from tests.rr.folded import folding_pruner, images_of
from tests.rr.narrowed import kill

UNITS = np.array([3, 7, 8, 20])
BEHIND = {
    "a convolution": (1, (5, 4, 3, 2)),
    "a convolution over one dimension": (1, (5, 4, 3)),
    "a linear layer": (-1, (5, 4)),
    "a linear layer over places": (-1, (5, 3, 4)),
}


def compactor_of(channel_dim: int = 1, **options: object) -> Compactor:
    torch.manual_seed(0)
    compactor = Compactor(4, channel_dim, **options)
    with torch.no_grad():
        compactor.pwc.weight += 0.5 * torch.randn_like(compactor.pwc.weight)
    return compactor.train()


def of_channels(x: Tensor, channel_dim: int) -> Tensor:
    """The variance of the numbers that there are, for each channel."""
    return x.movedim(channel_dim, 0).flatten(1).var(1, correction=0)


@pytest.mark.parametrize("behind", BEHIND)
def test_the_mean_over_training_passes(behind: str) -> None:
    channel_dim, shape = BEHIND[behind]
    compactor = compactor_of(channel_dim)
    meter = VarianceMeter(compactor, UNITS)
    passes = [compactor(torch.randn(shape)) for _ in range(3)]
    compactor.eval()(100 * torch.randn(shape))  # none for training
    expected = torch.stack([of_channels(x, channel_dim) for x in passes]).mean(0)
    assert meter.passes == 3
    torch.testing.assert_close(meter.mean_of(UNITS), expected)
    assert not meter.mean_of(UNITS).requires_grad
    meter.remove()
    compactor.train()(100 * torch.randn(shape))
    assert meter.passes == 3
    torch.testing.assert_close(meter.mean_of(UNITS), expected)


def test_some_of_the_units() -> None:
    """Others have left the model since."""
    compactor = compactor_of()
    meter = VarianceMeter(compactor, UNITS)
    expected = of_channels(compactor(torch.randn(5, 4, 3, 3)), 1)
    torch.testing.assert_close(meter.mean_of(np.array([7, 20])), expected[[1, 3]])


def test_half_precision_is_measured_in_float32() -> None:
    """Squares of 300 are over what float16 holds."""
    compactor = compactor_of(dtype=torch.float16)
    nn.init.dirac_(compactor.pwc.weight)
    meter = VarianceMeter(compactor, UNITS)
    x = 600 * torch.randn(5, 4, 3, 3).half()
    compactor(x)
    found = meter.mean_of(UNITS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, of_channels(x.float(), 1), rtol=1e-2, atol=0)


def test_a_meter_goes_on_from_its_state() -> None:
    compactor = compactor_of()
    whole, first = VarianceMeter(compactor, UNITS), VarianceMeter(compactor, UNITS)
    compactor(torch.randn(5, 4, 3, 3))
    first.remove()
    second = VarianceMeter(compactor, UNITS, first.state_dict())
    compactor(torch.randn(5, 4, 3, 3))
    assert second.passes == whole.passes == 2
    assert torch.equal(second.mean_of(UNITS), whole.mean_of(UNITS))


def test_a_fold_is_due_after_20_passes() -> None:
    """As it was in every run that was measured. Of a step that is left out, nothing measured counts."""
    family = "dense"
    pruner = folding_pruner(family, flops_target=0.6)
    kill(pruner, 0.5)
    assert pruner.narrow() > 0
    pruner.model.train()(images_of(family) * float("nan"))
    pruner.leave_step_out()
    for passes in range(1, 21):
        assert not pruner.narrow_is_due
        pruner.model.eval()(images_of(family))
        pruner.model.train()(images_of(family, seed=passes))
    assert pruner.narrow_is_due


def test_a_meter_begins_anew() -> None:
    compactor = compactor_of()
    meter = VarianceMeter(compactor, UNITS)
    compactor(torch.full((5, 4, 3, 3), float("nan")))
    meter.reset()
    expected = of_channels(compactor(torch.randn(5, 4, 3, 3)), 1)
    assert meter.passes == 1
    torch.testing.assert_close(meter.mean_of(UNITS), expected)
