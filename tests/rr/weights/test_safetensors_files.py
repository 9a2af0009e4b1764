"""`.safetensors` files: kept ones of earlier versions, and a stranger's."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rr import InputError, NetworkCard, load_converted, load_pruned
from rr.weights import read_weights
from rr.weights.safetensors_files import read_safetensors, save_safetensors
from tests.rr.small_network import small_network

KEPT = Path(__file__).parent / "files"


@pytest.mark.parametrize("name", ["converted_0_2.hdf5", "converted_0_2.pth", "pruned_0_2.safetensors"])
def test_kept_files_go_on_loading(name: str) -> None:
    expected = load_file(KEPT / "expected_0_2.safetensors")
    load = load_pruned if name.startswith("pruned") else load_converted
    model = load(KEPT / name, small_network())
    assert len(model.converted_widths) == 2
    with torch.no_grad():
        torch.testing.assert_close(model(expected["images"]), expected["outputs"])


def test_shared_and_strided_tensors_and_a_card_come_back(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).view(2, 3)
    state = {"a": matrix, "b": matrix, "turned": matrix.T, "empty": torch.empty(0, 4), "half": matrix.bfloat16()}
    card = NetworkCard(architecture="src20", classes=("a", "b"), image_size=32, widths=(3,), recipe={"dataset": "x"})
    save_safetensors(tmp_path / "a.safetensors", state, card)
    found, its_card = read_safetensors(tmp_path / "a.safetensors")
    assert its_card == card
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert found.keys() == state.keys()
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it
    file = read_weights(tmp_path / "a.safetensors")
    assert (file.kind, file.deps) == ("converted", [3])
    assert file.attributes == {"arch": "src20", "dataset": "x", "num_classes": 2, "image_size": 32}


def test_damage_and_strange_types_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"w": torch.ones(10)}, NetworkCard())
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match="isn't a whole"):
        read_safetensors(path)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 40]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(40))
    with pytest.raises(InputError, match="isn't a whole"):
        read_safetensors(path)
    save_file({"w": torch.ones(2).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(InputError, match="'w' as float8_e4m3fn"):
        read_safetensors(path)
    save_file({"w": torch.ones(2)}, path, metadata={"resrep": '{"format": 1, "classes": 3}'})
    with pytest.raises(InputError, match="classes that aren't a list"):
        read_safetensors(path)


def test_each_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path, card = tmp_path / "a.safetensors", NetworkCard(architecture="src20", widths=(3,))
    save_safetensors(path, {"w": torch.arange(6.0)}, card)
    whole, noticed = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            state, its_card = read_safetensors(path)
        except InputError:
            noticed += 1
            continue
        if its_card is not None:  # else the card's own name was hit, and nobody takes it for a file of save_pruned
            assert its_card == card
        assert [*state] == ["w"]
        assert torch.equal(state["w"], torch.arange(6.0))
    assert noticed > 0.8 * len(whole)
