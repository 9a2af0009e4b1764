"""The process that this is: one of several or not, and what torch.compile has made in it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from tqdm import tqdm

logger = logging.getLogger(__name__)


def are_several() -> bool:
    """Whether torch.distributed runs."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this is rank 0, or the only process."""
    return not are_several() or dist.get_rank() == 0


@contextmanager
def stages(*names: str) -> Iterator[Callable[[], None]]:
    """A bar over what takes seconds before any step is taken, on a terminal and from rank 0; call when one is over."""
    with tqdm(total=len(names), desc=names[0], disable=None if is_first() else True, leave=False) as bar:

        def over() -> None:
            bar.update()
            bar.set_description(names[min(bar.n, len(names) - 1)])

        yield over


def compile_anew(reason: str) -> None:
    """Have all that torch.compile made in this process compiled anew at its next call, and say so, once.

    Compiled code knows nothing of hooks that came after it. torch has no way to forget the code of one model alone.
    """
    if is_first() and not compile_anew.was_told:
        compile_anew.was_told = True
        logger.info("from now on, what torch.compile made in this process is compiled anew when need be: %s", reason)
    torch.compiler.reset()


compile_anew.was_told = False
