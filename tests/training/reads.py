"""What makes a program wait for a GPU: that a value is read back, or that a shape depends on one; copies to it too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_BY_MASK = ("index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put")


class Watched(TorchDispatchMode):
    """Context: notes, on any device, the operations that a GPU would have to be waited for at, by torch's own tags.

    What torch dispatches no operation for on a CPU (`tolist`, `numpy`, `cpu`) it doesn't see; the device `meta` has no
    values, so there all of these raise.

    Attributes:
        waits: names of the operations.
        copies: how many tensors were copied from the CPU to another device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.copies = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, tensors = function.overloadpacket.__name__, self._tensors(args)
        if name in _BY_MASK:  # these have the tag whatever the index is
            waits = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in self._tensors(args[1]))
        else:
            waits = bool(_WAITING & set(function.tags))
        if waits:
            self.waits.append(name)
        result = function(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_") and tensors[-1].device.type == "cpu" != result.device.type:
            self.copies += 1
        return result

    @staticmethod
    def _tensors(args: Any) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]


@contextmanager
def nothing_read_back(device: torch.device) -> Iterator[Watched]:
    """Within the context, nothing may be read back from the device; yields what else was seen."""
    before = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with Watched() as watched:
            yield watched
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(before)
    assert not watched.waits, f"a GPU would be waited for in {watched.waits}"
