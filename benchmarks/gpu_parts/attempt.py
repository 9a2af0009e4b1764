"""Measurements that may fail, none of which is to take the others with it."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from benchmarks.gpu_parts.setting import Figures
from rr.errors import first_line


def attempted(work: Callable[[], Figures]) -> Figures:
    """What a piece of work returns, or under `failed` the error that it raises, whose traceback goes to stderr."""
    try:
        return work()
    except Exception as error:  # whatever a GPU, its compiler and its libraries raise is a result here
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {first_line(error)}"}
