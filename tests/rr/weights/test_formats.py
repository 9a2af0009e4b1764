"""Weights in every format, those of others among them, and files that are broken."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from rr.weights import load_start, read_hdf5, read_pth, read_weights, save_hdf5, save_pth
from tests.rr.networks import small_model


def written(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A state dict in the format and the wrapping that the file's name asks for."""
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
    rounded = {name: tensor.bfloat16() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    elif path.suffix == ".hdf5":
        save_hdf5(path, {"wrapped": wrapped, "bfloat16": rounded}.get(path.stem, state), {})
    else:
        payloads = {
            "plain": state,
            "state_dict": {"state_dict": state, "epoch": 3},
            "model": {"model": state, "args": argparse.Namespace(lr=0.1, name="resnet")},
            "wrapped": {"state_dict": wrapped},
            "bfloat16": rounded,
        }
        torch.save(payloads[path.stem], path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("plain.pth", "plain.pt", "state_dict.pth", "model.pth", "wrapped.pth", "bfloat16.pth"),
        *("plain.safetensors", "plain.hdf5", "wrapped.hdf5", "bfloat16.hdf5"),
    ],
)
def test_checkpoints_of_others_are_read(name: str, tmp_path: Path) -> None:
    source, target = small_model(), small_model()
    arrays = read_weights(written(tmp_path / name, source.state_dict())).arrays
    assert load_start(target, arrays, name, num_classes=2) == []
    for key, tensor in source.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            expected = tensor.bfloat16().float() if name.startswith("bfloat16") else tensor
            assert torch.equal(target.state_dict()[key], expected), key


@pytest.mark.parametrize("payload", [{}, {"state_dict": {"a": 1}}, {"a": torch.ones(1), "b": 2}, 3])
def test_what_holds_no_state_dict_is_refused(payload: object, tmp_path: Path) -> None:
    torch.save(payload, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no weights: save a state dict"):
        read_weights(tmp_path / "a.pth")


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    for read in (read_hdf5, read_pth):
        with pytest.raises(ValueError, match="there is no file"):
            read(tmp_path / "none")
        with pytest.raises(ValueError, match="there is no file"):
            read(tmp_path)
    save_hdf5(tmp_path / "whole.hdf5", small_model().state_dict(), {"arch": "src20"})
    save_pth(tmp_path / "whole.pth", small_model().state_dict())
    broken = tmp_path / "broken"
    for name, read in (("whole.hdf5", read_hdf5), ("whole.pth", read_pth)):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 1, 7, 100, *range(200, len(whole), 331), len(whole) - 1):
            broken.write_bytes(whole[:size])
            with pytest.raises(ValueError, match="isn't a whole"):
                read(broken)


def test_a_broken_safetensors_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"isn't a whole \.safetensors file"):
        read_weights(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="there is no file"):
        read_weights(tmp_path / "none.safetensors")
