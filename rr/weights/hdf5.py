"""Weights in HDF5, under the names and in the shapes of the method's first implementation.

A file has one dataset per weight at its root, named as in the state dict, and may have attributes. The file of a
converted network also has the dataset `deps` (int64): the width of each layer. BN's `num_batches_tracked` isn't stored:
nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from torch import Tensor

from rr.errors import InputError
from rr.weights.arrays import WeightFile, check_is_file, to_array, without_counters
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
    # track_order: the arrays are read back in the order of the model, not of the alphabet.
    with written_whole(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for name, value in without_counters(state).items():
            file[name] = to_array(value) if isinstance(value, Tensor) else value
        if deps is not None:
            file[DEPS] = np.asarray(deps, dtype=np.int64)
        for name, value in attributes.items():
            file.attrs[name] = value


def read_hdf5(path: str | Path) -> WeightFile:
    """Read all of a file that `save_hdf5` or the first implementation of the method wrote.

    Raises:
        InputError: if the file is missing, isn't HDF5, is truncated or isn't one of weights.
    """
    check_is_file(path)
    try:
        with h5py.File(path, "r") as file:
            entries = {
                name: np.asarray(entry[()]) if isinstance(entry, h5py.Dataset) else None for name, entry in file.items()
            }
            attributes = {
                name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()
            }
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py, for damage in different places
        raise InputError(f"{path} isn't a whole HDF5 file ({error}): write or copy it again") from error
    for name, array in entries.items():
        if array is None or array.dtype.kind not in "biuf":
            raise InputError(f"{path} holds {name!r}, which isn't an array of numbers: give a file of weights")
    deps = entries.pop(DEPS, None)
    if deps is not None and (deps.ndim != 1 or deps.dtype.kind not in "iu"):
        raise InputError(f"{path} has deps that aren't a list of whole numbers: convert the model again")
    return WeightFile(entries, attributes, None if deps is None else deps.tolist())
