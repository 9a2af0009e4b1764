"""The checksum of an ONNX file: an entry of its metadata, the file's last bytes, of all the bytes before it.

ONNX files are protobuf messages, and what is appended to one is merged into it: every runtime reads the entry as one
more of the metadata, and no package is needed to write or to compare it. Programs that change a network keep its
metadata, this entry among them; so it says of how many bytes it is, which damage doesn't change, and they do.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rr.errors import InputError
from rr.weights.checksums import CHECKSUM

_VALUE = "{} of {:016d} bytes"
_LENGTH = len(_VALUE.format("0" * 64, 0))
# Field 14 of a ModelProto (metadata_props): an entry with a key (field 1) and a value (field 2), each with its size.
_ENTRY = bytes([0x72, 4 + len(CHECKSUM) + _LENGTH, 0x0A, len(CHECKSUM)]) + CHECKSUM.encode() + bytes([0x12, _LENGTH])


def with_checksum(contents: bytes) -> bytes:
    """A file's bytes with the checksum behind them."""
    return contents + _ENTRY + _VALUE.format(hashlib.sha256(contents).hexdigest(), len(contents)).encode()


def check_onnx(path: str | Path) -> bool:
    """Compare a file with its checksum.

    Returns:
        Whether it has one, of as many bytes.

    Raises:
        InputError: if the file isn't what was written.
    """
    contents = Path(path).read_bytes()
    end = len(contents) - len(_ENTRY) - _LENGTH
    found = contents[max(end, 0) :]
    if not found.startswith(_ENTRY) or not found.endswith(_VALUE.format("", end).encode()):
        return False
    if with_checksum(contents[:end]) != contents:
        raise InputError(
            f"{path} is damaged, or another program has changed it: it isn't what was written: copy or export it again"
        )
    return True
