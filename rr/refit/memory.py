"""How much memory a network's activations take while it runs."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rr.refit.feed import Feed
from rr.refit.rows import Reader
from rr.refit.watch import Seen, Watch


@torch.no_grad()
def bytes_side_by_side(model: nn.Module, readers: Sequence[Reader], most_places: int, feed: Feed) -> float:
    """The bytes of all activations that all images hold while they wait at a layer, at most, judged by the first batch.

    Args:
        model: the network.
        readers: the layers that images wait at.
        most_places: of an image, at most so many.
        feed: the images.
    """
    waiting = 0

    def at_use(_: Reader, __: Seen) -> bool:
        nonlocal waiting
        waiting = max(waiting, live.now)
        return False

    with _LiveBytes(model) as live, Watch(model, readers, most_places, 0, at_use=at_use):
        feed.run(model, feed.batches[0])
    others = feed.images_in(range(len(feed.batches))) / feed.images(feed.batches[0]) - 1
    return live.most + waiting * others


class _LiveBytes(TorchDispatchMode):
    """Context: the bytes that tensors made in it hold now, and the most so far."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._models = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._holders: dict[int, int] = {}  # address -> how many tensors hold it
        self.now, self.most = 0, 0

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
            self.now += size
            self.most = max(self.most, self.now)
        self._holders[address] = self._holders.get(address, 0) + 1
        weakref.finalize(tensor, self._release, address, size).atexit = False

    def _release(self, address: int, size: int) -> None:
        self._holders[address] -= 1
        if not self._holders[address]:
            self.now -= size
