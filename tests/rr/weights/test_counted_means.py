"""Modules that divide by a mean over channels: told how many there are, and from a file how many there were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rr.weights.counted_means import count_mean, fit_mean


class OverTheMean(nn.Module):
    """[N, C]: each channel over the mean of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps, self.weight = 0.5, nn.Parameter(torch.arange(1.0, channels + 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.mean(1, keepdim=True) + self.eps)


def cut_to(module: OverTheMean, left: int) -> OverTheMean:
    """The same with the first channels alone."""
    full = len(module.weight)
    module.weight = nn.Parameter(module.weight.detach()[:left].clone())
    count_mean(module, full, left)
    return module


def test_channels_of_zeros_leave_in_one_go_or_two() -> None:
    x = torch.tensor([[0.3, 2.0, 0, 0, 0, 0, 0, 0], [1.0, 0.1, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    expected = OverTheMean(8)(x)[:, :2]
    once, twice = cut_to(OverTheMean(8), 2), cut_to(cut_to(OverTheMean(8), 5), 2)
    for narrow in (once, twice):
        torch.testing.assert_close(narrow(x[:, :2]), expected, rtol=1e-14, atol=0)
        shapes = {name: tuple(tensor.shape) for name, tensor in narrow.state_dict().items()}
        for start in (OverTheMean(8), cut_to(OverTheMean(8), 5)):  # a file is read into the full or a wider network
            fit_mean(start, shapes)
            assert start.eps == pytest.approx(narrow.eps, rel=1e-14)


@pytest.mark.parametrize("shape", [(0, 2, 8), (0, 8, 0), (0, 8), (8,), ()])
def test_a_file_that_says_no_numbers_of_channels_changes_nothing(shape: tuple[int, ...]) -> None:
    module = OverTheMean(8)
    fit_mean(module, {"mean_of_channels": shape})
    assert module.eps == 0.5
    assert len(module.state_dict()) == 1
