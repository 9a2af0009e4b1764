"""A damage on which HDF5's own library never comes to an end, found before the library sees the file.

Texts of variable length (attributes) lie in global heaps, which have no checksum. An object there whose length is
nothing, or runs over, makes the library (2.0 and before) read the same place for ever. The layout is that of the HDF5
File Format Specification, section III.E, "Disk Format: Level 1E - Global Heap".
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from rr.errors import InputError

_SIGNATURE = b"GCOL\x01"  # and the version
_HEADER = 16  # bytes of a collection's header, and of an object's
_LARGEST = 2**62  # of a length, before sums run over


def check_heaps(path: str | Path) -> None:
    """Check that every global heap of an HDF5 file can be read to its end.

    Raises:
        InputError: if one can't.
    """
    if Path(path).stat().st_size == 0:  # can't be mapped, and holds none
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        place = contents.find(_SIGNATURE)
        while place >= 0:
            if not _ends(contents, place):
                raise InputError(f"{path} isn't a whole HDF5 file (a heap without end): write or copy it again")
            place = contents.find(_SIGNATURE, place + 1)


def _ends(contents: mmap.mmap, start: int) -> bool:
    """Whether a walk over a heap's objects, each behind the one before, comes to the heap's end."""
    if start + _HEADER > len(contents):
        return True  # the library sees that itself
    (size,) = struct.unpack_from("<Q", contents, start + 8)
    place, end = start + _HEADER, min(start + size, len(contents))
    while place + _HEADER <= end:
        number, length = struct.unpack_from("<H6xQ", contents, place)
        if length >= _LARGEST:
            return False
        step = _HEADER + -(-length // 8) * 8 if number else length  # object 0 is what is free, its header counted
        if step == 0:
            return False
        place += step
    return True
