"""The process that this is: one of several or not, and what torch.compile has made in it."""

import logging

import torch
import torch.distributed as dist

logger = logging.getLogger(__name__)


def are_several() -> bool:
    """Whether torch.distributed runs."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this is rank 0, or the only process."""
    return not are_several() or dist.get_rank() == 0


def compile_anew(reason: str) -> None:
    """Have all that torch.compile made in this process compiled anew at its next call, and say so.

    Compiled code knows nothing of hooks that came after it. torch has no way to forget the code of one model alone.
    """
    if is_first():
        logger.info("what torch.compile made in this process is compiled anew: %s", reason)
    torch.compiler.reset()
