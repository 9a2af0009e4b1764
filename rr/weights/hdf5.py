"""Weights in HDF5, under the names and in the shapes of the method's first implementation.

A file has one dataset per weight at its root, named as in the state dict, and may have attributes. The file of a
converted network also has the dataset `deps` (int64): the width of each layer. BN's `num_batches_tracked` isn't stored:
nothing here reads it. Each dataset has the checksum of its array as an attribute, `sha256`, and the file has that of
them all, which its own readers compare and others don't see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from rr.errors import InputError, in_one_line
from rr.weights import checksums
from rr.weights.arrays import WeightFile, check_is_file, to_array, without_counters
from rr.weights.checksums import CHECKSUM
from rr.weights.hdf5_heaps import check_heaps, check_texts
from rr.weights.soundness import check_size, check_weights
from rr.whole_files import written_whole

DEPS = "deps"


def save_hdf5(
    path: str | Path,
    state: Mapping[str, Tensor | np.ndarray],
    attributes: Mapping[str, str | int | float],
    deps: Sequence[int] | None = None,
) -> None:
    """Write weights to an HDF5 file; if that fails, the old file, or none, stays in its place.

    Args:
        path: the file; its folder is made if it isn't there.
        state: tensor or array by name, as in a state dict; `num_batches_tracked` entries are left out.
        attributes: attributes of the file.
        deps: the width of each layer, for a converted network.

    Raises:
        InputError: for a name that HDF5 or the format keeps for itself.
    """
    for name in state:
        if "/" in name or name == DEPS:
            raise InputError(f"an array called {name!r} can't be stored: rename the module or the parameter")
    if CHECKSUM in attributes:
        raise InputError(f"an attribute called {CHECKSUM!r} can't be stored: the file has one of its own")
    arrays = {
        name: to_array(value) if isinstance(value, Tensor) else np.asarray(value)
        for name, value in without_counters(state).items()
    }
    sums = {name: checksums.of_array(array) for name, array in arrays.items()}
    # Made in memory: on a disk that is full, HDF5 would leave tracebacks behind that nobody can catch.
    with h5py.File(Path(path).name, "w", driver="core", backing_store=False, track_order=True) as file:
        for name, array in arrays.items():  # track_order: they are read back in the model's order, not the alphabet's
            file[name] = array
            file[name].attrs[CHECKSUM] = sums[name]
        if deps is not None:
            file[DEPS] = np.asarray(deps, dtype=np.int64)
        for name, value in attributes.items():
            file.attrs[name] = value
        file.attrs[CHECKSUM] = checksums.of_file(sums, attributes, deps)
        file.flush()
        contents = file.id.get_file_image()
    with written_whole(path) as temporary:
        temporary.write_bytes(contents)


def read_hdf5(path: str | Path) -> WeightFile:
    """Read all of a file that `save_hdf5` or the first implementation of the method wrote, and nothing outside of it.

    Raises:
        InputError: if the file is missing, isn't HDF5, is truncated, damaged or isn't one of weights.
    """
    check_is_file(path)
    check_heaps(path)
    try:
        with h5py.File(path, "r") as file:
            check_size(path, _sizes(path, file))
            check_texts(path, {name for entry in (file, *file.values()) for name in entry.attrs})
            entries = {name: np.asarray(entry[()]) for name, entry in file.items()}
            sums = {name: _plain(entry.attrs.get(CHECKSUM)) for name, entry in file.items() if name != DEPS}
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py, for damage in different places
        raise InputError(
            f"{path} isn't a whole HDF5 file ({in_one_line(str(error))}): write or copy it again"
        ) from error
    deps = entries.pop(DEPS, None)
    if deps is not None and (deps.ndim != 1 or deps.dtype.kind not in "iu"):
        raise InputError(f"{path} has deps that aren't a list of whole numbers: convert the model again")
    file_sum = attributes.pop(CHECKSUM, None)
    found = WeightFile(entries, attributes, None if deps is None else deps.tolist())
    if file_sum is None and all(value is None for value in sums.values()):
        checksums.tell_of_none(path)
    else:
        _compare(path, found, sums, file_sum)
    check_weights(path, found)
    return found


def _sizes(path: str | Path, file: h5py.File) -> dict[str, int]:
    """What each array takes in memory, in bytes; nothing of its values is read.

    Raises:
        InputError: for what isn't an array of numbers within this very file.
    """
    sizes = {}
    for name in file:
        entry = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
            raise InputError(f"{path} holds {name!r}, which isn't an array of its own: give a file of weights")
        if entry.dtype.kind not in "biuf" or entry.shape is None:
            raise InputError(f"{path} holds {name!r}, which isn't an array of numbers: give a file of weights")
        sizes[name] = math.prod(entry.shape) * entry.dtype.itemsize  # h5py's own product can overflow
    return sizes


def _compare(path: str | Path, found: WeightFile, sums: Mapping[str, Any], file_sum: Any) -> None:
    """Check that all is as it was written.

    Raises:
        InputError: if it isn't.
    """
    for name, array in found.arrays.items():
        if not isinstance(sums[name], str) or sums[name] != checksums.of_array(array):
            raise InputError(f"{path} is damaged: {name!r} isn't what was written: copy or write the file again")
    if not isinstance(file_sum, str) or file_sum != checksums.of_file(sums, found.attributes, found.deps):
        raise InputError(f"{path} is damaged: what was written isn't all there: copy or write the file again")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
