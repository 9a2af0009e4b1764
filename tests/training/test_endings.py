"""A user's mistake is one line and exit code 2, and so is being stopped; a bug is still a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rr import InputError
from rr.errors import WriteError
from training import ends_in_one_line
from training.roll_call import ProcessLost


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, ends_in_one_line():
        raise InputError("no such\n  model")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no such model\n"


@pytest.mark.parametrize("error", [ValueError("a bug in NumPy"), FileNotFoundError("a bug"), KeyError("a bug")])
def test_other_errors_keep_their_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)), ends_in_one_line():
        raise error
    assert capsys.readouterr().err == ""


def test_what_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, ends_in_one_line():
        raise WriteError("can't write a.pth: No space left on device")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: can't write a.pth: No space left on device\n"


@pytest.mark.parametrize("is_told_here", [True, False])
def test_a_lost_process_is_one_line_from_one_of_the_others(
    is_told_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")  # rank 0 may be the one that is lost
    (tmp_path / "latest.pth").touch()

    def work() -> None:
        raise ProcessLost("process 0 of 2 is gone", is_told_here=is_told_here)

    with pytest.raises(SystemExit) as stopped:
        in_folder(tmp_path, work)
    assert stopped.value.code == 1
    line = f"error: process 0 of 2 is gone; the same command with -c continue goes on from {tmp_path / 'latest.pth'}\n"
    assert capsys.readouterr().err == line * is_told_here


def test_a_signal_does_not_break_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A process whose first one has met the same mistake is ended by that one while it says so."""

    def words(message: str) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return message

    with pytest.raises(SystemExit) as stopped, ends_in_one_line(words):
        raise InputError("no such model")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no such model\n"


def test_what_could_steer_a_terminal_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), ends_in_one_line():
        raise InputError("no array 'a\x1b[2J\x07é'")
    assert capsys.readouterr().err == "error: no array 'a\\x1b[2J\\x07é'\n"


def in_folder(folder: Path, work: Callable[[], None]) -> None:
    with ends_in_one_line() as ending:
        ending.folder = folder
        work()


def interrupted() -> None:
    raise KeyboardInterrupt


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the signal's handler comes first")


@pytest.mark.parametrize(("stop", "code"), [(interrupted, 130), (terminated, 143)])
def test_who_stops_a_run_is_told_how_it_goes_on(
    stop: Callable[[], None], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for words in ("(also -c continue) starts again", "the same command with -c continue goes on from"):
        with pytest.raises(SystemExit) as stopped:
            in_folder(tmp_path, stop)
        assert stopped.value.code == code
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1
        (tmp_path / "latest.pth").touch()
    assert signal.getsignal(signal.SIGTERM) is before


def interrupted_in_an_import() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as error:
        raise ImportError("numpy's C extension can't be imported") from error


def test_an_interrupt_that_became_another_error_is_one_still(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped, ends_in_one_line():
        interrupted_in_an_import()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_who_reads_no_further_ends_it_without_a_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `| head` does; what is left to be written goes nowhere, at the interpreter's end too."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(os.devnull, "w") as other, open(writer, "w") as unread:
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(f"sys.{stream}", unread if stream == name else other)
        with pytest.raises(SystemExit) as stopped, ends_in_one_line():
            print("a" * 2**17, file=unread, flush=True)
        assert stopped.value.code == 128 + signal.SIGPIPE
        print("b", file=unread)


def test_a_pipe_of_another_kind_that_breaks_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr("sys.stdout", file)
        monkeypatch.setattr("sys.stderr", file)
        with pytest.raises(BrokenPipeError), ends_in_one_line():
            raise BrokenPipeError("a worker's")


def test_a_script_without_a_run_just_stops(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), ends_in_one_line():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "stopped\n"


def test_one_process_of_several_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), ends_in_one_line():
        raise InputError("no such model")
    assert capsys.readouterr().err == ""
