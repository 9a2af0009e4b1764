"""What a file of weights must be before anybody works with it, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rr.errors import InputError
from rr.weights.arrays import WeightFile, to_array

_VARIANCE = "running_var"
_ALWAYS_ALLOWED = 64 * 2**20  # bytes in memory, however small the file
_MOST_COMPRESSION = 10  # times a file's size: weights hardly compress
_LONGEST_TEXT = 2**20  # of an attribute
_TEXTS = ("arch", "dataset")  # attributes by which a network is built again
_MOST = {"num_classes": 2**31, "in_channels": 2**31, "image_size": 2**14}
NUMBERS = frozenset(  # NumPy has these, or a wider one that holds them exactly
    {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)


def check_size(path: str | Path, sizes: Mapping[str, int]) -> None:
    """Check, before any array is read, that a file can hold what it says.

    Args:
        path: the file.
        sizes: what each array would take in memory, in bytes.

    Raises:
        InputError: if it would be far more than the file has.
    """
    total, allowed = sum(sizes.values()), max(_ALWAYS_ALLOWED, _MOST_COMPRESSION * Path(path).stat().st_size)
    if total > allowed:
        raise InputError(
            f"{path} has {Path(path).stat().st_size:,} bytes and asks for {total:,}: no weights are so compressed; "
            "write it again, uncompressed"
        )


def arrays_of(path: str | Path, state: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The tensors of a state dict as arrays.

    Raises:
        InputError: for a name that isn't text, or a tensor that isn't one of plain numbers in memory.
    """
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise InputError(f"{path} has a name that isn't text, {name!r:.50}: save a model's state dict")
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not is_plain or tensor.is_nested or tensor.is_quantized or tensor.dtype not in NUMBERS:
            kind = f"{tensor.layout}, {tensor.dtype}, {tensor.device}" if isinstance(tensor, Tensor) else type(tensor)
            raise InputError(f"{path} holds {name!r:.80}, which isn't a tensor of plain numbers ({kind}): convert it")
    check_size(path, {name: tensor.numel() * tensor.element_size() for name, tensor in state.items()})
    return {name: to_array(tensor) for name, tensor in state.items()}


def check_weights(path: str | Path, file: WeightFile) -> None:
    """Check names, attributes and values.

    Raises:
        InputError: for a name with letters that can't be shown, an attribute that isn't a text or a number, a value
            that isn't a number, a negative variance, a type that torch lacks.
    """
    for name, array in file.arrays.items():
        if not name.isprintable():
            raise InputError(f"{path} has a name that can't be shown, {name!r:.80}: save a model's state dict")
        if array.dtype.kind == "f":
            if array.dtype.itemsize > 8:
                raise InputError(f"{path}: {name} is of type {array.dtype}, which torch lacks: write it as float64")
            if np.isnan(array).any():
                raise InputError(f"{path}: {name} holds NaN: the training that wrote it failed, or the file is damaged")
            if name.rpartition(".")[2] == _VARIANCE and (array < 0).any():
                raise InputError(f"{path}: {name} holds negative variances: the file is damaged, or no BN wrote it")
    for name, value in file.attributes.items():
        is_plain = isinstance(value, (str, int, float)) and len(str(value)) <= _LONGEST_TEXT
        if not (isinstance(name, str) and name.isprintable() and is_plain):
            raise InputError(f"{path} has an attribute {name!r:.80} that isn't a text or a number: write it as one")
        if name in _MOST and not (type(value) is int and 1 <= value <= _MOST[name]):
            raise InputError(f"{path} has {name} {value!r:.80}, and it's a whole number from 1 to {_MOST[name]:,}")
        if name in _TEXTS and not (isinstance(value, str) and value):
            raise InputError(f"{path} has {name} {value!r:.80}, and it's a name: write it as a text")
