"""Command lines of training runs as processes, how far their logs say they are, and whether they end alike."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np

from rr.weights import read_hdf5
from training.endings import TARGET_MISSED
from training.run_folder import CONVERTED_WEIGHTS, FINISH_WEIGHTS

FINALS = (FINISH_WEIGHTS, CONVERTED_WEIGHTS)
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


def same_finals(whole: Path, other: Path) -> bool:
    """Whether two runs' folders have the same files of final weights, one at least, and in each the same bits."""
    there, others = ([name for name in FINALS if (folder / name).exists()] for folder in (whole, other))
    return there == others != [] and all(same_weights(whole / name, other / name) for name in there)


def same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same weights, bit by bit."""
    first, second = read_hdf5(one).arrays, read_hdf5(other).arrays
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
