"""How far it is, where no terminal shows a bar; and what is told of compiled code."""

from __future__ import annotations

import io
import logging
import os
import select
import sys

import pytest
import torch

from rr import runtime
from rr.runtime import Progress, compile_anew, stages
from tests.old_torch import IS_OLD


def test_without_a_terminal_each_stage_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with stages("tracing", "proving") as over:
        assert caplog.messages == ["tracing"]
        over()
        over()
    assert caplog.messages == ["tracing", "proving"]


def test_of_many_parts_a_line_comes_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    clock = iter((0.0, 9.9, 10.0, 10.0, 19.9, 20.0, 20.0))  # asked at each part, and for each line
    monkeypatch.setattr(runtime.time, "monotonic", lambda: next(clock))
    with Progress("refitting", 4, "layers") as progress:
        for _ in range(4):
            progress.update()
    assert caplog.messages == [f"refitting: {done} of 4 layers" for done in (0, 2, 4)]
    assert all(record.progress for record in caplog.records)  # a terminal has the bar


def test_a_terminal_without_a_size_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.openpty()  # a new one has 0 columns
    with open(writer, "w") as terminal, open(reader, "rb", buffering=0) as shown:
        monkeypatch.setattr(sys, "stderr", terminal)
        with stages("tracing") as over:
            assert comes(b"tracing:   0%", shown)
            over()
        with Progress("refitting", 4, "layers"):
            assert comes(b"refitting:   0%", shown)


def comes(text: bytes, shown: io.RawIOBase) -> bool:
    """Whether a terminal shows the text; what is written to one is there to be read some time later."""
    so_far = b""
    while text not in so_far and select.select([shown], [], [], 60)[0]:
        so_far += shown.read(200) or b""
    return text in so_far


def test_compiled_code_is_told_of_where_there_is_any(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(compile_anew, "was_told", False)
    from torch._dynamo.utils import counters

    counters["frames"].clear()
    compile_anew("a layer is gone")
    assert not caplog.messages
    torch.compile(lambda x: 2 * x, backend="eager")(torch.zeros(1, 2))
    if IS_OLD and not counters["frames"]:
        pytest.skip("after a refit whose batches ran side by side, in threads, torch 2.6 compiles nothing more")
    compile_anew("a layer is gone")
    compile_anew("another is")
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["a layer is gone"]
