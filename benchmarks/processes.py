"""Work on names, each in a process of its own, so that what kills one doesn't harm the others."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

Results = dict[str, Any]


def in_processes(
    work: Callable[..., Results],
    names: Sequence[str],
    arguments: tuple,
    jobs: int,
    limit_s: float,
    preload: Sequence[str] = (),
) -> Iterator[tuple[str, Results]]:
    """Call a function for each name in a process of its own, which ends with this one, however that ends.

    Args:
        work: the function, called as `work(name, *arguments)`.
        names: the names.
        arguments: the further arguments, the same for all.
        jobs: how many processes at a time.
        limit_s: seconds after which a process is killed.
        preload: modules that take long to import; every process is then forked from one that has done nothing else.

    Yields:
        Each name and its result, in the order they finish; {"failed": why} for a process that ends without a result or
        is killed.
    """
    # A child that is forked from this process may hang in a thread pool of its parent's.
    context = multiprocessing.get_context("forkserver" if preload else "spawn")
    if preload:
        context.set_forkserver_preload(list(preload))
    waiting = list(reversed(names))
    running: dict[Connection, tuple[str, multiprocessing.process.BaseProcess, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_send, args=(sender, work, name, arguments), daemon=True)
            process.start()
            sender.close()  # only the child's own end is left, so that its death ends the pipe
            running[receiver] = name, process, time.monotonic() + limit_s
        ready = wait(list(running), timeout=1)
        for receiver, (name, process, deadline) in list(running.items()):
            late = time.monotonic() > deadline
            if receiver not in ready and not late:
                continue
            if receiver in ready:
                try:
                    figures = receiver.recv()
                except EOFError:
                    process.join()
                    figures = {"failed": f"its process ended with exit code {process.exitcode} (-9: out of memory?)"}
            else:
                process.kill()
                figures = {"failed": f"not done after {limit_s:g} s"}
            process.join()
            del running[receiver]
            yield name, figures


def _send(sender: Connection, work: Callable[..., Results], name: str, arguments: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sender.send(work(name, *arguments))


def _end_with_parent() -> None:
    """Wait for the parent's end, and end this process then: a parent that is killed can't end it."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)  # at once, whatever the other threads are at
