"""Damage on which HDF5's own library never comes to an end, or takes gigabytes, found before it gets there.

Texts of variable length (attributes) lie in global heaps, which have no checksum. An object there whose length is
nothing, or runs over, makes the library (2.0 and before) read the same place for ever. The attribute itself says how
long its text is, and the library takes as much memory before it looks whether there is such a text. The layouts are
those of the HDF5 File Format Specification, sections III.E, "Disk Format: Level 1E - Global Heap", and IV.A.2.m, "The
Attribute Message".
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from rr.errors import InputError

_SIGNATURE = b"GCOL\x01"  # and the version
_HEADER = 16  # bytes of a collection's header, and of an object's
_LARGEST = 2**62  # of a length, before sums run over
_VARIABLE = 9  # a datatype's class


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


def check_texts(path: str | Path, names: Collection[str | bytes]) -> None:
    """Check that no attribute says of its text that it is longer than the file.

    Args:
        path: the HDF5 file.
        names: of its attributes.

    Raises:
        InputError: if one does, or has a name that isn't text.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        for name in names:
            if not isinstance(name, str):  # h5py gives bytes that are no UTF-8 as they are
                raise InputError(f"{path} has an attribute {name!r}, whose name isn't text: write or copy it again")
            if any(length > len(contents) for length in _text_lengths(contents, name.encode() + b"\0")):
                raise InputError(f"{path} isn't a whole HDF5 file (a text without end): write or copy it again")


def _text_lengths(contents: mmap.mmap, name: bytes) -> Iterator[int]:
    """What every attribute of that name, in each version that a message can have, says of its text's length."""
    place = contents.find(name)
    while place >= 0:
        for version, header in ((1, 8), (2, 8), (3, 9)):
            start = place - header
            if start < 0 or contents[start] != version:
                continue
            sizes = struct.unpack_from("<HHH", contents, start + 2)  # of the name, the datatype and the dataspace
            if version == 1:
                sizes = tuple(-(-size // 8) * 8 for size in sizes)
            data = place + sum(sizes)
            if data + 4 <= len(contents) and contents[place + sizes[0]] & 15 == _VARIABLE:
                yield struct.unpack_from("<I", contents, data)[0]
        place = contents.find(name, place + 1)
