"""Weights outside a file: arrays by name, as in a state dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rr.compactors import WEIGHT_SUFFIX
from rr.errors import InputError
from rr.weights.card import NetworkCard

_COUNTER_SUFFIX = "num_batches_tracked"
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning


@dataclass(frozen=True)
class WeightFile:
    """What an HDF5 file of weights holds.

    Attributes:
        arrays: array by name, without `deps`.
        attributes: the file's attributes, as plain Python values.
        deps: the width of each layer, or None if the file doesn't say.
        card: what `save_pruned` wrote about the network, or None in other files.
    """

    arrays: dict[str, np.ndarray]
    attributes: dict[str, str | int | float]
    deps: list[int] | None
    card: NetworkCard | None = None

    @property
    def kind(self) -> Literal["base", "training", "converted"]:
        """A network as it was built, one with compactors in it, or one that is folded and narrow."""
        if self.deps is not None:
            return "converted"
        return "training" if any(name.endswith(WEIGHT_SUFFIX) for name in self.arrays) else "base"

    @property
    def description(self) -> str:
        """The kind, in words."""
        return {
            "base": "a base model (no compactors)",
            "training": "a model in training (with compactors)",
            "converted": "a converted model (folded and narrow)",
        }[self.kind]


def to_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Each tensor as an array (`to_array`)."""
    return {name: to_array(tensor) for name, tensor in state.items()}


def to_array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array on the CPU; bfloat16, which NumPy lacks, becomes float32, which holds it exactly."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def without_counters(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state without BN's `num_batches_tracked`, which nothing here reads."""
    return {name: value for name, value in state.items() if name.rpartition(".")[2] != _COUNTER_SUFFIX}


def unwrapped(arrays: Mapping[str, Any], targets: Iterable[str]) -> dict[str, Any]:
    """The arrays without the prefixes that wrappers put before every name.

    Args:
        arrays: array by name.
        targets: the model's own names; a prefix that these have stays.
    """
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


def check_is_file(path: str | Path) -> None:
    """Check that there is such a file.

    Raises:
        InputError: if there is none.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}: check the path")
