"""A network run on all batches side by side, so that each layer can be refitted on all images before any goes on.

Each batch runs in a thread of its own, on a copy of the network that has the same tensors (what a forward keeps on its
modules is then each batch's own); one thread runs at a time, in turn, so nothing depends on chance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import nn

from rr.copies import copy_of
from rr.refit.feed import Feed
from rr.refit.rows import Reader
from rr.refit.watch import Enough, Seen, Watch

# Called with a reader and, by batch, what was seen of it; None for one that is refitted before it runs.
Refit = Callable[[Reader, "dict[int, Seen] | None"], None]


def run_side_by_side(
    model: nn.Module, readers: Sequence[Reader], most_places: int, feed: Feed, refit: Refit, alone: set[str]
) -> None:
    """Run a network on all images, and refit each layer once all of them have got there.

    Args:
        model: the network, whose weights `refit` changes in place.
        readers: the layers to refit.
        most_places: of an image, at most so many.
        feed: the images.
        refit: changes a layer; it is called in the order in which the layers' outputs are used.
        alone: names of layers that are refitted before they first run, on what `refit` finds out itself.

    Raises:
        Exception: what the network or `refit` raises.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    fitted: set[str] = set()
    runs = [
        _Run(copy_of(model, tensors), readers, most_places, feed, number, fitted, alone)
        for number in range(len(feed.batches))
    ]
    try:
        waiting = [run for run in runs if run.go_on()]
        while waiting:
            name = waiting[0].reader.layer.name
            here = [run for run in waiting if run.reader.layer.name == name]
            seen = {run.number: run.seen for run in here if run.seen is not None}
            refit(here[0].reader, seen or None)
            fitted.add(name)
            elsewhere = [run for run in waiting if run.reader.layer.name != name]
            waiting = [*(run for run in here if run.go_on()), *elsewhere]
    finally:
        for run in runs:
            run.stop()


class _Run:
    """The network on one batch, in a thread that runs only between `go_on` and the next layer to refit.

    Attributes:
        number: of the batch.
        reader: the layer that it waits at.
        seen: what was seen of it; None before it runs.
    """

    def __init__(
        self,
        model: nn.Module,
        readers: Sequence[Reader],
        most_places: int,
        feed: Feed,
        number: int,
        fitted: set[str],
        alone: set[str],
    ) -> None:
        self.number, self.reader, self.seen = number, readers[0], None
        self._fitted, self._alone = fitted, alone
        self._error: BaseException | None = None
        self._is_stopped, self._is_over = False, False
        self._may_run, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._watch = Watch(model, readers, most_places, number, at_begin=self._at_begin, at_use=self._at_use)
        self._thread = threading.Thread(target=self._run, args=(model, feed), daemon=True)
        self._thread.start()

    def go_on(self) -> bool:
        """Run to the next layer to refit; False where there is none.

        Raises:
            Exception: what the network raises.
        """
        self._may_run.release()
        self._has_paused.acquire()
        if self._error is not None:
            raise self._error
        return not self._is_over

    def stop(self) -> None:
        """End the thread, wherever it is."""
        self._is_stopped = True
        self._may_run.release()
        self._thread.join()

    def _run(self, model: nn.Module, feed: Feed) -> None:
        self._may_run.acquire()
        try:
            if not self._is_stopped:
                with torch.no_grad(), self._watch:
                    feed.run(model, feed.batches[self.number])
        except Enough:
            pass
        except BaseException as error:  # for the thread that waits for this one
            self._error = error
        self._is_over = True
        self._has_paused.release()

    def _pause(self) -> None:
        self._has_paused.release()
        self._may_run.acquire()
        if self._is_stopped:
            raise Enough

    def _at_begin(self, reader: Reader) -> None:
        if reader.layer.name in self._alone and reader.layer.name not in self._fitted:
            self.reader, self.seen = reader, None
            self._pause()

    def _at_use(self, reader: Reader, seen: Seen) -> bool:
        if reader.layer.name in self._alone:
            return False
        self._watch.seen.pop(reader.layer.name)
        if reader.layer.name not in self._fitted:
            self.reader, self.seen = reader, seen
            self._pause()
            self.seen = None
        return True
