"""Weights in whichever format they are."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from rr.errors import InputError
from rr.weights.arrays import WeightFile
from rr.weights.card import NetworkCard
from rr.weights.hdf5 import read_hdf5
from rr.weights.safetensors_files import read_safetensors
from rr.weights.soundness import arrays_of, check_weights
from rr.weights.torch_files import read_pth

_STATE_KEYS = ("state_dict", "model", "model_state_dict", "net")
_TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar")


def read_weights(path: str | Path) -> WeightFile:
    """Read weights in any format: HDF5, `.safetensors`, or `.pth` and `.pt` that torch.save wrote.

    torch.save's files hold a state dict, plain or under one of the names that training scripts give it, or what
    `save_converted` wrote.

    Raises:
        InputError: if the file is missing, broken or of another kind.
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", *_TORCH_SUFFIXES):
        return read_hdf5(path)
    file = _of_safetensors(path) if suffix == ".safetensors" else _of_torch(path)
    check_weights(path, file)
    return file


def _of_torch(path: str | Path) -> WeightFile:
    payload = state = read_pth(path)
    for key in _STATE_KEYS:
        if isinstance(payload, dict) and isinstance(payload.get(key), dict):
            state = payload[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{path} holds no weights: save a state dict, torch.save(model.state_dict(), FILE), plain or in a dict "
            f"under one of {', '.join(_STATE_KEYS)}"
        )
    if not {"deps", "attributes"} <= payload.keys():
        return WeightFile(arrays_of(path, state), {}, None)
    deps, attributes = payload["deps"], payload["attributes"]
    is_list = isinstance(deps, (list, tuple)) and all(type(width) is int for width in deps)
    if not (deps is None or is_list) or not isinstance(attributes, dict):
        raise InputError(f"{path} has deps or attributes of another kind than a conversion writes: convert again")
    return WeightFile(arrays_of(path, state), attributes, None if deps is None else list(deps))


def _of_safetensors(path: str | Path) -> WeightFile:
    state, card = read_safetensors(path)
    arrays = arrays_of(path, state)
    if card is None:
        return WeightFile(arrays, {}, None)
    return WeightFile(arrays, _attributes_of(card), list(card.widths) or None, card)


def _attributes_of(card: NetworkCard) -> dict[str, str | int | float]:
    """What the other formats' attributes say, from a card."""
    said = {
        "arch": card.architecture,
        "dataset": card.recipe.get("dataset"),
        "num_classes": len(card.classes) or card.keywords.get("num_classes"),
        "in_channels": card.in_channels,
        "image_size": card.image_size,
    }
    return {name: value for name, value in said.items() if type(value) in (str, int)}
