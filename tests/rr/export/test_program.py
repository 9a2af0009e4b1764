"""Programs of torch.export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rr.export.program import exported_program


class FreesItsInput(nn.Module):
    """Doubles an activation, and frees the memory of what it has read."""

    def forward(self, x: Tensor) -> Tensor:
        y = 2 * x
        x.data.set_()
        return y


def test_a_forward_that_frees_memory_is_exported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), FreesItsInput(), nn.Conv2d(4, 2, 1))
    images = torch.randn(3, 3, 8, 8)
    program, any_size = exported_program(model, images)
    assert any_size
    torch.testing.assert_close(program.module()(images), model(images))
