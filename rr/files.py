"""Weights and training state on disk and back: HDF5 for weights, .pth for whatever else a run needs to go on.

Weights that others wrote are read from .pth, .pt and .safetensors as well.

An HDF5 file has one dataset per weight at its root, named as in the state dict, and may have attributes. A converted
network's file also has the dataset `deps` (int64): the width of each layer. BN's `num_batches_tracked` isn't
stored: nothing here reads it. Every file is written under another name first, so a crash never leaves half a file.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from rr.compactor import WEIGHT_SUFFIX, insert_compactors, remove_compactors
from rr.narrow_build import fit_shapes

CONVERTED_WEIGHTS = "finish_converted.hdf5"  # what a ResRep run ends with, in its folder
DEPS = "deps"
_COUNTER_SUFFIX = "num_batches_tracked"
_MAX_LISTED = 5
_TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar")
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightFile:
    """What an HDF5 file of weights holds.

    Attributes:
        arrays: array by name, without `deps`.
        attributes: the file's attributes, as plain Python values.
        deps: the width of each layer, or None if the file doesn't say.
    """

    arrays: dict[str, np.ndarray]
    attributes: dict[str, str | int | float]
    deps: list[int] | None

    @property
    def kind(self) -> Literal["base", "training", "converted"]:
        """A network as it was built, one with compactors in it, or one that is folded and narrow."""
        if self.deps is not None:
            return "converted"
        return "training" if any(name.endswith(WEIGHT_SUFFIX) for name in self.arrays) else "base"


def save_hdf5(
    path: str | Path,
    state: Mapping[str, Tensor | np.ndarray],
    attributes: Mapping[str, str | int | float],
    deps: Sequence[int] | None = None,
) -> None:
    """Write weights to an HDF5 file, in whose place nothing or the old file stays if that fails.

    Args:
        path: the file; its folder is made if it isn't there.
        state: tensor or array by name, as in a state dict; `num_batches_tracked` entries are left out.
        attributes: attributes of the file.
        deps: the width of each layer, for a converted network.

    Raises:
        ValueError: for a name that HDF5 or the format keeps for itself.
    """
    for name in state:
        if "/" in name or name == DEPS:
            raise ValueError(f"an array called {name!r} can't be stored: rename the module or the parameter")
    # track_order: the arrays are read back in the order of the model, not of the alphabet.
    with _replacing(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for name, value in _without_counters(state).items():
            file[name] = _to_array(value) if isinstance(value, Tensor) else value
        if deps is not None:
            file[DEPS] = np.asarray(deps, dtype=np.int64)
        for name, value in attributes.items():
            file.attrs[name] = value


def read_hdf5(path: str | Path) -> WeightFile:
    """Read all of a file that `save_hdf5` or the first implementation of the method wrote.

    Raises:
        ValueError: if the file is missing, isn't HDF5, is truncated or isn't one of weights.
    """
    _check_is_file(path)
    try:
        with h5py.File(path, "r") as file:
            entries = {
                name: np.asarray(entry[()]) if isinstance(entry, h5py.Dataset) else None for name, entry in file.items()
            }
            attributes = {
                name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()
            }
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py, for damage in different places
        raise ValueError(f"{path} isn't a whole HDF5 file ({error}): write or copy it again") from error
    for name, array in entries.items():
        if array is None or array.dtype.kind not in "biuf":
            raise ValueError(f"{path} holds {name!r}, which isn't an array of numbers: give a file of weights")
    deps = entries.pop(DEPS, None)
    if deps is not None and (deps.ndim != 1 or deps.dtype.kind not in "iu"):
        raise ValueError(f"{path} has deps that aren't a list of whole numbers: convert the model again")
    return WeightFile(entries, attributes, None if deps is None else deps.tolist())


def load_strict(model: nn.Module, arrays: Mapping[str, np.ndarray | Tensor], what: str) -> None:
    """Copy arrays into a model's parameters and buffers, all or none.

    `num_batches_tracked` entries are optional on both sides and stay as they are in the model. Names that all begin
    with "module." (DistributedDataParallel) or "_orig_mod." (torch.compile) go without it.

    Args:
        model: the model, changed in place.
        arrays: array by name, as in the model's state dict; values are cast to the model's types.
        what: what the arrays are, for the message: "init.hdf5".

    Raises:
        ValueError: if names or shapes don't all fit; the model isn't changed then.
    """
    targets = _without_counters(model.state_dict())
    arrays = _unwrapped(_without_counters(arrays), targets)
    both = [name for name in targets if name in arrays]
    problems = (
        ("missing", [name for name in targets if name not in arrays]),
        ("unknown to the model", [name for name in arrays if name not in targets]),
        (
            "of another shape",
            [
                f"{name} {list(arrays[name].shape)} for {list(targets[name].shape)}"
                for name in both
                if tuple(arrays[name].shape) != tuple(targets[name].shape)
            ],
        ),
    )
    found = [f"{len(names)} {problem} ({_listed(names)})" for problem, names in problems if names]
    if found:
        raise ValueError(f"{what} doesn't fit the model: {'; '.join(found)}: build the model that the file was made of")
    with torch.no_grad():
        for name in both:
            targets[name].copy_(torch.as_tensor(arrays[name]))


def save_pth(path: str | Path, payload: Any) -> None:
    """Write tensors and plain values (dicts, lists, strings, numbers) with torch.save, whole or not at all.

    Args:
        path: the file; its folder is made if it isn't there.
        payload: what `read_pth` gives back.
    """
    with _replacing(path) as temporary:
        torch.save(payload, temporary)


def read_pth(path: str | Path) -> Any:
    """Read a file of tensors and plain values onto the CPU, executing nothing that the file says.

    The options of a script, an argparse.Namespace, count as plain: torchvision's and timm's own scripts store them.

    Raises:
        ValueError: if the file is missing, broken, or holds anything else.
    """
    _check_is_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the unpickler raise nearly anything
        reason = type(error).__name__  # torch's own message is a page long
        raise ValueError(
            f"{path} isn't a whole .pth file of tensors and plain values ({reason}): write or copy it again"
        ) from error


def _without_counters(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.rpartition(".")[2] != _COUNTER_SUFFIX}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")


def _check_is_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: check the path")


@contextmanager
def _replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place if all goes well and is removed if not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_network(path: str | Path, build: Callable[[], nn.Module]) -> tuple[nn.Module, WeightFile]:
    """The network in any weight file: base, in training (with its compactors) or converted.

    Args:
        path: a file that `read_weights` reads.
        build: makes the full network.

    Raises:
        ValueError: if the file is missing or broken, or isn't of the network that `build` makes.
    """
    file = read_weights(path)
    model = build()
    if file.kind == "converted":
        _load_narrow(model, file.arrays, str(path))
    else:
        shapes = _compactors(file.arrays)
        groups = {host: rows // columns for host, (rows, columns) in shapes.items()}
        insert_compactors(model, {host: rows for host, (rows, _) in shapes.items()}, groups)
        load_strict(model, file.arrays, str(path))
    return model, file


def load_converted(path: str | Path, model: nn.Module) -> nn.Module:
    """The narrow network in a converted file, in eval mode.

    Args:
        path: `finish_converted.hdf5` or `.pth`, what `save_converted` wrote, or a state dict of a converted network.
        model: the full network that was pruned, with any weights, with its compactors or without; it stays as it is.

    Raises:
        ValueError: if the file is missing or broken, or isn't of this network.
    """
    file = read_weights(path)
    if file.kind == "training":
        raise ValueError(f"{path} holds a network in training, with its compactors: convert it first")
    slim = copy.deepcopy(model)
    remove_compactors(slim)
    _load_narrow(slim, file.arrays, str(path))
    return slim.eval()


def load_start(
    model: nn.Module,
    arrays: Mapping[str, np.ndarray | Tensor],
    what: str,
    num_classes: int,
    new_classifier: bool = False,
) -> list[str]:
    """Load a trained network's weights into the full network that is to be trained on from them.

    Args:
        model: the full network, for `num_classes` classes; changed in place.
        arrays: array by name, as in the model's state dict.
        what: what the arrays are, for the message: "resnet18.pth".
        num_classes: rows of the classifier.
        new_classifier: leave the layers out that have a row per class where the arrays have another number of classes.

    Returns:
        The names that were left out; empty where all fits.

    Raises:
        ValueError: if anything (else) doesn't fit; the model isn't changed then.
    """
    state = model.state_dict()
    arrays = _unwrapped(arrays, state)
    left_out = [
        name
        for name, array in arrays.items()
        if name in state
        and tuple(state[name].shape[:1]) == (num_classes,) != tuple(array.shape[:1])
        and tuple(state[name].shape[1:]) == tuple(array.shape[1:])
    ]
    if left_out and not new_classifier:
        raise ValueError(
            f"{what} has {len(arrays[left_out[0]])} classes, the data has {num_classes}: fine-tune it with "
            f"`train_base_model.py --weights FILE --new-classifier`, which leaves {_listed(left_out)} out"
        )
    load_strict(model, {**arrays, **{name: state[name] for name in left_out}}, what)
    return left_out


def save_converted(
    path: str | Path, model: nn.Module, deps: Sequence[int], attributes: Mapping[str, str | int | float]
) -> None:
    """Write a converted network as HDF5, and as `.pth` (tensors and plain values) beside it."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    save_pth(Path(path).with_suffix(".pth"), {"state_dict": state, "deps": list(deps), "attributes": dict(attributes)})
    save_hdf5(path, state, attributes, deps)


def read_weights(path: str | Path) -> WeightFile:
    """Read weights in any format: HDF5, `.safetensors`, or `.pth` and `.pt` that torch.save wrote.

    torch.save's files hold a state dict, plain or under "state_dict" or "model", or what `save_converted` wrote.

    Raises:
        ValueError: if the file is missing, broken or of another kind.
    """
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return WeightFile(_to_arrays(_read_safetensors(path)), {}, None)
    if suffix not in _TORCH_SUFFIXES:
        return read_hdf5(path)
    payload = state = read_pth(path)
    for key in ("state_dict", "model"):
        if isinstance(payload, dict) and isinstance(payload.get(key), dict):
            state = payload[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path} holds no weights: save a state dict, torch.save(model.state_dict(), FILE), plain or in a dict "
            "under 'state_dict' or 'model'"
        )
    is_ours = {"deps", "attributes"} <= payload.keys()
    return WeightFile(_to_arrays(state), *((payload["attributes"], payload["deps"]) if is_ours else ({}, None)))


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    _check_is_file(path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(f"{path} needs the package safetensors: `pip install safetensors`") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} isn't a whole .safetensors file ({error}): write or copy it again") from error


def _to_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: _to_array(tensor) for name, tensor in state.items()}


def _to_array(tensor: Tensor) -> np.ndarray:
    """On the CPU; NumPy has no bfloat16, which float32 holds exactly."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _load_narrow(model: nn.Module, arrays: Mapping[str, np.ndarray], what: str) -> None:
    arrays = _unwrapped(arrays, model.state_dict())
    fit_shapes(model, arrays)
    load_strict(model, arrays, what)


def _compactors(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """The compactors of a network in training: name of the host module -> [D, D / groups], the matrix's shape."""
    return {
        name.removesuffix(WEIGHT_SUFFIX): array.shape[:2]
        for name, array in arrays.items()
        if name.endswith(WEIGHT_SUFFIX)
    }


def _unwrapped(arrays: Mapping[str, Any], targets: Iterable[str]) -> dict[str, Any]:
    """Without what DistributedDataParallel and torch.compile put before every name, unless the model's own have it."""
    names, targets = list(arrays), list(targets)
    wrapped = True
    while wrapped:
        wrapped = False
        for prefix in _WRAPPERS:
            every = bool(names) and all(name.startswith(prefix) for name in names)
            if every and not any(target.startswith(prefix) for target in targets):
                names = [name.removeprefix(prefix) for name in names]
                wrapped = True
    return dict(zip(names, arrays.values(), strict=True))
