"""How much memory a network's activations take while it runs."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rr.refit.feed import Feed


@torch.no_grad()
def bytes_side_by_side(model: nn.Module, feed: Feed) -> float:
    """The bytes of all activations that all images hold at a time, at most, judged by the first batch."""
    with _LiveBytes(model) as live:
        feed.run(model, feed.batches[0])
    return live.most * sum(map(feed.images, feed)) / feed.images(feed.batches[0])


class _LiveBytes(TorchDispatchMode):
    """Context: the most bytes that tensors made in it hold at a time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._models = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._holders: dict[int, int] = {}  # address -> how many tensors hold it
        self._now, self.most = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return outputs

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._models:
            return
        if not self._holders.get(address):
            self._now += size
            self.most = max(self.most, self._now)
        self._holders[address] = self._holders.get(address, 0) + 1
        weakref.finalize(tensor, self._release, address, size).atexit = False

    def _release(self, address: int, size: int) -> None:
        self._holders[address] -= 1
        if not self._holders[address]:
            self._now -= size
