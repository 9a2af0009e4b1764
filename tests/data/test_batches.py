"""Who gets which example: every one exactly once, the same for any number of processes and after resuming."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import Stream, even_bounds, seed_sequence, steps_per_epoch, train_shares, val_shares

SIZES = st.integers(1, 400)


@st.composite
def runs(draw):
    """(num_examples, batch_size, world_size) that a training run can have."""
    world_size = draw(st.integers(1, 5))
    batch_size = world_size * draw(st.integers(1, 40))
    num_examples = draw(st.integers(world_size, 400))
    steps = -(-num_examples // batch_size)
    if num_examples // steps < world_size:
        num_examples = steps * batch_size
    return num_examples, batch_size, world_size


@pytest.mark.slow
@settings(deadline=None)
@given(run=runs(), epoch=st.integers(0, 500), seed=st.integers(0, 2**40))
def test_an_epoch_has_every_example_once(run, epoch, seed):
    num_examples, batch_size, world_size = run
    by_rank = [
        train_shares(num_examples, epoch, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    whole = train_shares(num_examples, epoch, batch_size=batch_size, seed=seed)
    assert len(whole) == -(-num_examples // batch_size)
    assert sorted(np.concatenate([share.indices for share in whole])) == list(range(num_examples))
    sizes = [len(share.indices) for share in whole]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    for batch, *parts in zip(whole, *by_rank, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.indices for part in parts]), batch.indices)
        assert {part.step for part in parts} == {batch.step}
        assert {part.global_size for part in parts} == {len(batch.indices)}
        part_sizes = [len(part.indices) for part in parts]
        assert [part.offset for part in parts] == [sum(part_sizes[:rank]) for rank in range(world_size)]
        assert min(part_sizes) >= 1
        assert max(part_sizes) - min(part_sizes) <= 1


@settings(deadline=None)
@given(num_examples=SIZES, batch_size=st.integers(1, 500), world_size=st.integers(1, 9))
def test_validation_has_every_example_once_and_in_order(num_examples, batch_size, world_size):
    shares = [
        share
        for rank in range(world_size)
        for share in val_shares(num_examples, batch_size=batch_size, rank=rank, world_size=world_size)
    ]
    shares.sort(key=lambda share: share.step)
    assert list(np.concatenate([share.indices for share in shares])) == list(range(num_examples))
    assert all(len(share.indices) == share.global_size == batch_size for share in shares[:-1])


def test_a_rank_may_have_nothing_to_validate():
    assert val_shares(10, batch_size=8, rank=2, world_size=3) == []


@settings(deadline=None)
@given(num_examples=SIZES, batch_size=st.integers(1, 64), data=st.data())
def test_resuming_gives_the_tail_of_the_epoch(num_examples, batch_size, data):
    whole = train_shares(num_examples, 3, batch_size=batch_size, seed=1)
    start = data.draw(st.integers(0, len(whole)))
    resumed = train_shares(num_examples, 3, batch_size=batch_size, seed=1, start_step=start)
    assert [share.step for share in resumed] == list(range(start, len(whole)))
    for mine, theirs in zip(resumed, whole[start:], strict=True):
        np.testing.assert_array_equal(mine.indices, theirs.indices)


@given(num_examples=st.integers(2, 5000), batch_size=st.integers(3, 300))
def test_no_batch_of_one_image(num_examples, batch_size):
    bounds = even_bounds(num_examples, steps_per_epoch(num_examples, batch_size))
    assert min(np.diff(bounds)) >= 2


def test_order_depends_on_seed_and_epoch():
    orders = {
        tuple(train_shares(100, epoch, batch_size=100, seed=seed)[0].indices) for epoch in range(3) for seed in range(3)
    }
    assert len(orders) == 9


def test_seeds_of_different_places_differ():
    places = [(seed, epoch, step) for seed in range(3) for epoch in range(3) for step in range(3)]
    states = {tuple(seed_sequence(stream, *place).generate_state(4)) for stream in Stream for place in places}
    assert len(states) == len(Stream) * len(places)


def test_a_batch_larger_than_the_set_is_the_whole_set():
    (share,) = train_shares(10, 0, batch_size=64, seed=0)
    assert len(share.indices) == share.global_size == 10


@pytest.mark.parametrize(
    ("num_examples", "options", "message"),
    [
        (100, {"batch_size": 30, "world_size": 4}, "batch_size 30.* world_size 4; take a multiple of 4"),
        (3, {"batch_size": 8, "world_size": 4}, "3 images .* world_size 4; use fewer processes"),
        (100, {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        (100, {"batch_size": 10, "start_step": 11}, "start_step is 11, but an epoch has 10 steps"),
        (100, {"batch_size": 10, "start_step": -1}, "start_step is -1"),
        (100, {"batch_size": 10, "rank": 2, "world_size": 2}, "rank is 2; it must be in 0 ... 1"),
        (100, {"batch_size": 10, "seed": -1}, "seed is -1"),
    ],
)
def test_what_does_not_fit_raises(num_examples, options, message):
    with pytest.raises(ValueError, match=message):
        train_shares(num_examples, 0, **{"seed": 0, **options})
