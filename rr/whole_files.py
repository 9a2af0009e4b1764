"""Files that are there whole or not at all: the one way in which this project writes one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BESIDE_SUFFIX = ".new"  # of the file that is written beside another; a kill may leave one behind


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends without an error, it replaces `path`, safely on disk.

    If the block raises, `path` stays what it was, a file or none. Its folder is made if it isn't there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}{BESIDE_SUFFIX}")
    try:
        yield beside
        _to_disk(beside)
        beside.replace(path)
        _to_disk(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_text_whole(path: str | Path, text: str) -> None:
    """Write a text file; the old one stays in its place until the new one is whole."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _to_disk(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, would outlast a power cut."""
    if path.is_dir() and os.name == "nt":  # there a folder can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
