"""What a CUDA graph is, on a CPU: the operations of some work, noted with their tensors, and done again on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.devices import DEVICE
from training.recording import CudaGraphs


class _Noted(TorchDispatchMode):
    """Context: notes every operation, with what it was given and what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [tensor.untyped_storage() for tensor in _tensors((args, kwargs))]
        for storage in given:
            if storage.data_ptr() not in self._made:
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = function(*args, **(kwargs or {}))
        places = {storage.data_ptr() for storage in given}
        new = [tensor for tensor in _tensors(result) if tensor.untyped_storage().data_ptr() not in places]
        self._made |= {tensor.untyped_storage().data_ptr() for tensor in new}
        if new or function._schema.is_mutable or not _tensors(result):  # a view needs no doing
            self.operations.append((function, args, kwargs or {}, new))
        return result

    def undo(self) -> None:
        """Leave memory as a recording does: what was there is as before, what was made holds nothing yet."""
        for storage, before in self._before.values():
            storage.copy_(before)
        for *_, made in self.operations:
            for tensor in made:
                tensor.fill_(math.nan) if tensor.is_floating_point() else tensor.zero_()


class NotedOperations:
    """A `training.recording.Recorder` for the CPU."""

    @contextmanager
    def in_order(self) -> Iterator[None]:
        yield

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with torch.random.fork_rng(devices=[]), _Noted() as noted:  # no random numbers are drawn yet
            work()
        noted.undo()

        @torch.no_grad()
        def replay() -> None:
            for function, args, kwargs, made in noted.operations:
                result = _tensors(function(*args, **kwargs))
                for tensor, value in zip(made, result[-len(made) :] if made else [], strict=True):
                    tensor.copy_(value)

        return replay


class Counted:
    """A recorder for the tests' device, with counts.

    Attributes:
        recordings: how many were made.
        replays: how many times one was done.
    """

    def __init__(self) -> None:
        self._recorder = CudaGraphs(DEVICE) if DEVICE.type == "cuda" else NotedOperations()
        self.in_order = self._recorder.in_order
        self.recordings = self.replays = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        replay = self._recorder.record(work)
        self.recordings += 1

        def counted() -> None:
            self.replays += 1
            replay()

        return counted


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
