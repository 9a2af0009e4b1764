"""The batched augmentation against torchvision's functions, one image at a time."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as TF

from data.augment import CropFlip


@pytest.mark.parametrize(("pad", "flip"), [(4, True), (2, False), (0, True)])
@pytest.mark.parametrize("shape", [(33, 3, 32, 32), (9, 1, 28, 20)])
def test_each_image_is_what_torchvision_makes_of_it(shape, pad, flip):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augment = CropFlip(pad, flip)
    moves = augment.draw(np.random.default_rng(1), len(images))
    augmented = augment.apply(images, torch.from_numpy(moves))
    assert augmented.dtype == torch.uint8
    for image, result, (top, left, flipped) in zip(images, augmented, moves.T, strict=True):
        expected = TF.crop(TF.pad(image, [pad] * 4, fill=0), top, left, *shape[2:])
        expected = TF.hflip(expected) if flipped else expected
        assert torch.equal(result, expected)


def test_moves_are_uniform():
    tops, lefts, flips = CropFlip(pad=4, flip=True).draw(np.random.default_rng(0), 90_000)
    for offsets in (tops, lefts):
        counts = np.bincount(offsets, minlength=9)
        assert len(counts) == 9
        assert abs(counts - 10_000).max() < 500  # five standard deviations
    assert abs(flips.mean() - 0.5) < 0.01
    assert abs(np.corrcoef([tops, lefts, flips]) - np.eye(3)).max() < 0.02


def test_no_flip_without_asking():
    assert not CropFlip(pad=2, flip=False).draw(np.random.default_rng(0), 1000)[2].any()
