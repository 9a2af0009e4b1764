"""Tensors and plain values in files that torch.save wrote, read without running anything that the file says."""

from __future__ import annotations

import argparse
import codecs
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rr.errors import InputError
from rr.records import check_records
from rr.weights import checksums
from rr.weights.arrays import check_is_file
from rr.whole_files import written_whole


def save_pth(path: str | Path, payload: Any) -> None:
    """Write tensors and plain values (dicts, lists, strings, numbers) with torch.save, whole or not at all.

    Args:
        path: the file; its folder is made if it isn't there.
        payload: what `read_pth` gives back.
    """
    with written_whole(path) as temporary, open(temporary, "wb") as file:  # torch tells no reason if it opens the file
        torch.save(payload, file)


def read_pth(path: str | Path) -> Any:
    """Read a file of tensors and plain values onto the CPU, executing nothing that the file says.

    The options of a script, an argparse.Namespace, count as plain, and so do NumPy's numbers and arrays: training
    scripts store them beside their weights.

    Raises:
        InputError: if the file is missing, broken, or holds anything else.
    """
    check_is_file(path)
    if not check_records(path):
        checksums.tell_of_none(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *_of_numpy()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the unpickler raise nearly anything
        if others := _other_classes(path):
            raise InputError(
                f"{path} holds more than tensors and plain values ({', '.join(others)}), which only running what the "
                "file says would bring back: save the state dict alone, torch.save(model.state_dict(), FILE)"
            ) from error
        reason = type(error).__name__  # torch's own message is a page long
        raise InputError(
            f"{path} isn't a whole .pth file of tensors and plain values ({reason}): write or copy it again"
        ) from error


def _of_numpy() -> list[Any]:
    """What NumPy's scalars and arrays of numbers are rebuilt from, under the names of NumPy 1 and 2."""
    rebuild_array, rebuild_scalar = np.zeros(1).__reduce__()[0], np.float64(1).__reduce__()[0]
    functions = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (rebuild_array, rebuild_scalar)
        for core in ("core", "_core")
    ]
    return [*functions, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in np.sctypeDict.values()), codecs.encode]


def _other_classes(path: str | Path) -> list[str]:
    """What else than tensors and plain values a whole file would bring back, by name; empty for a broken one."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # no zip file, or a broken one
        return []
    allowed = {name for item in _of_numpy() if isinstance(item, tuple) for name in item[1:]}
    plain = ("numpy.", "builtins.", "collections.")
    return sorted(name for name in found if name not in allowed and not name.startswith(plain))[:5]
