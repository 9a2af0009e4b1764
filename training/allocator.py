"""The C library's memory on the CPU: kept between training steps instead of given back after each tensor."""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_MOST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more
_TOP_PAD = 64 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc reuse freed memory rather than give it back to the system.

    A training step frees all its activations, and glibc gives the upper end of them back each time: the next step takes
    the same pages again, thousands of page faults that cost a tenth of the step. The process then keeps as much as it
    held at its peak. Other C libraries, and allocators preloaded in glibc's place, stay as they are.

    Returns:
        Whether that could be set.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc
        return False
    settings = {_M_MMAP_THRESHOLD: _MOST_MMAP_THRESHOLD, _M_TRIM_THRESHOLD: _NEVER, _M_TOP_PAD: _TOP_PAD}
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items()])
