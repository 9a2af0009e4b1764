"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rr.errors import WriteError
from rr.weights import read_hdf5, read_pth, save_hdf5, save_pth
from rr.whole_files import append_line, write_text_whole, written_whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    hdf5, pth = tmp_path / "a.hdf5", tmp_path / "a.pth"
    save_hdf5(hdf5, {"a": np.ones(2)}, {})
    save_pth(pth, {"a": 1})
    with pytest.raises(TypeError):
        save_hdf5(hdf5, {"a": np.zeros(2), "b": np.array([object()])}, {})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_pth(pth, {"a": lambda: 0})
    assert read_hdf5(hdf5).arrays["a"].tolist() == [1, 1]
    assert read_pth(pth) == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "a.pth"]


def test_the_old_file_stays_in_its_place_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "some" / "new" / "folder" / "a.txt"
    write_text_whole(path, "old")
    with written_whole(path) as beside:
        beside.write_text("half")
        assert path.read_text() == "old"
        assert beside.parent == path.parent
        beside.write_text("new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with written_whole(path) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    for path in (tmp_path / "none.txt", tmp_path / "old.txt"):
        if path.name == "old.txt":
            path.write_text("old")
        with pytest.raises(KeyboardInterrupt):
            write(path)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_two_processes_do_not_write_into_each_others_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    with written_whole(path) as first:
        first.write_text("first")
        monkeypatch.setattr("rr.whole_files.os.getpid", lambda: -1)
        write_text_whole(path, "second")
        assert first.read_text() == "first"
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_a_file_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contents are on disk before it has its name, its name is before the block is over."""
    path, on_disk = tmp_path / "a.txt", []

    def fsync(descriptor: int) -> None:
        descriptors.append(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        on_disk.append(("folder" if is_folder else "file", path.exists()))

    descriptors: list[int] = []
    monkeypatch.setattr("rr.whole_files.os.fsync", fsync)
    write_text_whole(path, "new")
    assert on_disk == [("file", False), ("folder", True)]
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_text_is_in_utf_8(tmp_path: Path) -> None:
    write_text_whole(tmp_path / "a.txt", "Ä → b\n")
    assert (tmp_path / "a.txt").read_bytes() == "Ä → b\n".encode()


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of this process can't grow over 20,000 bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path) -> None:
    reason = os.strerror(errno.EFBIG)
    path = tmp_path / "a"
    for write in (
        lambda large: save_pth(path, {"a": torch.zeros(10_000 if large else 2)}),
        lambda large: save_hdf5(path, {"a": torch.zeros(10_000 if large else 2)}, {}),
        lambda large: write_text_whole(path, "a" * (30_000 if large else 2)),
    ):
        write(False)
        before = path.read_bytes()
        with pytest.raises(WriteError, match=f"^can't write {path}: {reason}$"):
            write(True)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(WriteError, match=reason):
        append_line(path, "a" * 30_000)


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(WriteError, match=r"a/b/c\.txt: "):
        write_text_whole(tmp_path / "a" / "b" / "c.txt", "")


def test_an_error_of_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "a"):
        raise ZeroDivisionError
