"""HDF5 files of weights: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rr.errors import InputError
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
        ("group/array", np.ones(2), "isn't an array of its own"),
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


def test_nothing_outside_of_the_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["s"] = np.full(4, 777.0, np.float32)

    def linked(file: h5py.File) -> None:
        file["w"] = h5py.ExternalLink(str(secret), "/s")

    def soft(file: h5py.File) -> None:
        file["w"] = h5py.SoftLink("/elsewhere")

    def raw(file: h5py.File) -> None:
        file.create_dataset("w", (16,), "u1", external=[(str(secret), 0, 16)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "s", (4,))
        file.create_virtual_dataset("w", layout)

    for number, write in enumerate((linked, soft, raw, virtual)):
        path = tmp_path / f"{number}.hdf5"
        with h5py.File(path, "w") as file:
            write(file)
        with pytest.raises(InputError, match="'w', which isn't an array of its own"):
            read_hdf5(path)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40, 2**40)])
def test_a_small_file_cannot_ask_for_much_memory(shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", shape, dtype="f8", chunks=(100, 100), compression="gzip")
    with pytest.raises(InputError, match="asks for"):
        read_hdf5(path)


@pytest.mark.slow
def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """Of all bits in a small file: an error, or all that a reader gets is as it was."""
    path, state = tmp_path / "a.hdf5", {"a.weight": torch.arange(6.0).reshape(2, 3), "a.running_var": torch.ones(2)}
    save_hdf5(path, state, {"arch": "src20", "epochs": 3}, deps=[2])
    whole, before = path.read_bytes(), read_hdf5(path)
    noticed = 0
    for place in range(0, len(whole), 7):  # each 7th byte, a bit of it
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_hdf5(path)
        except InputError:
            noticed += 1
            continue
        assert list(found.arrays) == list(before.arrays)
        assert all(np.array_equal(found.arrays[name], array) for name, array in before.arrays.items())
        assert (found.attributes, found.deps) == (before.attributes, before.deps)
    assert noticed > 50


def test_each_array_is_compared_with_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    save_hdf5(path, {"a": torch.ones(3), "b": torch.ones(3)}, {"arch": "src20"}, deps=[3])

    def value(file: h5py.File) -> None:
        file["b"][1] = 2

    def gone(file: h5py.File) -> None:
        del file["b"]

    def attribute(file: h5py.File) -> None:
        file.attrs["arch"] = "src56"

    def widths(file: h5py.File) -> None:
        file["deps"][0] = 2

    def unsigned(file: h5py.File) -> None:
        del file["b"].attrs["sha256"]

    whole = path.read_bytes()
    for change in (value, gone, attribute, widths, unsigned):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(InputError, match="is damaged"):
            read_hdf5(path)


def test_a_file_without_checksums_is_read_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["a"] = np.ones(3)
    save_hdf5(tmp_path / "ours.hdf5", {"a": np.ones(3)}, {})
    with caplog.at_level("INFO"):
        read_hdf5(tmp_path / "ours.hdf5")
        assert not caplog.messages
        read_hdf5(tmp_path / "other.hdf5")
    assert "other.hdf5 has no checksum" in caplog.text


def test_a_damaged_arrays_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["a\x1b[2J"] = np.ones(2)
        file["a\x1b[2J"].attrs["sha256"] = "another"
    with pytest.raises(InputError, match="is damaged") as raised:
        read_hdf5(tmp_path / "a.hdf5")
    assert str(raised.value).isprintable()


def test_a_checksum_that_is_no_text_is_damage(tmp_path: Path) -> None:
    for owner in ("a", "/"):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file["a"] = np.ones(2, np.float32)
            file.attrs["arch"] = np.arange(2)
            file[owner].attrs["sha256"] = np.arange(3)
        with pytest.raises(InputError, match="is damaged"):
            read_hdf5(tmp_path / "a.hdf5")
