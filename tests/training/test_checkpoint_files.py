"""Checkpoints are whole or not there, hold no code, and the ones before stay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from rr.errors import InputError, WriteError
from training.checkpoint_files import checkpoints, load, newest, save


class Stopped(Exception):
    """Stands for the process's end."""


def contents(step: int) -> dict[str, Any]:
    """A checkpoint in all its parts."""
    return {
        **{
            "recipe": {"lr": 0.1},
            "epoch": 1,
            "step": step,
            "callbacks": [],
            "scheduler": {},
            "meter": {"pair": (1, 2)},
        },
        **{"model": {"a": torch.arange(4.0)}, "optimizer": {"none": None}},
    }


def steps(folder: Path) -> list[int]:
    """The step of each checkpoint in a folder, the newest first."""
    return [load(path)["step"] for path in checkpoints(folder)]


def test_round_trip(tmp_path: Path) -> None:
    state = contents(3)
    save(tmp_path / "latest.pth", state)
    loaded = load(tmp_path / "latest.pth")
    assert torch.equal(loaded["model"].pop("a"), state["model"].pop("a"))
    assert loaded == state
    assert os.listdir(tmp_path) == ["latest.pth"]


def test_keeping_all_of_them_takes_no_longer_than_there_are_some(tmp_path: Path) -> None:
    """Names with other numbers aren't checkpoints."""
    for name in ("latest-99999999999999999999.pth", "latest-0.pth", "latest-01.pth", "latest-\u00b2.pth"):
        (tmp_path / name).touch()
    for step in range(4):
        save(tmp_path / "latest.pth", contents(step), keep=10**20)
    *found, far = checkpoints(tmp_path)
    assert [load(path)["step"] for path in found] == [3, 2, 1, 0]
    assert far.stat().st_size == 0


@pytest.mark.parametrize("stop_in", ["fsync", "replace"])
def test_stop_before_the_rename_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_in: str
) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    save(tmp_path / "latest.pth", contents(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, stop_in, stop)
        with pytest.raises(Stopped):
            save(tmp_path / "latest.pth", contents(2))
    assert steps(tmp_path) == [1]
    save(tmp_path / "latest.pth", contents(3))  # what the stop left behind is in nobody's way
    assert steps(tmp_path) == [3]


def test_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    save(tmp_path / "latest.pth", contents(1))
    assert calls == ["fsync", "replace", "fsync"]  # of the file, then of its folder


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_ones_before_stay(keep: int, tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path / "latest.pth", contents(step), keep)
    assert steps(tmp_path) == [6, 5, 4, 3][:keep]
    assert len(os.listdir(tmp_path)) == keep
    save(tmp_path / "latest.pth", contents(7), 2)  # fewer are wanted now
    assert steps(tmp_path) == [7, 6]


@pytest.mark.parametrize("keep", [2, 3])
def test_a_kill_at_any_rename_leaves_the_newest_or_the_one_before(
    keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    for allowed in range(keep + 1):
        folder = tmp_path / str(allowed)
        for step in range(1, 4):
            save(folder / "latest.pth", contents(step), keep)
        left = [allowed]

        def replace(*paths: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            real(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            if allowed < keep:
                with pytest.raises(Stopped):
                    save(folder / "latest.pth", contents(4), keep)
            else:
                save(folder / "latest.pth", contents(4), keep)
        assert newest(folder)["step"] == (3 if allowed < keep else 4)
        save(folder / "latest.pth", contents(5), keep)
        assert newest(folder)["step"] == 5


def damage(path: Path, how: str) -> None:
    """What a power loss, a bad copy or a hand can do to a file."""
    whole = path.read_bytes()
    place = whole.index(torch.arange(4.0).numpy().tobytes())
    flipped = bytearray(whole)
    flipped[place + 7] ^= 0x40
    other = {name: value for name, value in contents(2).items() if name != "optimizer"}
    if how == "a field missing":
        torch.save(other, path)
    elif how == "a field of another type":
        torch.save({**other, "optimizer": [1]}, path)
    elif how == "a field that older ones lack of another type":
        torch.save({**contents(2), "skipped": None}, path)
    elif how == "a negative step":
        torch.save(contents(-2), path)
    elif how == "no dict":
        torch.save([1], path)
    else:
        path.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "empty": b"",
                "zeroed": bytes(len(whole)),
                "a bit flipped": bytes(flipped),
            }[how]
        )


DAMAGES = ("cut", "empty", "zeroed", "a bit flipped", "a field missing", "a field of another type", "no dict")
DAMAGES += ("a field that older ones lack of another type", "a negative step")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_taken(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save(tmp_path / "latest.pth", contents(step), keep=2)
    damage(tmp_path / "latest.pth", how)
    assert newest(tmp_path)["step"] == 1
    (line,) = caplog.messages
    assert str(tmp_path / "latest.pth") in line
    assert line.endswith("going on from latest-1.pth")
    damage(tmp_path / "latest-1.pth", how)
    with pytest.raises(InputError, match=r"latest\.pth .*latest-1\.pth .*'-c fs' starts the run again"):
        newest(tmp_path)


def test_errors_are_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file"):
        save(tmp_path / "file" / "latest.pth", contents(1))
    with pytest.raises(InputError, match="missing"):
        load(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="has no checkpoint"):
        newest(tmp_path)


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    torch.save({**contents(1), "step": os.system}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="isn't a whole checkpoint"):
        load(tmp_path / "bad.pth")
