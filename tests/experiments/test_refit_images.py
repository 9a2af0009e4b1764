"""The images of a refit, in batches."""

from __future__ import annotations

import pytest

from data import load_data
from data.generated import SyntheticSize
from experiments.refit_images import refit_images
from training import init_world


@pytest.mark.parametrize(
    ("train", "count", "held_out", "sizes"),
    [
        (60, 200, 0.1, [6] * 10),  # few images: a batch is the share that is held out
        (60, 45, 0.1, [5] * 9),
        (60, 200, 0.0, [30, 30]),
        (60, 200, 0.6, [30, 30]),  # no more than is asked for
        (60, 6, 0.1, [2] * 3),  # what a network is traced with has two
    ],
)
def test_no_more_is_held_out_than_a_batch(train: int, count: int, held_out: float, sizes: list[int]) -> None:
    data = load_data("synthetic", image_size=4, synthetic_size=SyntheticSize(train=train))
    with init_world("cpu") as world:
        batches = list(refit_images(data, count, 30, seed=0, world=world, held_out=held_out))
    assert [len(batch) for batch in batches] == sizes
