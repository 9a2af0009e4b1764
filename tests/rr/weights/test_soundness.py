"""What no file of weights may hold, whichever format it has."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rr.errors import InputError
from rr.weights import read_weights, save_hdf5
from tests.rr.networks import small_model


def written(path: Path, payload: Any) -> Path:
    torch.save(payload, path)
    return path


@pytest.mark.filterwarnings("ignore")  # torch's, on making such tensors
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (
            lambda: torch._nested_tensor_from_mask(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)),
            "plain numbers",
        ),
        (lambda: torch.ones(3).to(torch.float8_e4m3fn), "float8"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "qint8"),
        (lambda: torch.ones(3).to("meta"), "meta"),
        (lambda: torch.ones(3, dtype=torch.complex64), "complex64"),
        (lambda: torch.ones(1).expand(10**6, 10**6), "asks for"),
    ],
    ids=["sparse", "nested", "float8", "quantised", "meta", "complex", "expanded"],
)
def test_tensors_that_are_not_plain_numbers(odd: Callable[[], torch.Tensor], reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.pth", {**small_model().state_dict(), "odd": odd()})
    with pytest.raises(InputError, match=reason):
        read_weights(path)


def test_names_and_attributes_that_are_not_text(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2)}
    for payload, reason in (
        ({1: torch.ones(2)}, "isn't text"),
        ({"a\x1b[2J": torch.ones(2)}, "can't be shown"),
        ({"state_dict": weights, "deps": None, "attributes": None}, "of another kind"),
        ({"state_dict": weights, "deps": "many", "attributes": {}}, "of another kind"),
        ({"state_dict": weights, "deps": [2.5], "attributes": {}}, "of another kind"),
        ({"state_dict": weights, "deps": None, "attributes": {"arch": ["src20"]}}, "isn't a text or a number"),
    ):
        with pytest.raises(InputError, match=reason):
            read_weights(written(tmp_path / "a.pth", payload))
    for value in (np.arange(3), np.bytes_(b"src20")):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file["a"] = np.ones(2)
            file.attrs["arch"] = value
        with pytest.raises(InputError, match="isn't a text or a number"):
            read_weights(tmp_path / "a.hdf5")


@pytest.mark.parametrize("suffix", [".hdf5", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "value", "reason"), [("bn.running_var", -1e-3, "negative variances"), ("bn.bias", float("nan"), "NaN")]
)
def test_values_that_no_training_ends_with(name: str, value: float, reason: str, suffix: str, tmp_path: Path) -> None:
    state = {"bn.running_var": torch.ones(3), "bn.bias": torch.zeros(3), "mask": torch.tensor([-torch.inf, 0])}
    path = tmp_path / f"a{suffix}"

    def write() -> None:
        if suffix == ".hdf5":
            save_hdf5(path, state, {})
        elif suffix == ".pth":
            torch.save(state, path)
        else:
            pytest.importorskip("safetensors.torch").save_file(state, path)

    write()
    assert set(read_weights(path).arrays) == set(state)
    state[name][1] = value
    write()
    with pytest.raises(InputError, match=reason):
        read_weights(path)


def test_types_that_torch_lacks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["a"] = np.ones(3, np.longdouble)
    with pytest.raises(InputError, match="which torch lacks"):
        read_weights(tmp_path / "a.hdf5")
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0000")
    with pytest.raises(InputError, match="float8"):
        read_weights(tmp_path / "a.safetensors")


def test_a_flipped_bit_in_a_pth_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path, state = tmp_path / "a.pth", {"a.weight": torch.arange(6.0).reshape(2, 3)}
    whole = written(path, state).read_bytes()
    noticed = 0
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_weights(path).arrays
        except InputError:
            noticed += 1
            continue
        assert list(found) == list(state)
        assert np.array_equal(found["a.weight"], state["a.weight"])
    assert noticed > 50


def test_a_compressed_pth_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.pth", {"a": torch.zeros(10**6)})
    with zipfile.ZipFile(whole) as records, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for info in records.infolist():
            packed.writestr(info.filename, records.read(info))
    with pytest.raises(InputError, match="compressed"):
        read_weights(tmp_path / "b.pth")


def test_a_pth_without_checksums_is_read_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {"a": torch.ones(3)}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "none.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with caplog.at_level("INFO"):
        read_weights(written(tmp_path / "ours.pth", state))
        assert not caplog.messages
        for name in ("old.pth", "none.pth"):
            assert read_weights(tmp_path / name).arrays["a"].tolist() == [1, 1, 1]
            assert f"{name} has no checksum" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("arch", 5), ("arch", ""), ("dataset", 0.5), ("num_classes", "ten"), ("in_channels", 0), ("image_size", 10**9)],
)
def test_what_a_network_is_built_by_is_of_its_kind(name: str, value: object, tmp_path: Path) -> None:
    """A script would build with it."""
    contents = {"state_dict": small_model().state_dict(), "deps": None, "attributes": {name: value}}
    save_hdf5(tmp_path / "a.hdf5", contents["state_dict"], contents["attributes"])
    for path in (tmp_path / "a.hdf5", written(tmp_path / "a.pth", contents)):
        with pytest.raises(InputError, match=rf"has {name} .*, and it's a"):
            read_weights(path)
