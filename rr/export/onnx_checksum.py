"""The checksum of an ONNX file: an entry of its metadata, the file's last bytes, of all the bytes before it.

ONNX files are protobuf messages, and what is appended to one is merged into it: every runtime reads the entry as one
more of the metadata, and no package is needed to write or to compare it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rr.errors import InputError
from rr.weights.checksums import CHECKSUM

_DIGITS = 64
# Field 14 of a ModelProto (metadata_props): an entry with a key (field 1) and a value (field 2), each with its size.
_ENTRY = bytes([0x72, 4 + len(CHECKSUM) + _DIGITS, 0x0A, len(CHECKSUM)]) + CHECKSUM.encode() + bytes([0x12, _DIGITS])


def with_checksum(contents: bytes) -> bytes:
    """A file's bytes with the checksum behind them."""
    return contents + _ENTRY + hashlib.sha256(contents).hexdigest().encode()


def check_onnx(path: str | Path) -> bool:
    """Compare a file with its checksum.

    Returns:
        Whether it has one.

    Raises:
        InputError: if the file isn't what was written.
    """
    contents = Path(path).read_bytes()
    end = len(contents) - len(_ENTRY) - _DIGITS
    if end < 0 or contents[end : end + len(_ENTRY)] != _ENTRY:
        return False
    if with_checksum(contents[:end]) != contents:
        raise InputError(f"{path} is damaged: what it holds isn't what was written: copy or write the file again")
    return True
