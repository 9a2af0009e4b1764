"""Pruning runs of seconds, on digits of 8 x 8 pixels: whole ones in this process, and ones that stop on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rr.weights import read_hdf5
from tests import forked, scripts
from tests.scripts import ROOT, Done
from training.endings import TARGET_MISSED

SCRIPT = ROOT / "rr" / "exp_resrep.py"
ARCH = "src8"  # three blocks: what a run does costs a third of src20's
COMMON = ("-a", ARCH, "--dataset", "digits", "--image-size", "8", "--batch-size", "64", "--device", "cpu")
FAST = (*COMMON, "--epochs", "4", "--checkpoint-interval", "10", "--log-interval", "10")  # 92 steps
# 23 steps an epoch. As the paper has it, a masked row moves by lr * penalty / (1 - 0.9) = 0.025 a step, and settles as
# the rate falls; in a short run it dies of a penalty of its own, and stays at zero by the proximal step.
RULE = (
    *(*COMMON, "--no-fast", "--lr", "0.05", "--schedule", "step", "--gamma", "0.2", "--penalty", "0.05"),
    *("--compactor-momentum", "0.9", "--before-mask-epochs", "0.5", "--mask-interval", "1"),
    *("--begin-granularity", "16", "--log-interval", "10"),
)
PAPER = (*RULE, "--epochs", "12", "--milestones", "6", "7", "8", "9", "10", "11")
PRUNE = (*RULE, "--epochs", "3", "--milestones", "1", "2", "--proximal", "--masked-penalty", "0.3")


def prune(*options: object, cwd: Path | None = None) -> Done:
    """Call the script in this process."""
    return scripts.call(SCRIPT, *options, cwd=cwd)


def pruned(*options: object, cwd: Path | None = None) -> Done:
    """Call the script in this process, to its end, whether its few steps reach the target or not."""
    done = prune(*options, cwd=cwd)
    assert done.returncode in (0, TARGET_MISSED), done.stderr
    return done


def stopped(signal_number: int, words: str, *options: object) -> Done:
    """Run the script in a process that sends itself a signal when it has logged the words."""
    return forked.run("-m", "tests.experiments.stopped_run", int(signal_number), words, SCRIPT, *options)


def assert_same_weights(folder: Path, other: Path, names: Sequence[str] = ("finish.hdf5",)) -> None:
    """The files of two runs are equal, bit by bit."""
    for name in names:
        first, second = read_hdf5(folder / name).arrays, read_hdf5(other / name).arrays
        assert first.keys() == second.keys()
        for key, array in first.items():
            assert np.array_equal(array, second[key]), (name, key)
