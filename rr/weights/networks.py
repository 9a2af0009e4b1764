"""Networks to and from their files: base, in training (with compactors) or converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from rr.compactors import WEIGHT_SUFFIX, insert_compactors, remove_compactors
from rr.copies import copy_of
from rr.errors import InputError
from rr.weights.arrays import WeightFile, unwrapped
from rr.weights.formats import read_weights
from rr.weights.hdf5 import save_hdf5
from rr.weights.last_layer import check_last_layer
from rr.weights.loading import load_strict
from rr.weights.narrow_build import fit_shapes
from rr.weights.torch_files import save_pth

_HDF5_SUFFIXES, _TORCH_SUFFIXES = (".hdf5", ".h5"), (".pth", ".pt")


def load_network(path: str | Path, build: Callable[[], nn.Module]) -> tuple[nn.Module, WeightFile]:
    """The network in any weight file: base, in training (with its compactors) or converted.

    Args:
        path: a file that `read_weights` reads.
        build: makes the full network.

    Returns:
        The network, and what else its file says.

    Raises:
        InputError: if the file is missing or broken, or isn't of the network that `build` makes.
    """
    file = read_weights(path)
    return network_in(file, build, str(path)), file


def network_in(file: WeightFile, build: Callable[[], nn.Module], what: str) -> nn.Module:
    """The network in a file that has been read.

    Args:
        file: as `read_weights` returns it.
        build: makes the full network.
        what: the file, for messages.

    Raises:
        InputError: if it isn't of the network that `build` makes.
    """
    model = build()
    if file.kind == "converted":
        _load_narrow(model, file, what)
    else:
        shapes = _compactors(file.arrays)
        groups = {host: rows // columns for host, (rows, columns) in shapes.items()}
        insert_compactors(model, {host: rows for host, (rows, _) in shapes.items()}, groups)
        load_strict(model, file.arrays, what)
    return model


def load_converted(path: str | Path, model: nn.Module) -> nn.Module:
    """The narrow network in a converted file, in eval mode.

    Args:
        path: `finish_converted.hdf5` or `.pth`, what `save_converted` wrote, or a state dict of a converted network.
        model: the full network that was pruned, with any weights, with its compactors or without; it stays as it is.

    Raises:
        InputError: if the file is missing or broken, or isn't of this network.
    """
    return converted_in(read_weights(path), model, str(path))


def converted_in(file: WeightFile, model: nn.Module, what: str) -> nn.Module:
    """The narrow network in a converted file that has been read, in eval mode.

    Args:
        file: as `read_weights` returns it.
        model: as in `load_converted`.
        what: the file, for messages.

    Raises:
        InputError: if it isn't of this network.
    """
    if file.kind == "training":
        raise InputError(f"{what} holds a network in training, with its compactors: convert it first")
    slim = copy_of(model)
    remove_compactors(slim)
    _load_narrow(slim, file, what)
    return slim.eval() if file.deps is None else note_widths(slim.eval(), file.deps)


def save_converted(
    path: str | Path, model: nn.Module, attributes: Mapping[str, str | int | float] | None = None
) -> None:
    """Write a converted network as HDF5 and as `.pth` (tensors and plain values) beside it, or as `.pth` alone.

    Args:
        path: the HDF5 file (`.hdf5` or `.h5`), or a `.pth` or `.pt` file.
        model: what a conversion or `load_converted` returned: it knows its widths.
        attributes: what else the file is to say about the network, as plain values.

    Raises:
        InputError: if the model isn't a converted one, or the file's name ends in something else.
    """
    suffix, widths = Path(path).suffix, widths_of(model)
    if suffix not in (*_HDF5_SUFFIXES, *_TORCH_SUFFIXES):
        raise InputError(f"{path} must end in one of {', '.join((*_HDF5_SUFFIXES, *_TORCH_SUFFIXES))}")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    attributes = dict(attributes or {})
    beside = path if suffix in _TORCH_SUFFIXES else Path(path).with_suffix(".pth")
    save_pth(beside, {"state_dict": state, "deps": widths, "attributes": attributes})
    if suffix in _HDF5_SUFFIXES:
        save_hdf5(path, state, attributes, widths)


def note_widths(model: nn.Module, widths: Sequence[int]) -> nn.Module:
    """Let a converted network know the width of each of its layers, in building order ("deps"); returns it."""
    model.converted_widths = tuple(widths)
    return model


def widths_of(model: nn.Module) -> list[int]:
    """The widths that a converted network knows.

    Raises:
        InputError: if it isn't a converted network.
    """
    widths = getattr(model, "converted_widths", None)
    if not isinstance(widths, tuple):
        raise InputError("the network isn't a converted one: give what pruner.convert() or load_converted returned")
    return list(widths)


def _load_narrow(model: nn.Module, file: WeightFile, what: str) -> None:
    arrays = unwrapped(file.arrays, model.state_dict())
    check_last_layer(model, replace(file, arrays=arrays), what)
    fit_shapes(model, arrays)
    load_strict(model, arrays, what)


def _compactors(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """The compactors of a network in training: name of the host module -> [D, D / groups], the matrix's shape."""
    return {
        name.removesuffix(WEIGHT_SUFFIX): array.shape[:2]
        for name, array in arrays.items()
        if name.endswith(WEIGHT_SUFFIX)
    }
