"""What the processes of test_processes.py do: a module that starts fast."""

from __future__ import annotations

import os
import signal
import time


def work(name: str, suffix: str) -> dict[str, object]:
    """Be killed, take long (and say who does), or say who did it."""
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "slow":
        os.write(1, f"{os.getpid()}\n".encode())
        time.sleep(600)
    return {"name": name + suffix, "process": os.getpid()}
