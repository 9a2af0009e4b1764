"""HDF5 files of weights: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rr.weights import read_hdf5, save_hdf5
from tests.rr.networks import small_model


def test_hdf5_gives_back_what_was_saved(tmp_path: Path) -> None:
    state = small_model().state_dict()
    attributes = {"arch": "src20", "note": "Ä " * 100, "epochs": 480, "lr": 0.01, **{f"x{i}": i for i in range(20)}}
    save_hdf5(tmp_path / "new" / "a.hdf5", state, attributes)
    file = read_hdf5(tmp_path / "new" / "a.hdf5")
    assert file.kind == "base"
    assert file.deps is None
    assert file.attributes == attributes
    assert {type(value) for value in file.attributes.values()} == {str, int, float}
    assert list(file.arrays) == [name for name in state if not name.endswith("num_batches_tracked")]
    for name, array in file.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, state[name].numpy())


def test_hdf5_keeps_types_and_scalars(tmp_path: Path) -> None:
    arrays = {"a": np.float64(1.5), "b": torch.arange(3), "c": np.array([True, False]), "d": torch.zeros(0, 2)}
    save_hdf5(tmp_path / "a.hdf5", arrays, {})
    read = read_hdf5(tmp_path / "a.hdf5").arrays
    assert {name: (str(array.dtype), array.shape) for name, array in read.items()} == {
        "a": ("float64", ()),
        "b": ("int64", (3,)),
        "c": ("bool", (2,)),
        "d": ("float32", (0, 2)),
    }


@pytest.mark.parametrize("name", ["a/b", "deps"])
def test_hdf5_refuses_names_of_its_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        save_hdf5(tmp_path / "a.hdf5", {name: np.ones(2)}, {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("group/array", np.ones(2), "isn't an array of numbers"),
        ("text", "hello", "isn't an array of numbers"),
        ("deps", np.ones(2), "whole numbers"),
        ("deps", 3, "whole numbers"),
    ],
)
def test_other_hdf5_files_are_refused(name: str, value: object, message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file[name] = value
    with pytest.raises(ValueError, match=message):
        read_hdf5(tmp_path / "a.hdf5")
