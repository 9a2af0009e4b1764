"""Sets that need no download: scikit-learn's digits, and synthetic images for tests and benchmarks."""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as TF

from data.memory import Images
from rr.errors import InputError


@dataclass(frozen=True)
class SyntheticSize:
    """How large the `synthetic` set is.

    Attributes:
        train, val: images of each split.
        classes: how many classes there are.
        channels: channels of the images.

    Raises:
        InputError: if one of them is below 1.
    """

    train: int = 2000
    val: int = 500
    classes: int = 10
    channels: int = 3

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.classes, self.channels) < 1:
            raise InputError(f"every field of {self} must be at least 1")


def digits(image_size: int) -> tuple[Images, Images]:
    """1,797 handwritten digits (UCI, in scikit-learn), 8x8 scaled up; a fifth of each class is for validation.

    Args:
        image_size: side to scale them to, in pixels.
    """
    from sklearn.datasets import load_digits  # not at the top: it takes a second, and only this set needs it

    source = load_digits()
    labels = torch.from_numpy(source.target).long()  # [1797]
    grey = (torch.from_numpy(source.images) * (255 / 16)).round().to(torch.uint8)  # [1797, 8, 8], values were 0 ... 16
    images = TF.resize(grey[:, None], [image_size, image_size], antialias=True)
    # The set is in the order in which people wrote it, so every fifth image of a class takes some from everyone.
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        held_out[(labels == digit).nonzero()[2::5, 0]] = True
    return Images(images[~held_out], labels[~held_out]), Images(images[held_out], labels[held_out])


def synthetic(size: SyntheticSize, image_size: int) -> tuple[Images, Images]:
    """Images that a network can learn, the same each time: a coarse pattern per class under strong noise.

    Args:
        size: how many images, classes and channels.
        image_size: side of the images, in pixels.
    """
    patterns = np.random.default_rng(0).integers(64, 192, size=(size.classes, size.channels, 4, 4), dtype=np.uint8)
    large = TF.resize(torch.from_numpy(patterns), [image_size, image_size], antialias=True)  # [classes, C, H, W]
    return _noisy(large, size.train, seed=1), _noisy(large, size.val, seed=2)


def _noisy(patterns: torch.Tensor, num_images: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    labels = torch.arange(num_images) % len(patterns)
    images = torch.empty((num_images, *patterns.shape[1:]), dtype=torch.uint8)
    for part in torch.arange(num_images).split(256):  # the sums need twice the memory of the images
        noise = rng.integers(-64, 64, size=(len(part), *patterns.shape[1:]), dtype=np.int8)
        images[part] = (patterns[labels[part]].short() + torch.from_numpy(noise)).to(torch.uint8)
    return Images(images, labels)
