"""Damage that HDF5's own library would take gigabytes for."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from rr.errors import InputError
from rr.weights import read_hdf5
from rr.weights.hdf5_heaps import check_texts


def written(path: Path, version: str, length: int = 77) -> Path:
    """A file with an attribute of 77 letters, which says that it has so many."""
    with h5py.File(path, "w", libver=version) as file:
        file["a"] = np.ones(2, np.float32)
        file["a"].attrs["note"] = "y"
        file["a"].attrs["sha256"] = "x" * 77
    contents = path.read_bytes()
    place = contents.index((77).to_bytes(4, "little"), contents.index(b"sha256\0"))
    path.write_bytes(contents[:place] + length.to_bytes(4, "little") + contents[place + 4 :])
    return path


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_a_text_longer_than_the_file_is_found(version: str, tmp_path: Path) -> None:
    check_texts(written(tmp_path / "a.hdf5", version), {"note", "sha256", "none"})
    path = written(tmp_path / "a.hdf5", version, length=2**32 - 1)
    with pytest.raises(InputError, match="a text without end"):
        check_texts(path, {"note", "sha256"})
    check_texts(path, {"note"})


def test_a_file_with_such_a_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is damaged"):  # whole, but no checksum
        read_hdf5(written(tmp_path / "a.hdf5", "earliest"))
    with pytest.raises(InputError, match="a text without end"):
        read_hdf5(written(tmp_path / "a.hdf5", "earliest", length=2**32 - 1))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    contents = written(tmp_path / "a.hdf5", "earliest").read_bytes()
    (tmp_path / "a.hdf5").write_bytes(contents.replace(b"note\0", b"no\xe9e\0"))
    with pytest.raises(InputError, match="whose name isn't text"):
        read_hdf5(tmp_path / "a.hdf5")
