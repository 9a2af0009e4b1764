"""Damaged files: readers refuse or read them, and what one lets through is told of, whatever becomes of its process."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save

from benchmarks import fuzz
from benchmarks.fuzzing import READERS, Reader
from rr.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_sample_of_each_reader_is_read_or_refused(name: str) -> None:
    found = fuzz.tried(name, 0, 40)
    assert found["escapes"] == []
    assert found["read"] + found["refused"] == found["inputs"] == 40
    assert found["refused"] > 0


def _sound(folder: Path) -> list[Path]:
    (folder / "a.txt").write_bytes(b"sound")
    return [folder / "a.txt"]


def _ends_badly(path: Path) -> Any:
    """A reader with every fault: which one, the file's length says."""
    length = len(path.read_bytes())
    if path.read_bytes() == b"sound":
        return length
    if length % 5 == 0:
        raise InputError("refused")
    if length % 5 == 1:
        raise KeyError("a")
    if length % 5 == 2:
        raise InputError("a\x1b[2J")
    if length % 5 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


@pytest.mark.slow
def test_what_a_reader_lets_through_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight inputs, among them one of each kind."""
    monkeypatch.setitem(READERS, "bad", Reader("x.txt", _ends_badly, _sound))
    monkeypatch.setattr(fuzz, "SECONDS", 2)
    found = fuzz.tried("bad", 29, 8)
    assert [found[count] for count in fuzz.COUNTS] == [8, 0, 3, 5]
    whys = [escape["why"] for escape in found["escapes"]]
    killed, hung = "the process ended with -9", "not done after 2 s"
    assert whys[0] == whys[3] == killed
    assert whys[1].startswith("KeyError: 'a' (test_fuzz.py:")
    assert whys[2] == "a message that isn't one line of plain text: 'a\\x1b[2J'"
    assert whys[4] == hung
    assert [escape["input"] for escape in found["escapes"]] == [29, 31, 32, 35, 36]


@pytest.mark.slow
def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    output = tmp_path / "fuzz.json"
    options = ["--readers", "run.json", "--output", str(output), "--inputs"]
    fuzz.main([*options, "20"])
    fuzz.main([*options, "50"])
    parts = json.loads(output.read_text())
    assert parts["summary"]["inputs"] == 50
    output.unlink()
    fuzz.main([*options, "50"])
    assert json.loads(output.read_text())["readers"] == parts["readers"]
    assert parts["made"]["commit"]


def test_changed_numbers_count_where_no_line_tells_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the metadata a file is one of another program, and a line says that damage in it wouldn't show."""
    name = "safetensors with checksums"

    def without_metadata(self: Reader, path: Path, sound: Sequence[bytes], draw: random.Random) -> int:
        state = load(sound[0])
        state["0.bias"] += 1
        path.write_bytes(save(state))
        return 0

    monkeypatch.setattr(Reader, "damage", without_metadata)
    assert fuzz.tried(name, 0, 2)["read"] == 2
    monkeypatch.setattr("rr.weights.checksums.tell_of_none", lambda path: None)
    escapes = fuzz.tried(name, 0, 2)["escapes"]
    assert [escape["why"].split(" (")[0] for escape in escapes] == ["Silent: read, and not as it was written"] * 2
