"""Training images that are left out of training, so that settings can be chosen on them and not on the test images."""

from typing import Protocol, TypeVar

import numpy as np
import torch

from rr.errors import InputError

SEED = 0  # of the choice, in every run: all that are compared, and the base that they start from, hold out the same


SplitT = TypeVar("SplitT", bound="Split")


class Split(Protocol):
    """Images and their labels, wherever they are."""

    @property
    def labels(self) -> np.ndarray | torch.Tensor:
        """[N], their classes."""

    def part(self: SplitT, chosen: np.ndarray) -> SplitT:
        """Those of the places [N] that are true."""


def splits(train: SplitT, val: SplitT, hold_out: int) -> tuple[SplitT, SplitT]:
    """What to train on and what to evaluate on.

    Args:
        train, val: the set's own training and validation images.
        hold_out: how many training images take the place of the validation images; 0 for none.

    Raises:
        InputError: as `held_out` does.
    """
    if hold_out == 0:
        return train, val
    chosen = held_out(np.asarray(train.labels), hold_out)
    return train.part(~chosen), train.part(chosen)


def held_out(labels: np.ndarray, count: int) -> np.ndarray:
    """Which training images are left out, drawn at random in each class.

    Args:
        labels: [N], the class of each training image.
        count: how many images in all; of each class in proportion to its size, to the nearest whole number that makes
            up the count.

    Returns:
        [N] of bool; those of a larger count are these and more, but for what rounding moves between classes.

    Raises:
        InputError: if that leaves a class without a training image.
    """
    _, of_image, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    shares = sizes * (count / len(labels))
    counts = shares.astype(int)
    # What rounding down left over goes to the classes that lost most by it, the first ones of those that lost as much.
    counts[np.argsort(counts - shares, kind="stable")[: count - counts.sum()]] += 1
    if (counts >= sizes).any():
        raise InputError(
            f"hold_out is {count}, of {len(labels)} training images: a class would have none left to train on; give "
            "fewer"
        )
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(labels))
    chosen = np.zeros(len(labels), dtype=bool)
    for place, of_class in enumerate(counts):
        chosen[order[of_image[order] == place][:of_class]] = True
    return chosen
