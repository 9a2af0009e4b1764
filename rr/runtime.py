"""This process: whether it is one of several, how far its work is, and what torch.compile has made in it."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from rr.errors import InputError

logger = logging.getLogger(__name__)

T = TypeVar("T")

IN_BAR = {"progress": True}  # of a log line that a terminal shows as a bar: a script's handler leaves it out there
SECONDS_BETWEEN = 10.0  # two lines that say how far something is


def are_several() -> bool:
    """Whether torch.distributed is running."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this is rank 0, or the only process."""
    return not are_several() or dist.get_rank() == 0


def as_first_decides(mask: np.ndarray, like: Tensor) -> np.ndarray:
    """Rank 0's array of bool in all processes, so that no rounding lets them diverge.

    Args:
        mask: this process's.
        like: a tensor on the device that the processes talk over.
    """
    if not are_several():
        return mask
    decided = torch.from_numpy(mask).to(like.device, torch.uint8)
    dist.broadcast(decided, src=0)
    return decided.cpu().numpy().astype(bool)


def of_first(work: Callable[[], T]) -> T:
    """What rank 0's work comes to, in all processes; where it raises an InputError, all do.

    Args:
        work: done by rank 0 alone; what it returns must be what pickle takes.
    """
    if not are_several():
        return work()
    found: list[object] = [None, None]
    if is_first():
        try:
            found[0] = work()
        except InputError as error:
            found[1] = str(error)
    dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise InputError(found[1])
    return found[0]


@contextmanager
def stages(*names: str) -> Iterator[Callable[[], None]]:
    """How far it is with what takes seconds before the first step: a bar on a terminal, else lines of the log; rank 0.

    Args:
        names: of the stages, in order.

    Yields:
        A function to call when a stage is over.
    """
    with _bar(len(names), names[0]) as bar:
        is_told = bar.disable and is_first()
        left = list(names)

        def begin() -> None:
            if left:
                name = left.pop(0)
                bar.set_description(name)
                if is_told:
                    logger.info("%s", name, extra=IN_BAR)

        def over() -> None:
            bar.update()
            begin()

        begin()
        yield over


class Progress:
    """How far it is with many parts of one kind: a bar on a terminal, else a line of the log now and then; rank 0.

    Use it as a context manager around the work.

    Args:
        what: what is done, in words.
        total: how many parts there are.
        parts: what they are, in the plural.
    """

    def __init__(self, what: str, total: int, parts: str) -> None:
        self._what, self._total, self._parts, self._done = what, total, parts, 0
        self._bar = _bar(total, what, unit=f" {parts}")
        self._is_told = self._bar.disable and is_first()

    def __enter__(self) -> "Progress":
        self._tell()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self) -> None:
        """Another part is done."""
        self._bar.update()
        self._done += 1
        if time.monotonic() - self._since >= SECONDS_BETWEEN:
            self._tell()

    def _tell(self) -> None:
        self._since = time.monotonic()
        if self._is_told:
            logger.info("%s: %d of %d %s", self._what, self._done, self._total, self._parts, extra=IN_BAR)


def _bar(total: int, what: str, **more: Any) -> tqdm:
    """A bar on rank 0's terminal, gone when it is done."""
    # A terminal that doesn't know its size (in a container, say) says 0, and tqdm would draw nothing.
    if sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns == 0:
        more |= {"ncols": 120, "nrows": 20}
    return tqdm(total=total, desc=what, disable=None if is_first() else True, leave=False, **more)


def compile_anew(reason: str) -> None:
    """Have all that torch.compile made in this process compiled again at its next call; say so, once, if there is any.

    Compiled code knows nothing of hooks that were added after it. torch has no way to forget the code of one model
    alone.

    Args:
        reason: what changed, for the log.
    """
    if is_first() and not compile_anew.was_told and _has_compiled():
        compile_anew.was_told = True
        logger.info("from now on, what torch.compile made in this process is compiled again when needed: %s", reason)
    torch.compiler.reset()


compile_anew.was_told = False


def _has_compiled() -> bool:
    """Whether torch.compile has been at work in this process."""
    compiler = sys.modules.get("torch._dynamo.utils")  # not there before the first call
    return compiler is not None and compiler.counters["frames"]["total"] > 0
