"""Command lines of training runs as processes, and how far their logs say they are."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from training.endings import TARGET_MISSED

ENDED = (0, TARGET_MISSED)  # exit codes of a run that came to its end: few steps may not reach the target


def started(words: list[str], out: Path) -> subprocess.Popen:
    """A process, with what it says in a file."""
    with open(out, "w") as file:
        return subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def last_step(folder: Path) -> int:
    """The last step in a run's log."""
    log = folder / "log.txt"
    steps = re.findall(r" step (\d+) of", log.read_text()) if log.exists() else []
    return int(steps[-1]) if steps else 0
