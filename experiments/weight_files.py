"""What a person gives as a file of weights, looked at before it is read."""

from __future__ import annotations

from pathlib import Path

import h5py

from rr.errors import InputError

SUFFIXES = (".hdf5", ".h5", ".pth", ".pt", ".ckpt", ".tar", ".safetensors")


def check_is_weights(path: Path) -> None:
    """Check that this can be a file of weights; whether it is whole shows when it is read.

    Raises:
        InputError: if it can't.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        hint = f"give a file in it, {found[0]}, say" if found else "there is no file of weights in it"
        raise InputError(f"{path} is a folder: {hint}")
    if path.is_file() and path.suffix not in SUFFIXES and not h5py.is_hdf5(path):
        raise InputError(f"{path} is no file of weights: give one of {', '.join(SUFFIXES)}")
