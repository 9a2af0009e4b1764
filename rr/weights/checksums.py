"""Checksums of arrays, by which a file that was damaged on its way is known when it is read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM = "sha256"  # the name of the attribute

logger = logging.getLogger(__name__)


def of_array(array: np.ndarray) -> str:
    """The SHA-256 of an array's type, shape and values, in hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def of_file(arrays: Mapping[str, str], attributes: Mapping[str, Any], deps: Sequence[int] | None) -> str:
    """The SHA-256 of all that a file of weights says: names, the arrays' own checksums, attributes, widths.

    Args:
        arrays: each array's checksum by its name; their order doesn't count.
        attributes: of the file, plain values.
        deps: the width of each layer, for a converted network.
    """
    contents = [sorted(arrays.items()), sorted(attributes.items()), None if deps is None else list(deps)]
    text = json.dumps(contents, default=repr)  # of a damaged file, whose attributes may be anything
    return hashlib.sha256(text.encode()).hexdigest()


def tell_of_none(path: str | Path) -> None:
    """Log that nothing in a file could show a damage."""
    logger.info("%s has no checksum (another program's, or an older version's): damage in it would not show", path)
