"""Arrays by name: the kind of network that they are of, and the names that wrappers give them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from rr.weights import load_network, load_strict, read_hdf5, save_hdf5
from tests.rr.networks import small_model


def test_kinds_and_deps(tmp_path: Path) -> None:
    array = np.ones(2)
    save_hdf5(tmp_path / "training.hdf5", {"conv1.compactor.pwc.weight": array}, {})
    save_hdf5(tmp_path / "converted.hdf5", {"conv1.conv.weight": array}, {}, deps=[64, 3, 2])
    assert read_hdf5(tmp_path / "training.hdf5").kind == "training"
    file = read_hdf5(tmp_path / "converted.hdf5")
    assert (file.kind, file.deps, list(file.arrays)) == ("converted", [64, 3, 2], ["conv1.conv.weight"])
    with h5py.File(tmp_path / "converted.hdf5") as raw:
        assert raw["deps"].dtype == np.int64
        assert all(isinstance(raw[name], h5py.Dataset) for name in raw)


def test_a_network_whose_own_names_begin_as_a_wrappers_do(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.ModuleDict({"module": small_model()})

    source = build()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    loaded, _ = load_network(tmp_path / "a.pth", build)
    assert torch.equal(loaded["module"][0].weight, source["module"][0].weight)
    wrapped = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    with pytest.raises(ValueError, match=r"unknown to the model \(module\.module\."):
        load_strict(build(), wrapped, "wrapped twice")
