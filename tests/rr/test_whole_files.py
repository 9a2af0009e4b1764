"""Files are written whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from rr.weights import (
    read_hdf5,
    read_pth,
    save_hdf5,
    save_pth,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    hdf5, pth = tmp_path / "a.hdf5", tmp_path / "a.pth"
    save_hdf5(hdf5, {"a": np.ones(2)}, {})
    save_pth(pth, {"a": 1})
    with pytest.raises(TypeError):
        save_hdf5(hdf5, {"a": np.zeros(2), "b": np.array([object()])}, {})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_pth(pth, {"a": lambda: 0})
    assert read_hdf5(hdf5).arrays["a"].tolist() == [1, 1]
    assert read_pth(pth) == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "a.pth"]
