"""Python's command lines in processes of their own that start at once: forked from one that has done the imports.

    with Forked([sys.executable, "rr/exp_resrep.py", "-a", "src20"], stderr=PIPE) as process: ...

As `subprocess.Popen`, of which it has what the tests and `benchmarks/studies/runs.py` use. The processes share nothing
with the one that starts them but its threads' number, and can be killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import reduction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from tests.scripts import ROOT, Done

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
AMPLE = 1800  # seconds after which a process counts as hanging, on however slow a machine

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.preloaded"])


class Forked:
    """A process at work on a command line.

    Args:
        command: what is before Python in it, and Python's own options but `-m`, are left out.
        stdout, stderr: files, or `PIPE`, `DEVNULL`, `STDOUT` or None as in `subprocess`.
        cwd, env: its folder and its whole environment; None: those of the first process of this kind.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        stdin: int | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        assert stdin in (None, DEVNULL), "it has no input"
        self.args = [str(word) for word in command]
        words = self.args[self.args.index(sys.executable) + 1 :]
        self.stdout, out, ours = _target(stdout)
        self.stderr, err, others = _target(stderr if stderr != STDOUT else out)
        threads = int((env or {}).get("OMP_NUM_THREADS", torch.get_num_threads()))
        place = str(cwd or Path.cwd())
        handed_on = [_Descriptor(number) for number in (out, err)]
        self._process = _SERVER.Process(
            target=_main, args=(words, place, None if env is None else dict(env), threads, *handed_on)
        )
        self._process.start()
        for number in (*ours, *others):
            os.close(number)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, None while it is at work; of a signal the number, negative."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def wait(self, timeout: float = AMPLE) -> int:
        """Wait for its end; one that doesn't come is killed, and an error."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As `kill -NUMBER` does."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
    """`python COMMAND` to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with Forked([sys.executable, *map(str, command)], stdout=out, stderr=err, cwd=cwd, env=env) as process:
            code = process.wait()
        out.seek(0)
        err.seek(0)
        return Done(code, out.read(), err.read())


def run_ranks(number: int, *command: object, cwd: Path | None = None) -> Done:
    """`torchrun --nproc_per_node NUMBER COMMAND` to its end, without torchrun; the code is the first that isn't 0."""
    line = [sys.executable, *map(str, command)]
    job = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(number)}
    places = [{**os.environ, **job, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, contextlib.ExitStack() as open_ones:
        ranks = [open_ones.enter_context(Forked(line, stdout=out, stderr=err, cwd=cwd, env=place)) for place in places]
        code = next((code for code in map(Forked.wait, ranks) if code), 0)  # the others aren't waited for then
        out.seek(0)
        err.seek(0)
        return Done(code, out.read(), err.read())


def free_port() -> str:
    """One of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _target(wanted: IO[Any] | int | None) -> tuple[IO[str] | None, int | None, list[int]]:
    """The end of a pipe to read from, the descriptor that is written to, and what is to be closed once it is sent."""
    if wanted == PIPE:
        reading, writing = os.pipe()
        return open(reading, encoding="utf-8", errors="replace"), writing, [writing]
    if wanted == DEVNULL:
        number = os.open(os.devnull, os.O_WRONLY)
        return None, number, [number]
    if wanted is None or isinstance(wanted, int):
        return None, wanted, []
    wanted.flush()
    return None, wanted.fileno(), []


class _Descriptor:
    """The number of an open file that a child gets along with its start: the very file, and the locks on it."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (None if self.number is None else reduction.DupFd(self.number),)


def _received(sent: Any) -> int | None:
    return None if sent is None else sent.detach()


def _main(
    words: list[str], place: str, env: dict[str, str] | None, threads: int, out: int | None, err: int | None
) -> None:
    """In the process: its files, its surroundings, then what Python does with such words."""
    for number, standard in ((out, 1), (err, 2)):
        if number is not None:
            os.dup2(number, standard)
    for number in {out, err} - {None}:
        os.close(number)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    os.chdir(place)
    torch.set_num_threads(threads)
    if words[0] == "-m":
        sys.path.insert(0, place)
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[:] = [str(Path(words[0]).resolve().parent), *(path for path in sys.path if path != str(ROOT))]
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
