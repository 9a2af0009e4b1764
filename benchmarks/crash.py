"""Runs that are killed at random moments, at every file event and in every part: what is lost, and is done again.

    python benchmarks/crash.py --kills 210 --jobs 2 --output results/robustness/crash.json

Real command lines of some seconds each: a base network, pruning runs that narrow, on photographs' sizes, from a refit,
and on two processes. Each is run once to its end; then again and again, each time killed by SIGKILL, SIGTERM or SIGINT,
and gone on with by `-c continue`, until it ends. Its final weights must be those of the first run, bit by bit, with
nothing half-written left, and no more steps done again than lie between two checkpoints; else the exit status is 1.
Killed where: a short run once before each of its file events (a file opened for writing, renamed, removed); the others
inside each of their parts (narrowing, folding, refit, checkpoint, conversion, export, report) with each signal; what is
left of the number at a random moment after the folder is there (of two processes, SIGKILL takes one). Kills at one
commit are added to the file's, so it can be stopped and gone on with. Some 40 s a kill on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

import torch

from benchmarks.crash_moments import FILE_EVENT, PARTS, Moment
from benchmarks.run_commands import ENDED, last_step, same_finals, started
from rr.whole_files import BESIDE_SUFFIX, write_text_whole
from training import World, surroundings
from training.run_folder import FINISH_WEIGHTS

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
RANDOM = "a random moment"
LOST = ("unequal", "not_ended", "left_behind", "redone_too_many")  # what of the summary is to be 0
INTERVAL = 5  # steps between checkpoints
COMMON = ("--dataset", "digits", "--device", "cpu", "--checkpoint-interval", str(INTERVAL), "--log-interval", "1")
PRUNING = ("-a", "src20", "--narrow", "full", "--weights", "{base}", "--batch-size", "64", *COMMON)
NARROWING = (*PRUNING, "--image-size", "8", "--epochs", "3")


@dataclass(frozen=True)
class Command:
    """A command line that is killed.

    Attributes:
        script: from the checkout's root.
        options: without the folder; {base} is the base weights' file.
        processes: how many train together.
    """

    script: str
    options: tuple[str, ...]
    processes: int = 1

    def words(self, base: Path, folder: Path, *more: str, moment: Moment | None = None) -> list[str]:
        """All of it; with a moment, of one process that is killed then."""
        options = [option.format(base=base) for option in self.options]
        launcher: list[str] = []
        if moment is not None:
            launcher = [str(ROOT / "benchmarks" / "killed_at.py"), moment.as_text()]
        elif self.processes > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(self.processes)]
        return [sys.executable, *launcher, str(ROOT / self.script), *options, "--output-dir", str(folder), *more]


COMMANDS = {
    "base": Command(
        "train_base_model.py",
        ("-a", "src20", "--image-size", "8", "--epochs", "3", "--schedule", "cosine", "--milestones", *COMMON),
    ),
    "pruning": Command("rr/exp_resrep.py", NARROWING),
    "pruning, 32 pixels": Command("rr/exp_resrep.py", (*PRUNING, "--epochs", "1", "--flops-target", "0.8")),
    "pruning from a refit": Command("rr/exp_resrep.py", (*NARROWING, "--start", "refit", "--refit-images", "200")),
    "pruning, two processes": Command("rr/exp_resrep.py", NARROWING, processes=2),
}
SHORT = "pruning, 12 steps"  # which is killed at each of its file events
COMMANDS[SHORT] = Command("rr/exp_resrep.py", (*NARROWING, "--max-steps", "12"))


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        command: a key of `COMMANDS`.
        place: where in the run: `RANDOM`, a file event, or a part of it.
        signal: its name.
        number: which event, or which call of the part, from 1.
        draw: from 0 to 1, how far into it.
    """

    command: str
    place: str
    signal: str
    number: int = 0
    draw: float = 0.0


@dataclass(frozen=True)
class Whole:
    """A command's run to its end.

    Attributes:
        folder: the run's.
        seconds: what it took.
        counts: what `crash_moments` counted in it; empty for several processes.
    """

    folder: Path
    seconds: float
    counts: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many the file is to hold (default: 200)")
    parser.add_argument(
        "--commands",
        nargs="+",
        choices=tuple(COMMANDS),
        default=tuple(COMMANDS),
        help="which are killed (default: all)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "robustness" / "crash.json")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores, and all it starts
    made = surroundings(World(0, 0, 1, torch.device("cpu")))  # of a clean commit, which the file's changes end
    kills: list[dict[str, Any]] = []
    if options.output.exists():
        held = json.loads(options.output.read_text())
        kills = held["kills"] if held["made"]["commit"] == made["commit"] else []
    with tempfile.TemporaryDirectory() as scratch:
        base, wholes = whole_runs(Path(scratch), options.commands)
        left = list(enumerate(plan(wholes, options.kills), 1))[len(kills) :]
        with ThreadPoolExecutor(options.jobs) as jobs:
            for done in jobs.map(
                lambda each: killed(each[1], base, wholes[each[1].command], Path(scratch) / f"kill {each[0]}"), left
            ):
                kills.append(done)
                found = {"summary": summary(kills), "made": made, "kills": kills}
                write_text_whole(options.output, json.dumps(found, indent=1) + "\n")
                print(f"{len(kills)} of {options.kills}: {done}", flush=True)
    found = summary(kills)
    print(found)
    if any(found[name] for name in LOST):
        sys.exit(1)


def whole_runs(scratch: Path, names: Sequence[str]) -> tuple[Path, dict[str, Whole]]:
    """Commands to their end, and first the one that the others start from: the base's file, and the runs by name."""
    base = scratch / "base" / FINISH_WEIGHTS
    wholes = {}
    for name in dict.fromkeys(("base", *names)):
        command, folder, counts, out = COMMANDS[name], scratch / name, scratch / f"{name}.json", scratch / f"{name}.out"
        moment = Moment(str(folder), counts=str(counts)) if command.processes == 1 else None
        began = time.monotonic()
        code = started(command.words(base, folder, moment=moment), out).wait()
        assert code in ENDED, out.read_text()
        counted = json.loads(counts.read_text()) if moment else {}
        wholes[name] = Whole(folder, time.monotonic() - began, counted)
    return base, {name: wholes[name] for name in names}


def plan(wholes: Mapping[str, Whole], number: int) -> list[Kill]:
    """So many kills, the same ones each time, and in an order that a larger number goes on with.

    Every third one is at a random moment; once all file events and parts had theirs, each one.
    """
    draw = random.Random(0)
    events = range(wholes[SHORT].counts[FILE_EVENT] if SHORT in wholes else 0)
    placed = [Kill(SHORT, FILE_EVENT, "SIGKILL", event + 1) for event in events]
    names = [name for name in wholes if name != SHORT] or [SHORT]
    for place in PARTS:
        for signal_name in SIGNALS:
            calls = {name: len(wholes[name].counts.get(place, ())) for name in names}
            where = [name for name, count in calls.items() if count]
            assert where or wholes.keys() != COMMANDS.keys(), f"no command has a call of {place}"
            if where:
                name = draw.choice(where)
                placed.append(Kill(name, place, signal_name, draw.randint(1, calls[name]), draw.random()))
    draw.shuffle(placed)
    others = itertools.cycle((name, signal_name) for signal_name in SIGNALS for name in names)
    kills: list[Kill] = []
    while len(kills) < number:
        if placed and len(kills) % 3:
            kills.append(placed.pop())
        else:
            name, signal_name = next(others)
            kills.append(Kill(name, RANDOM, signal_name, draw=draw.random()))
    return kills


def killed(kill: Kill, base: Path, whole: Whole, folder: Path) -> dict[str, Any]:
    """One run that is killed and gone on with; what became of it."""
    command, out = COMMANDS[kill.command], folder.with_suffix(".out")
    code = started_for(kill, base, whole, folder).wait()
    while code in ENDED and kill.place == RANDOM:  # its moment came too late: this run was a faster one
        shutil.rmtree(folder)
        kill = replace(kill, draw=kill.draw / 2)
        code = started_for(kill, base, whole, folder).wait()
    stopped_at, codes = last_step(folder), []
    told = out.read_text().count("Traceback")
    while not codes or (codes[-1] not in ENDED and len(codes) < 3):
        codes.append(started(command.words(base, folder, "-c", "continue"), out).wait())
    goes_on = re.findall(r"going on after epoch \d+, step (\d+)", (folder / "log.txt").read_text())
    found = {
        **asdict(kill),
        **{"at_step": stopped_at, "exit": code, "exit_resumed": codes},
        "steps_redone": max(stopped_at - int(goes_on[0]), 0) if goes_on else None,
        "tracebacks": told if command.processes == 1 else None,
        "equal": same_finals(whole.folder, folder),
        "left_behind": [path.name for path in folder.iterdir() if path.name.endswith(BESIDE_SUFFIX)],
    }
    shutil.rmtree(folder)
    return found


def started_for(kill: Kill, base: Path, whole: Whole, folder: Path) -> subprocess.Popen:
    """The run, which has its signal by the time this returns, or kills itself later on."""
    command, out = COMMANDS[kill.command], folder.with_suffix(".out")
    if kill.place != RANDOM:
        seconds = 0.0 if kill.place == FILE_EVENT else kill.draw * whole.counts[kill.place][kill.number - 1]
        moment = Moment(str(folder), kill.place, kill.number, kill.signal, seconds)
        return started(command.words(base, folder, moment=moment), out)
    process, began = started(command.words(base, folder), out), time.monotonic()
    while not folder.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(kill.draw * max(whole.seconds - (time.monotonic() - began), 0.5))
    send(process, command, kill.signal)
    return process


def send(process: subprocess.Popen, command: Command, name: str) -> None:
    """The signal to the process; SIGKILL of two processes to one of them, not to their launcher."""
    target = process.pid
    if command.processes > 1 and name == "SIGKILL":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        ranks = children.read_text().split() if children.exists() else []
        target = int(ranks[-1]) if ranks else target
    if process.poll() is None:
        os.kill(target, signal.Signals[name])


def summary(kills: list[dict[str, Any]]) -> dict[str, Any]:
    """What all of them came to."""
    redone = [kill["steps_redone"] for kill in kills if kill["steps_redone"] is not None]
    return {
        "kills": len(kills),
        "by_place": dict(Counter(kill["place"] for kill in kills)),
        "by_signal": dict(Counter(kill["signal"] for kill in kills)),
        "in_mid_training": len(redone),
        "unequal": sum(not kill["equal"] for kill in kills),
        "not_ended": sum(kill["exit_resumed"][-1] not in ENDED for kill in kills),
        "most_steps_redone": max(redone, default=None),
        "checkpoint_interval": INTERVAL,
        "redone_too_many": sum(steps > INTERVAL for steps in redone),
        "left_behind": sum(len(kill["left_behind"]) for kill in kills),
    }


if __name__ == "__main__":
    main()
