"""Which process of a run is gone or hangs: all that still work sign a list when they lose the connection.

Nothing here needs torch, so that a script's end can know the error.
"""

from __future__ import annotations

import threading
import time
from typing import Any

PATIENCE = 5.0  # seconds without another signature after which the list is closed
LOOK = 0.1  # seconds between two looks at it
AFTER_THE_FIRST = 1.0  # seconds: a launcher ends all as soon as one has left, and the first one is to speak before

_OF_THE_CONNECTION = ("gloo/transport", "application timeout caused pair closure", "nccl")  # gloo's and NCCL's words
_TOOK_TOO_LONG = ("timed out", "timeout")
_TOO_SHORT = "all processes are there, but one of them took longer than the others wait: raise --process-timeout"


class ProcessLost(RuntimeError):
    """Another process of this run doesn't answer any more.

    The scripts show it as one line and end with exit code 1.

    Args:
        message: which one, in words.
        is_told_here: whether this process is the one of those left that says so.
    """

    def __init__(self, message: str, *, is_told_here: bool) -> None:
        super().__init__(message)
        self.is_told_here = is_told_here


def is_of_connection(error: BaseException | None) -> bool:
    """Whether an error is what a process meets when another one is gone, or hangs for longer than it waits."""
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _OF_THE_CONNECTION)


def lost(error: BaseException, store: Any, rank: int, size: int) -> ProcessLost:
    """What is to be raised in place of an error of the connection; takes some seconds.

    Args:
        error: the error.
        store: torch's, which the processes met in.
        rank: this process.
        size: how many there are.
    """
    is_cut = not any(mark in str(error).lower() for mark in _TOOK_TOO_LONG)
    present: set[int] = set()
    # Where the process that keeps the list is stopped, asking it never ends.
    signing = threading.Thread(target=_sign, args=(store, rank, size, is_cut, present), daemon=True)
    signing.start()
    signing.join(3 * PATIENCE)
    if not present or signing.is_alive():
        return ProcessLost(f"{_of(['0'], size)}, or the launcher does: one of them keeps the list", is_told_here=True)
    missing = [str(other) for other in range(size) if other not in present]
    if not missing:
        words = f"the {size} processes of this run lost their connection" if is_cut else _TOO_SHORT
    else:
        words = _of(missing, size)
    return ProcessLost(words, is_told_here=rank == min(present))


def _of(missing: list[str], size: int) -> str:
    is_one = len(missing) == 1
    which = f"process{'' if is_one else 'es'} {', '.join(missing)} of {size} (from 0)"
    return f"{which} {'is' if is_one else 'are'} gone, or hang{'s' * is_one}"


def _sign(store: Any, rank: int, size: int, is_cut: bool, present: set[int]) -> None:
    """Sign, and add to `present` all who have, until all have or nobody comes any more."""
    try:
        store.set(_name(rank), "")
        present.add(rank)
        began = since = time.monotonic()
        while len(present) < size and time.monotonic() < min(since + PATIENCE, began + 2 * PATIENCE):
            come = {other for other in range(size) if other not in present and store.check([_name(other)])}
            if come:
                present |= come
                since = time.monotonic()
            if is_cut and min(present) < rank:
                return  # another one tells, and who waits for this one notices nothing before it ends
            time.sleep(LOOK)
        if min(present) < rank:
            time.sleep(AFTER_THE_FIRST)
    except RuntimeError:  # torch's, of a store whose process has ended: its list is over
        if 0 not in present:
            present.clear()


def _name(rank: int) -> str:
    return f"process {rank} works"
