"""Checkpoints are whole or not there, and hold no code."""

import os
from pathlib import Path

import pytest
import torch

from training import checkpoint


class Stopped(Exception):
    """Stands for the process's end."""


def test_round_trip(tmp_path: Path) -> None:
    state = {"weights": {"a": torch.arange(4.0)}, "step": 3, "names": ["x"], "lr": 0.1, "none": None, "pair": (1, 2)}
    checkpoint.save(tmp_path / "latest.pth", state)
    loaded = checkpoint.load(tmp_path / "latest.pth")
    assert torch.equal(loaded["weights"].pop("a"), state["weights"].pop("a"))
    assert loaded == state
    assert os.listdir(tmp_path) == ["latest.pth"]


@pytest.mark.parametrize("stop_in", ["fsync", "replace"])
def test_stop_before_the_rename_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_in: str
) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    path = tmp_path / "latest.pth"
    checkpoint.save(path, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, stop_in, stop)
        with pytest.raises(Stopped):
            checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}
    checkpoint.save(path, {"step": 3})  # what the stop left behind is in nobody's way
    assert checkpoint.load(path) == {"step": 3}


def test_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    checkpoint.save(tmp_path / "latest.pth", {"step": 1})
    assert calls == ["fsync", "replace", "fsync"]  # of the file, then of its folder


def test_errors_are_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        checkpoint.save(tmp_path / "file" / "latest.pth", {"step": 1})
    with pytest.raises(OSError, match="missing"):
        checkpoint.load(tmp_path / "missing.pth")


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    torch.save({"step": os.system}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoint.load(tmp_path / "bad.pth")
