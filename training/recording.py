"""Work for a GPU that is recorded once and then replayed as a whole, with one launch: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

from rr.errors import InputError, first_line


class Recorder(Protocol):
    """Runs work on a device, and records it."""

    def in_order(self) -> AbstractContextManager[None]:
        """Within the context, work comes after all that was handed to the device before, and before all after it."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what the work does on the device, without doing it; what is returned does it, whenever it is called.

        The replay reads and writes the very memory that the work did, so what changes must be written to its inputs
        in place, and what it made is overwritten. To be called within `in_order`, as the replay is.
        """


class CudaGraphs:
    """Records CUDA graphs, on a stream of its own; work that is to be recorded runs there from the first time on.

    Autograd adds up a parameter's gradient on the stream on which the parameter was first used, and the default
    stream can't be recorded.

    Args:
        device: the GPU.

    Raises:
        InputError: if it isn't a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise InputError("cuda_graph works on CUDA devices only: leave --cuda-graph out")
        self._stream = torch.cuda.Stream(device)

    @contextmanager
    def in_order(self) -> Iterator[None]:
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Recorder.record`.

        Raises:
            InputError: if the work waits for the device, or does something else that can't be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads of a data loader may pin memory meanwhile, so that only this thread's calls are checked.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            raise InputError(
                f"a step of this network can't be recorded ({first_line(error)}): leave --cuda-graph out"
            ) from error
        return graph.replay
