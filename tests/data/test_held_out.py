"""Training images that are held out: always the same, of each class its share, never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import Data, SyntheticSize, load_data
from data.generated import synthetic
from data.held_out import held_out, splits
from data.memory import Images
from rr import InputError


@pytest.mark.parametrize("sizes", [(50, 50, 50), (60, 30, 7, 3), (2, 100)])
@pytest.mark.parametrize("count", [2, 5, 17])
def test_of_each_class_its_share_and_of_a_larger_count_the_same_and_more(sizes: tuple[int, ...], count: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    chosen = held_out(labels, count)
    assert chosen.sum() == count
    for place, size in enumerate(sizes):
        assert abs(chosen[labels == place].sum() - count * size / len(labels)) < 1
    assert held_out(labels, 2 * count)[chosen].mean() > 0.9  # but for what rounding moves from class to class
    assert (held_out(labels, count) == chosen).all()


@pytest.mark.parametrize("count", [9, 10, 11])
def test_a_class_with_nothing_left_to_train_on_is_an_error(count: int) -> None:
    with pytest.raises(InputError, match=f"hold_out is {count}, of 10 training images: .*; give fewer"):
        held_out(np.array([0] * 5 + [1] * 5), count)


def images_of(split: Images) -> set[bytes]:
    """Each image's own bytes."""
    return {image.numpy().tobytes() for image in split.images}


def test_what_is_evaluated_isnt_trained_on() -> None:
    size = SyntheticSize(train=90, val=21, classes=3)
    train, val = synthetic(size, image_size=8)
    kept, out = splits(train, val, 30)
    assert (len(images_of(kept)), len(images_of(out))) == (60, 30)
    assert images_of(kept) | images_of(out) == images_of(train)
    assert splits(train, val, 0) == (train, val)
    data = load_data("synthetic", image_size=8, synthetic_size=size, hold_out=30)
    assert (data.num_train, data.num_val) == (60, 30)
    assert "60 training and 30 validation images" in data.describe()
    assert "held out of the training ones, the set's own 21 unused" in data.describe()


@pytest.mark.parametrize("image_size", [12, 80])
def test_of_a_folder_too(tmp_path: Path, image_size: int) -> None:
    """In memory, and decoded as it is needed: the labels still belong to the images."""
    for split, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                colour = (100 * label, 10 * number, 200)
                Image.new("RGB", (image_size, image_size), colour).save(tmp_path / split / name / f"{number}.png")
    data = load_data("folder", tmp_path, workers=0, hold_out=4)
    assert (data.num_train, data.num_val) == (8, 4)
    (val,) = data.val_batches(batch_size=4, device="cpu")
    (train,) = data.train_batches(0, batch_size=8, seed=0, device="cpu")
    colours = [
        {tuple(round(value * 255) for value in pixel) for pixel in _pixels(data, batch.images)}
        for batch in (val, train)
    ]
    assert len(colours[0]) == 4
    assert len(colours[1]) == 8
    assert not colours[0] & colours[1]
    for batch in (val, train):
        assert [pixel[0] > 0.2 for pixel in _pixels(data, batch.images)] == batch.labels.bool().tolist()


def _pixels(data: Data, images: torch.Tensor) -> list[list[float]]:
    """The brightest value of each channel of each image, in 0 ... 1: augmentation may have padded it with zeros."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return (images * std + mean).amax((2, 3)).tolist()


def test_less_than_none_is_an_error() -> None:
    with pytest.raises(InputError, match="hold_out is -1; it must be 0 or more"):
        load_data("digits", hold_out=-1)
