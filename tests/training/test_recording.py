"""What is asked of CUDA for a recording, with everything of torch.cuda that it takes stubbed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from rr.errors import InputError
from training.recording import CudaGraphs

GPU = torch.device("cuda", 0)


class Stream:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.device, self._calls = name, GPU, calls

    def wait_stream(self, other: Stream) -> None:
        self._calls.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of torch.cuda, in order."""
    made: list[str] = []
    outside = Stream("outside", made)

    @contextmanager
    def within(name: str) -> Iterator[None]:
        made.append(f"{name} begins")
        yield
        made.append(f"{name} ends")

    def graph(graph: object, stream: Stream, capture_error_mode: str) -> object:
        return within(f"recording on {stream.name}, {capture_error_mode}")

    stubs = {
        "Stream": lambda device: Stream("side", made),
        "current_stream": lambda device: outside,
        "stream": lambda stream: within(f"work on {stream.name}"),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: made.append("replay")),
        "graph": graph,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    return made


def test_work_is_recorded_on_a_stream_of_its_own_between_what_was_before_and_what_comes_after(calls: list[str]) -> None:
    recorder = CudaGraphs(GPU)
    with recorder.in_order():
        replay = recorder.record(lambda: calls.append("work"))
        replay()
    assert calls == [
        "side waits for outside",
        "work on side begins",
        "recording on side, thread_local begins",
        "work",
        "recording on side, thread_local ends",
        "replay",
        "work on side ends",
        "outside waits for side",
    ]


def test_work_that_waits_for_the_device_is_one_line(calls: list[str]) -> None:
    def waits() -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    with pytest.raises(InputError, match=r"not permitted when stream is capturing\): leave --cuda-graph out$"):
        CudaGraphs(GPU).record(waits)
