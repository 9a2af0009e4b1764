"""The training images that a network is refitted on."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor

from data import Data
from training import World


def refit_images(
    data: Data, count: int, batch_size: int, seed: int, world: World, held_out: float = 0.0
) -> Iterator[Tensor]:
    """Augmented training images, in batches, as many as are asked for or there are; this process's share of each.

    Args:
        data: has them.
        count: how many, all processes together.
        batch_size: of a batch, all processes together, at most.
        seed: of their order and augmentation.
        world: this process among all.
        held_out: share of the images that is kept out of the refit (`RefitConfig`), in whole batches: with few images
            they are smaller, so that no more than this share is.
    """
    left = count
    if held_out:
        batch_size = min(batch_size, max(ceil(held_out * min(count, data.num_train)), 2 * world.size))
    batches = data.train_batches(
        0,
        batch_size=min(batch_size, count),
        seed=seed,
        device=world.device,
        rank=world.rank,
        world_size=world.size,
    )
    for batch in batches:
        share = min(left / batch.global_size, 1.0)
        yield batch.images[: ceil(share * len(batch.images))].to(torch.float32)
        left -= batch.global_size
        if left <= 0:
            return
