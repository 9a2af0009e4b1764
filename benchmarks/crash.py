"""Runs that are killed at random moments: what is lost, and how many steps are done again.

    python benchmarks/crash.py --kills 200 --output results/robustness/crash.json

Real command lines of some seconds each: a base network, a pruning run that narrows, the same on two processes. Each is
run once to its end; then again and again, each time killed by SIGKILL, SIGTERM or SIGINT at a random moment after its
folder is there (of two processes, SIGKILL takes one), and gone on with by `-c continue`, until it ends. Its final
weights must be those of the first run, bit by bit, with nothing half-written left. Kills are added to the file's, so it
can be stopped and gone on with. Some 20 s a kill on one core.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

import torch

from benchmarks.run_commands import ENDED, last_step, same_weights, started
from rr.whole_files import BESIDE_SUFFIX, write_text_whole
from training import World, surroundings

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
INTERVAL = 5  # steps between checkpoints
FINALS = ("finish.hdf5", "finish_converted.hdf5")
COMMON = ("--dataset", "digits", "--device", "cpu", "--checkpoint-interval", str(INTERVAL), "--log-interval", "1")
NARROWING = (
    *("-a", "src20", "--image-size", "8", "--epochs", "3", "--narrow", "full", "--weights", "{base}"),
    *("--batch-size", "64", *COMMON),
)


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

    def words(self, base: Path, folder: Path, *more: str) -> list[str]:
        """All of it."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(self.processes)]
        options = [option.format(base=base) for option in self.options]
        start = [sys.executable, *(launcher if self.processes > 1 else [])]
        return [*start, str(ROOT / self.script), *options, "--output-dir", str(folder), *more]


COMMANDS = {
    "base": Command(
        "train_base_model.py",
        ("-a", "src20", "--image-size", "8", "--epochs", "3", "--schedule", "cosine", "--milestones", *COMMON),
    ),
    "pruning": Command("rr/exp_resrep.py", NARROWING),
    "pruning, two processes": Command("rr/exp_resrep.py", NARROWING, processes=2),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many the file is to hold (default: 200)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "robustness" / "crash.json")
    options = parser.parse_args(arguments)
    found = json.loads(options.output.read_text()) if options.output.exists() else {"kills": []}
    made = surroundings(World(0, 0, 1, torch.device("cpu")))  # of a clean commit, which the file's changes end
    with tempfile.TemporaryDirectory() as scratch:
        base, wholes = whole_runs(Path(scratch))
        while len(found["kills"]) < options.kills:
            number = len(found["kills"])
            name = list(COMMANDS)[number % len(COMMANDS)]
            kill = killed(name, number, base, wholes[name], Path(scratch) / "killed")
            found["kills"].append(kill)
            found = {"summary": summary(found["kills"]), "made": made, "kills": found["kills"]}
            write_text_whole(options.output, json.dumps(found, indent=1) + "\n")
            print(f"{number + 1} of {options.kills}: {kill}")
    print(found["summary"])


def whole_runs(scratch: Path) -> tuple[Path, dict[str, tuple[Path, float]]]:
    """Each command to its end: the base weights, and by name the run's folder and its seconds."""
    base = scratch / "base" / FINALS[0]
    wholes = {}
    for name, command in COMMANDS.items():
        folder, began = scratch / name, time.monotonic()
        code = started(command.words(base, folder), scratch / f"{name}.out").wait()
        assert code in ENDED, (scratch / f"{name}.out").read_text()
        wholes[name] = folder, time.monotonic() - began
    return base, wholes


def killed(name: str, number: int, base: Path, whole: tuple[Path, float], folder: Path) -> dict[str, Any]:
    """One run that is killed and gone on with; what became of it."""
    command, draw = COMMANDS[name], random.Random(number)
    signal_name = SIGNALS[number // len(COMMANDS) % len(SIGNALS)]
    shutil.rmtree(folder, ignore_errors=True)
    out = folder.with_suffix(".out")
    process = started(command.words(base, folder), out)
    began = time.monotonic()
    while not folder.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, max(whole[1] - (time.monotonic() - began), 0.5)))
    where = last_step(folder)
    send(process, command, signal_name)
    code = process.wait()
    stopped_at, codes = last_step(folder), []
    while not codes or (codes[-1] not in ENDED and len(codes) < 3):
        codes.append(started(command.words(base, folder, "-c", "continue"), out).wait())
    goes_on = re.findall(r"going on after epoch \d+, step (\d+)", (folder / "log.txt").read_text())
    return {
        **{"command": name, "signal": signal_name, "at_step": where, "exit": code, "exit_resumed": codes},
        "steps_redone": max(stopped_at - int(goes_on[0]), 0) if goes_on else None,
        "tracebacks": out.read_text().count("Traceback") if command.processes == 1 else None,
        "equal": all(same_weights(whole[0] / file, folder / file) for file in FINALS if (whole[0] / file).exists()),
        "left_behind": [path.name for path in folder.iterdir() if path.name.endswith(BESIDE_SUFFIX)],
    }


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
        "in_mid_training": len(redone),
        "unequal": sum(not kill["equal"] for kill in kills),
        "not_ended": sum(kill["exit_resumed"][-1] not in ENDED for kill in kills),
        "most_steps_redone": max(redone, default=None),
        "checkpoint_interval": INTERVAL,
        "left_behind": sum(len(kill["left_behind"]) for kill in kills),
    }


if __name__ == "__main__":
    main()
