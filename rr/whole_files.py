"""Files that are there whole or not at all: the one way in which this project writes one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rr.errors import InputError, WriteError

BESIDE_SUFFIX = ".new"  # of the file that is written beside another; a kill may leave one behind


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends without an error, it replaces `path`, safely on disk.

    If the block raises, `path` stays what it was, a file or none. Its folder is made if it isn't there.

    Raises:
        WriteError: if the system can't write.
    """
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}{BESIDE_SUFFIX}")
    with write_errors_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            _to_disk(beside)
            os.replace(beside, path)
            _to_disk(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def write_text_whole(path: str | Path, text: str) -> None:
    """Write a text file; the old one stays in its place until the new one is whole."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file, safely on disk; a kill can tear the last line, no other.

    Raises:
        WriteError: if the system can't write.
    """
    with write_errors_of(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def write_errors_of(path: str | Path) -> Iterator[None]:
    """Within the context, what the system says about writing `path` becomes a `WriteError`; any other error stays.

    Libraries that write wrap the system's error into their own, so the whole chain is looked at.
    """
    try:
        yield
    except Exception as error:
        cause = error
        while cause is not None and not (isinstance(cause, OSError) and cause.errno):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(error, InputError | WriteError):
            raise
        raise WriteError(f"can't write {path}: {os.strerror(cause.errno)}") from error


def _to_disk(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, would outlast a power cut."""
    if path.is_dir() and os.name == "nt":  # there a folder can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
