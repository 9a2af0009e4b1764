"""What is said of a path that is no file of weights, or one of another kind than is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.weight_files import check_is_done, check_is_weights
from rr import InputError
from rr.compactors import WEIGHT_SUFFIX
from rr.weights import WeightFile


def test_of_a_folder_the_likeliest_file_is_named(tmp_path: Path) -> None:
    for name in ("before_first_mask.hdf5", "finish.hdf5", "finish_converted.hdf5"):
        (tmp_path / name).touch()
    for made, of_full, meant in (
        (None, False, "finish_converted.hdf5"),
        ("finish_converted.safetensors", False, "finish_converted.safetensors"),
        (None, True, "finish.hdf5"),
    ):
        if made:
            (tmp_path / made).touch()
        with pytest.raises(InputError, match=f"{tmp_path} is a folder: give a file in it, {tmp_path / meant}, say"):
            check_is_weights(tmp_path, of_full=of_full)


def test_what_is_missing_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*none\.hdf5"):
        check_is_weights(tmp_path / "none.hdf5")


def test_beside_a_network_in_training_the_pruned_one_is_named(tmp_path: Path) -> None:
    file = WeightFile({f"conv{WEIGHT_SUFFIX}": np.zeros((1, 1, 1, 1))}, {}, None)
    with pytest.raises(InputError, match="convert it first"):
        check_is_done(tmp_path / "finish.hdf5", file)
    (tmp_path / "finish_converted.safetensors").touch()
    with pytest.raises(InputError, match=rf"compactors: give {tmp_path / 'finish_converted.safetensors'}$"):
        check_is_done(tmp_path / "finish.hdf5", file)
