"""How the scripts tell a person that what they gave is wrong: one line, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn a ValueError or FileNotFoundError into one line `error: ...` on stderr and exit code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        # Messages of libraries may have several lines.
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
