"""This process: whether it is one of several, and what torch.compile has made in it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger(__name__)


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


@contextmanager
def stages(*names: str) -> Iterator[Callable[[], None]]:
    """A progress bar over what takes seconds before the first step, on a terminal and from rank 0.

    Args:
        names: of the stages, in order.

    Yields:
        A function to call when a stage is over.
    """
    with tqdm(total=len(names), desc=names[0], disable=None if is_first() else True, leave=False) as bar:

        def over() -> None:
            bar.update()
            bar.set_description(names[min(bar.n, len(names) - 1)])

        yield over


def compile_anew(reason: str) -> None:
    """Have all that torch.compile made in this process compiled again at its next call, and say so, once.

    Compiled code knows nothing of hooks that were added after it. torch has no way to forget the code of one model
    alone.

    Args:
        reason: what changed, for the log.
    """
    if is_first() and not compile_anew.was_told:
        compile_anew.was_told = True
        logger.info("from now on, what torch.compile made in this process is compiled again when needed: %s", reason)
    torch.compiler.reset()


compile_anew.was_told = False
