"""Loading arrays into a model's parameters and buffers: all or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rr.errors import InputError
from rr.weights.arrays import unwrapped, without_counters

_MAX_LISTED = 5


def load_strict(model: nn.Module, arrays: Mapping[str, np.ndarray | Tensor], what: str) -> None:
    """Copy arrays into a model's parameters and buffers, all or none.

    `num_batches_tracked` entries are optional on both sides and stay as they are in the model. Names that all begin
    with "module." (DistributedDataParallel) or "_orig_mod." (torch.compile) are read without it.

    Args:
        model: the model, changed in place.
        arrays: array by name, as in the model's state dict; values are cast to the model's types.
        what: what the arrays are, for the message: "init.hdf5".

    Raises:
        InputError: if names or shapes don't all fit; the model isn't changed then.
    """
    targets = without_counters(model.state_dict())
    arrays = unwrapped(without_counters(arrays), targets)
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
        raise InputError(f"{what} doesn't fit the model: {'; '.join(found)}: build the model that the file is from")
    with torch.no_grad():
        for name in both:
            targets[name].copy_(torch.as_tensor(arrays[name]))


def load_start(
    model: nn.Module,
    arrays: Mapping[str, np.ndarray | Tensor],
    what: str,
    num_classes: int,
    new_classifier: bool = False,
) -> list[str]:
    """Load a trained network's weights into the full network that is to train on from them.

    Args:
        model: the full network, for `num_classes` classes; changed in place.
        arrays: array by name, as in the model's state dict.
        what: what the arrays are, for the message: "resnet18.pth".
        num_classes: rows of the classifier.
        new_classifier: leave out the layers that have a row per class where the arrays have another number of classes.

    Returns:
        The names that were left out; empty where all fits.

    Raises:
        InputError: if anything (else) doesn't fit; the model isn't changed then.
    """
    state = model.state_dict()
    arrays = unwrapped(arrays, state)
    left_out = [
        name
        for name, array in arrays.items()
        if name in state
        and tuple(state[name].shape[:1]) == (num_classes,) != tuple(array.shape[:1])
        and tuple(state[name].shape[1:]) == tuple(array.shape[1:])
    ]
    if left_out and not new_classifier:
        raise InputError(
            f"{what} has {len(arrays[left_out[0]])} classes, the data has {num_classes}: give the data "
            "that it was trained on, or fine-tune it on these with `train_base_model.py --weights FILE "
            f"--new-classifier`, which leaves {_listed(left_out)} out"
        )
    load_strict(model, {**arrays, **{name: state[name] for name in left_out}}, what)
    return left_out


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")
