"""What a person gives as a file of weights: whether it can be one, and one of the kind that is wanted."""

from __future__ import annotations

from pathlib import Path

import h5py

from rr.errors import InputError
from rr.weights import WeightFile
from rr.weights.arrays import check_is_file
from training.run_folder import CONVERTED, CONVERTED_WEIGHTS, FINISH_WEIGHTS

# In a run's folder: a pruned network's files, first the one that stands alone; and a full one's.
PRUNED, FULL = (CONVERTED[0], CONVERTED_WEIGHTS), (FINISH_WEIGHTS,)
SUFFIXES = (".hdf5", ".h5", ".pth", ".pt", ".ckpt", ".tar", ".safetensors")


def check_is_weights(path: Path, *, of_full: bool = False) -> None:
    """Check that this is a file, and can be one of weights; whether it is whole shows when it is read.

    Args:
        path: the file.
        of_full: whether the full network's are wanted, where a folder has both.

    Raises:
        InputError: if it can't; of a folder, with the file in it that is likeliest meant.
    """
    if path.is_dir():
        order = FULL + PRUNED if of_full else PRUNED + FULL
        others = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        found = [path / name for name in order if (path / name).is_file()] or others
        hint = f"give a file in it, {found[0]}, say" if found else "there is no file of weights in it"
        raise InputError(f"{path} is a folder: {hint}")
    check_is_file(path)
    if path.suffix not in SUFFIXES and not h5py.is_hdf5(path):
        raise InputError(f"{path} is no file of weights: give one of {', '.join(SUFFIXES)}")


def check_is_done(path: Path, file: WeightFile) -> None:
    """Check that a file holds no network in training.

    Raises:
        InputError: if it does, with the pruned one that lies beside it.
    """
    if file.kind == "training":
        beside = [path.with_name(name) for name in PRUNED if path.with_name(name).is_file()]
        fix = f"give {beside[0]}" if beside else "convert it first"
        raise InputError(f"{path} holds a network in training, with its compactors: {fix}")
