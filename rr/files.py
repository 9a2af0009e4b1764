"""Weights and training state on disk and back: HDF5 for weights, .pth for whatever else a run needs to go on.

An HDF5 file has one dataset per weight at its root, named as in the state dict, and may have attributes. A converted
network's file also has the dataset `deps` (int64): the width of each layer. BN's `num_batches_tracked` isn't
stored: nothing here reads it. Every file is written under another name first, so a crash never leaves half a file.
"""

from __future__ import annotations

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

from rr.compactor import WEIGHT_SUFFIX, insert_compactors

DEPS = "deps"
_COUNTER_SUFFIX = "num_batches_tracked"
_MAX_LISTED = 5


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
            file[name] = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
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

    `num_batches_tracked` entries are optional on both sides and stay as they are in the model.

    Args:
        model: the model, changed in place.
        arrays: array by name, as in the model's state dict; values are cast to the model's types.
        what: what the arrays are, for the message: "init.hdf5".

    Raises:
        ValueError: if names or shapes don't all fit; the model isn't changed then.
    """
    targets = _without_counters(model.state_dict())
    arrays = _without_counters(arrays)
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

    Raises:
        ValueError: if the file is missing, broken, or holds anything else.
    """
    _check_is_file(path)
    try:
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


def load_network(path: str | Path, build: Callable[..., nn.Module]) -> tuple[nn.Module, WeightFile]:
    """The network in any weight file of this project: base, in training (with its compactors) or converted.

    Args:
        path: an HDF5 file, or a converted network's `.pth` (`save_converted`).
        build: `build(widths=None | deps, folded=False | True)` makes the network that the file's weights go into.

    Raises:
        ValueError: if the file is missing or broken, or isn't of the network that `build` makes.
    """
    file = read_weights(path)
    model = build(widths=file.deps, folded=file.kind == "converted")
    hosts = {
        name.removesuffix(WEIGHT_SUFFIX): array.shape[0]
        for name, array in file.arrays.items()
        if name.endswith(WEIGHT_SUFFIX)
    }
    insert_compactors(model, hosts)
    load_strict(model, file.arrays, str(path))
    return model, file


def save_converted(
    path: str | Path, model: nn.Module, deps: Sequence[int], attributes: Mapping[str, str | int | float]
) -> None:
    """Write a converted network as HDF5, and as `.pth` (tensors and plain values) beside it."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    save_pth(Path(path).with_suffix(".pth"), {"state_dict": state, "deps": list(deps), "attributes": dict(attributes)})
    save_hdf5(path, state, attributes, deps)


def read_weights(path: str | Path) -> WeightFile:
    """Read a weight file in either format: HDF5, or a `.pth` that `save_converted` wrote.

    Raises:
        ValueError: if the file is missing, broken or of another kind.
    """
    if Path(path).suffix != ".pth":
        return read_hdf5(path)
    payload = read_pth(path)
    if not isinstance(payload, dict) or "state_dict" not in payload:
        raise ValueError(f"{path} holds no converted network: give an .hdf5 file, or the .pth beside a converted one")
    arrays = {name: tensor.numpy() for name, tensor in payload["state_dict"].items()}
    return WeightFile(arrays, payload["attributes"], payload["deps"])
