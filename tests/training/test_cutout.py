"""Cutout: one square in each image, elsewhere in each, clipped at the border, and the same one from the same seed."""

from __future__ import annotations

import pytest
import torch

from data import Batch
from training.cutout import with_cutout

SIZE = 12


def blanked(side: int, count: int = 2000) -> torch.Tensor:
    """[n, H, W] of bool: where images of ones are 0 afterwards."""
    torch.manual_seed(0)
    batch = Batch(torch.ones(count, 3, SIZE, SIZE), torch.zeros(count, dtype=torch.int64), count)
    found = with_cutout(batch, side)
    assert torch.equal(batch.images, torch.ones_like(batch.images))
    assert found.labels is batch.labels
    assert (found.images[:, :1] == found.images).all()  # in all channels alike
    return found.images[:, 0] == 0


@pytest.mark.parametrize("side", [1, 4, 5])
def test_a_square_is_blanked_with_its_centre_on_any_pixel(side: int) -> None:
    gone = blanked(side)
    rows, columns = gone.any(2), gone.any(1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None, :])  # a rectangle
    lengths = torch.stack([rows.sum(1), columns.sum(1)])
    assert lengths.max() == side
    assert lengths.min() == side - side // 2  # what is left of it at a border
    full = (lengths == side).all(0)
    assert torch.equal(gone[full].sum((1, 2)), torch.full((int(full.sum()),), side * side))
    assert gone.any(0).all()  # no pixel is spared
    assert len(torch.unique(gone.flatten(1), dim=0)) > SIZE * SIZE // 2
    assert torch.equal(gone, blanked(side))


def test_without_a_side_the_batch_is_the_same() -> None:
    batch = Batch(torch.ones(2, 3, SIZE, SIZE), torch.zeros(2, dtype=torch.int64), 2)
    assert with_cutout(batch, 0) is batch
