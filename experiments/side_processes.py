"""Several processes on this machine without a launcher: the script that was called is rank 0, and starts the others."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import distributed

from experiments.call import Call
from rr.errors import InputError
from training import Recipe

HOST = "127.0.0.1"
STARTED_BY_RANK_0 = "RESREP_STARTED_BY_RANK_0"
LEAVE_SECONDS = 30  # that a process has for leaving by itself, before it is killed

logger = logging.getLogger(__name__)


@contextmanager
def on_cores(recipe: Recipe, call: Call) -> Iterator[None]:
    """Within the context, torch has the recipe's number of threads, and the recipe's other processes are there.

    They are started as this one was, with the environment variables that `training.init_world` reads, and end with it.
    Where a launcher has started this process, it decides.

    Args:
        recipe: its `processes` and `threads`; threads that aren't given are shared out among the processes.
        call: how the script was called.

    Raises:
        InputError: if processes are asked for under a launcher, or where no script can be started again.
    """
    count = recipe.processes or 1
    if STARTED_BY_RANK_0 in os.environ:
        _meeting_place(int(os.environ["MASTER_PORT"])).set(_here(int(os.environ["RANK"])), "")
        yield
        return
    if call.is_launched and "processes" in call.typed and count > 1:
        raise InputError("processes is for a start without torchrun, which has a number of its own: leave it out")
    if count == 1 or call.is_launched:
        with _threads(recipe.threads):
            yield
        return
    if call.script is None:
        raise InputError("processes needs a script that can be started again: leave it out, or use torchrun")
    threads = recipe.threads or max(1, torch.get_num_threads() // count)
    store = _meeting_place(0, is_host=True)
    # With TORCHELASTIC_USE_AGENT_STORE no rank opens a store of its own at that port: all meet in this one.
    shared = {"MASTER_ADDR": HOST, "MASTER_PORT": str(store.port), "WORLD_SIZE": str(count)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    more = {STARTED_BY_RANK_0: "1", "OMP_NUM_THREADS": str(threads)}
    others = [_started(call, {**shared, **_rank(rank), **more}) for rank in range(1, count)]
    try:
        _wait_for(others, store)
        with _threads(threads), _environment({**shared, **_rank(0)}):
            yield
    except BaseException:
        _tell_of_failures(others)
        for process in others:
            process.terminate()  # where this one was asked to stop, they are leaving already
        raise
    finally:
        for process in others:
            try:
                process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(call: Call, variables: Mapping[str, str]) -> subprocess.Popen:
    assert call.script is not None
    return subprocess.Popen(
        [sys.executable, call.script, *call.arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,  # what is typed is for rank 0
    )


def _tell_of_failures(others: list[subprocess.Popen]) -> None:
    """Name the processes that ended by themselves: why rank 0 lost its connection to them."""
    for rank, process in enumerate(others, start=1):
        if process.poll():  # ended, and not with 0
            logger.error("process %d of this run (from 0) has ended with exit status %d", rank, process.returncode)


def _rank(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _meeting_place(port: int, *, is_host: bool = False) -> distributed.TCPStore:
    """Where the processes find each other; port 0: a free one."""
    return distributed.TCPStore(HOST, port, is_master=is_host, wait_for_workers=False)


def _here(rank: int) -> str:
    """The key with which a process says that it has started."""
    return f"process {rank} is here"


def _wait_for(others: list[subprocess.Popen], store: distributed.TCPStore) -> None:
    """Wait until all have started: one that ends before it joins the others would leave them waiting for half an hour.

    Raises:
        InputError: if one of them ends.
    """
    waiting = dict(enumerate(others, start=1))
    while waiting:
        for rank, process in list(waiting.items()):
            if store.check([_here(rank)]):
                del waiting[rank]
            elif process.poll() is not None:
                raise InputError(
                    f"process {rank} of this run has ended before it began, with exit status {process.returncode}: "
                    "leave --processes out, or start the run with torchrun, which shows what each process says"
                )
        time.sleep(0.05)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
