"""Work on names, each in a process of its own, so that what kills one harms no other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

Results = dict[str, Any]


def in_processes(
    work: Callable[..., Results], names: Sequence[str], arguments: tuple, jobs: int, limit_s: float
) -> Iterator[tuple[str, Results]]:
    """`work(name, *arguments)` for each name in a process of its own, `jobs` at a time, in the order they finish.

    A process that ends without a result, or is still at work after `limit_s` seconds, gives {"failed": why}.
    """
    context = multiprocessing.get_context("spawn")  # a forked child may hang in a thread pool of its parent's
    waiting = list(reversed(names))
    running: dict[Connection, tuple[str, multiprocessing.process.BaseProcess, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_send, args=(sender, work, name, arguments), daemon=True)
            process.start()
            sender.close()  # the child's own end is left, so that its death ends the pipe
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
    sender.send(work(name, *arguments))
