"""A network run on images, batch by batch, and what its layers read there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch
from torch import nn

from rr.refit.feed import Feed
from rr.refit.rows import Reader
from rr.refit.watch import Enough, Seen, Watch

# Called with the reader, the number of the batch, and what was seen there.
Sink = Callable[[Reader, int, Seen], None]


@torch.no_grad()
def capture(
    model: nn.Module,
    readers: Sequence[Reader],
    most_places: int,
    feed: Feed,
    sink: Sink,
    numbers: Iterable[int] | None = None,
) -> None:
    """Run a network on images, each batch no further than it takes, and hand on what its layers read.

    Args:
        model: the network.
        readers: the layers.
        most_places: of an image, at most so many.
        feed: the images.
        sink: gets what was seen, layer by layer.
        numbers: of the batches; None: all.
    """
    for number in range(len(feed.batches)) if numbers is None else numbers:
        watch = Watch(model, readers, most_places, number, is_enough=True)
        with suppress(Enough), watch:
            feed.run(model, feed.batches[number])
        hand_on(watch, readers, number, sink)


def hand_on(watch: Watch, readers: Sequence[Reader], number: int, sink: Sink) -> None:
    """Give the sink what was seen in a run, in the readers' order."""
    for reader in readers:
        if (seen := watch.seen.get(reader.layer.name)) is not None:
            sink(reader, number, seen)
