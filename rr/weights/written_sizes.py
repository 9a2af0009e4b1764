"""Sizes that a module keeps as numbers and cuts its channels by (`x.split(self.sizes, 1)`): changed, saved and loaded.

No parameter tells of them, so that a narrow network says them in the shape of an empty buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

_BUFFER = "sizes_in_"


def are_sizes(value: object) -> bool:
    """Whether an attribute is a list or a tuple of sizes."""
    return type(value) in (list, tuple, torch.Size) and len(value) > 1 and all(type(size) is int for size in value)


def change_sizes(module: nn.Module, attribute: str, sizes: Sequence[int]) -> None:
    """Give a module other sizes, in place: a list or a tuple of them, or a number."""
    is_number = type(getattr(module, attribute)) is int
    setattr(module, attribute, sizes[0] if is_number else type(getattr(module, attribute))(sizes))


def note_sizes(module: nn.Module, attribute: str, sizes: Sequence[int]) -> None:
    """Give a module other sizes, in place, of which its state dict says what they are."""
    change_sizes(module, attribute, sizes)
    module.register_buffer(f"{_BUFFER}{attribute}", torch.empty(0, *sizes))


def fit_sizes(module: nn.Module, own: Mapping[str, tuple[int, ...]]) -> None:
    """Give a full network's module the sizes that a file says, by the shapes of its arrays (`own`), in place."""
    for leaf, (_, *sizes) in ((leaf, shape) for leaf, shape in own.items() if leaf.startswith(_BUFFER)):
        attribute = leaf.removeprefix(_BUFFER)
        full = vars(module).get(attribute)
        if type(full) is not int and not are_sizes(full):
            continue
        full = [full] if type(full) is int else full
        if len(full) == len(sizes) and all(size <= most for size, most in zip(sizes, full, strict=True)):
            note_sizes(module, attribute, sizes)


def note_groups(conv: nn.Module, groups: int) -> None:
    """Let a convolution have so many groups, whatever their sizes are now, of which its state dict says how many."""
    if hasattr(conv, "groups"):  # nothing else is left of one that is gone
        note_sizes(conv, "groups", [groups])
        conv.in_channels = conv.weight.shape[1] * groups


def has_noted_groups(conv: nn.Module) -> bool:
    """Whether the shapes of its arrays alone wouldn't tell a convolution's groups."""
    return f"{_BUFFER}groups" in conv._buffers
