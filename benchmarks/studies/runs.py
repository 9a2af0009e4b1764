"""The runs of a study: each a process with a folder of its own, whose output is locked while the process works."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.results import read_run
from rr.errors import InputError
from rr.whole_files import write_text_whole
from training.endings import TARGET_MISSED

ROOT = Path(__file__).resolve().parents[2]
EntryKey = tuple[int, str, float]  # epochs, arm, learning rate: what tells an entry of the file from the others


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
        arm: its name.
        epochs, lr, seed: how long, at which learning rate and with which seed it trains.
        folder: what it writes to.
        command: trains it: the script, from the repository's root, and its options.
        after: the folder of a run whose finished network it needs; None where it needs none.
    """

    arm: str
    epochs: int
    lr: float
    seed: int
    folder: Path
    command: tuple[str, ...]
    after: Path | None = None

    @property
    def output(self) -> Path:
        """The file for what its process prints, which is locked while the process works."""
        return self.folder.with_suffix(f"{self.folder.suffix}.out")

    @property
    def entry(self) -> EntryKey:
        """The key of the entry that it is part of, in the study's file."""
        return self.epochs, self.arm, self.lr


def check_command(run: Run) -> None:
    """Note the run's command beside its folder.

    Raises:
        InputError: if the folder holds a run with other options.
    """
    note = run.folder.with_suffix(f"{run.folder.suffix}.command.json")
    if run.folder.exists() and note.exists() and json.loads(note.read_text()) != list(run.command):
        raise InputError(
            f"{run.folder} was begun with other options (see {note.name}): move both away, or undo the change"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(note, json.dumps(run.command) + "\n")


def train_all(runs: Sequence[Run], jobs: int, processes: int, threads: int, extra: Sequence[str]) -> bool:
    """Train the runs, going on with those that were stopped; when this process is stopped, so are they.

    Args:
        runs: what to train.
        jobs: how many runs at a time.
        processes: of each run.
        threads: of each process.
        extra: options for each run that don't change what it computes.

    Returns:
        Whether all are finished: False if one failed, or another call is training one.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    waiting, complete = list(reversed(runs)), True
    running: dict[Run, subprocess.Popen] = {}
    try:
        while waiting or running:
            while len(running) < jobs and (run := _next_ready(waiting)) is not None:
                process = start(run, processes, threads, extra)
                if process is None:
                    print(f"{run.folder.name}: another process is at work on it", flush=True)
                    complete = False
                else:
                    running[run] = process
            if waiting and not running:
                print(
                    f"{', '.join(run.folder.name for run in waiting)}: not trained, as what they need isn't", flush=True
                )
                return False
            time.sleep(0.2)
            for run, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                figures = read_run(run.folder)
                if process.returncode in (0, TARGET_MISSED) and figures is not None:
                    print(f"{run.folder.name}: top-1 {figures['top1']:.2f}%", flush=True)
                else:
                    complete = False
                    last = run.output.read_text().strip().splitlines()[-1:]
                    print(f"{run.folder.name}: FAILED ({process.returncode}): {' '.join(last)}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        signal.signal(signal.SIGTERM, before)
    return complete


def _next_ready(waiting: list[Run]) -> Run | None:
    """Take the first run off the end of the list that needs no other one, or whose other one is finished."""
    for run in reversed(waiting):
        if run.after is None or read_run(run.after) is not None:
            waiting.remove(run)
            return run
    return None


def start(run: Run, processes: int, threads: int, extra: Sequence[str]) -> subprocess.Popen | None:
    """Begin or go on with a run; None where another process holds it.

    The process inherits the locked file, so the lock lasts as long as it does, even if this one is killed.

    Args:
        run: what to train.
        processes, threads, extra: as in `train_all`.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))
    with open(run.output, "a") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        script, *options = run.command
        return subprocess.Popen(
            [
                *("nice", "-n", "5", sys.executable, *(torchrun if processes > 1 else ())),
                *(str(ROOT / script), *options, *extra, "--no-tune", "-c", "continue"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
