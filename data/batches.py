"""Which examples are in which batch of which process: index arithmetic and seeds, no images."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from rr.errors import InputError


class Stream(IntEnum):
    """What random numbers are for; never 0, as numpy ignores trailing zeros of a seed sequence."""

    ORDER = 1
    AUGMENTATION = 2
    SAMPLE = 3


@dataclass(frozen=True)
class Share:
    """One process's part of one global batch.

    Attributes:
        step: the step of the epoch.
        indices: int64 [n], examples of the data set.
        offset: place of indices[0] in the global batch.
        global_size: images of all processes together.
    """

    step: int
    indices: np.ndarray
    offset: int
    global_size: int


def seed_sequence(stream: Stream, seed: int, *place: int) -> np.random.SeedSequence:
    """The seed of the random numbers at one place.

    Args:
        stream: what they are for.
        seed: the run's seed.
        place: such as (epoch, step).

    Raises:
        InputError: if the seed is negative.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or more")
    return np.random.SeedSequence((int(stream), seed, *place))


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Steps of one epoch, including an incomplete batch.

    Raises:
        InputError: if the batch size is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    return -(-num_examples // batch_size)


def even_bounds(num_examples: int, parts: int) -> list[int]:
    """Bounds of `parts` contiguous parts whose sizes differ by at most one: part i is bounds[i]:bounds[i + 1]."""
    return [part * num_examples // parts for part in range(parts + 1)]


def train_shares(
    num_examples: int,
    epoch: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> list[Share]:
    """One process's shares of an epoch's batches, in random order.

    The permutation of the epoch is cut into ceil(num_examples / batch_size) batches whose sizes differ by at most one.
    With full batches and a rest, 50,001 images would end in a batch of one image, whose gradient counts as much as that
    of a full batch, and from which BN can't take a variance where the feature map is 1x1. (Only batch_size 1 or 2, or a
    set of one image, leave batches of one.)

    Args:
        num_examples: how many examples there are.
        epoch: decides the order, together with `seed`.
        batch_size: examples per step, all processes together.
        seed: the run's seed.
        start_step: the first step that is wanted.
        rank: the process.
        world_size: how many processes there are.

    Raises:
        InputError: if the processes can't share a batch, or start_step is outside the epoch.
    """
    _check_rank(rank, world_size)
    steps = steps_per_epoch(num_examples, batch_size)
    if batch_size % world_size:
        raise InputError(
            f"batch_size {batch_size}, the images of all processes, is not a multiple of world_size {world_size}; "
            f"take a multiple of {world_size}"
        )
    if num_examples // steps < world_size:
        raise InputError(
            f"{num_examples} images in {steps} batches leave a batch with fewer images than world_size {world_size}; "
            "use fewer processes"
        )
    if not 0 <= start_step <= steps:
        raise InputError(
            f"start_step is {start_step}, but an epoch has {steps} steps; resume with the batch_size of the run"
        )
    order = np.random.default_rng(seed_sequence(Stream.ORDER, seed, epoch)).permutation(num_examples)
    bounds = even_bounds(num_examples, steps)
    shares = []
    for step in range(start_step, steps):
        batch = order[bounds[step] : bounds[step + 1]]
        first, last = even_bounds(len(batch), world_size)[rank : rank + 2]
        shares.append(Share(step, batch[first:last], first, len(batch)))
    return shares


def val_shares(num_examples: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Share]:
    """Contiguous batches in order, dealt to the ranks in turn: whole, none padded or repeated; a rank may get none.

    Raises:
        InputError: if the batch size is below 1, or there is no such rank.
    """
    _check_rank(rank, world_size)
    steps = steps_per_epoch(num_examples, batch_size)
    shares = []
    for step in range(rank, steps, world_size):
        indices = np.arange(step * batch_size, min((step + 1) * batch_size, num_examples))
        shares.append(Share(step, indices, 0, len(indices)))
    return shares


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise InputError(f"rank is {rank}; it must be in 0 ... {world_size - 1} (world_size {world_size})")
