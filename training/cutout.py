"""A square of each training image blanked, at a place of its own (DeVries & Taylor 2017, Improved Regularization of
Convolutional Neural Networks with Cutout)."""

from __future__ import annotations

from dataclasses import replace

import torch

from data import Batch


def with_cutout(batch: Batch, side: int) -> Batch:
    """The batch with a square of each image at 0, which is the training images' mean.

    Its centre is any pixel, so at the border a part of it is outside; torch's seed says which.

    Args:
        batch: images [n, C, H, W], normalised; they stay as they are.
        side: of the square, in pixels; 0 for none.
    """
    if side == 0:
        return batch
    images = batch.images
    inside = [_inside(len(images), length, side, images.device) for length in images.shape[2:]]  # [n, H], [n, W]
    square = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]  # [n, 1, H, W]
    return replace(batch, images=images.masked_fill(square, 0))


def _inside(count: int, length: int, side: int, device: torch.device) -> torch.Tensor:
    """[count, length] of bool: which places lie in a stretch of this many, around a random one."""
    first = torch.randint(length, (count, 1), device=device) - side // 2
    places = torch.arange(length, device=device)
    return (places >= first) & (places < first + side)
