"""What the choice of processes, threads and precision on a CPU is worth: whole runs of the scripts, at their defaults.

    python benchmarks/cost/cpu_use.py        # src56; estimated at 25 minutes on 2 free cores

Writes results/cpu_use.json. In each round, one after the other, on synthetic images, at batch 64: the unpruned network
in float32 with PyTorch's own threads and layout, for some steps (a step of the method's first implementation takes 1.18
times as long, as measured beside it); the unpruned network in bfloat16, its other settings chosen by the script; and a
pruning run at the defaults of `rr/exp_resrep.py --fast`, its settings chosen too. Seconds are those of the training
steps, without evaluations and files, and without the choice, which is told beside them. Nothing else may run meanwhile.

Bars: a pruning run's step takes at most a quarter of the first implementation's at the start, a sixth at the end; the
whole run at most 0.90 of the unpruned network's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

import torch

from rr.errors import InputError
from rr.whole_files import write_text_whole
from training import ends_in_one_line, init_world, surroundings
from training.endings import TARGET_MISSED

ROOT = Path(__file__).resolve().parents[2]
FIRST_IMPLEMENTATION = 1.18  # times its plain float32 step
FIRST, CHOSEN, PRUNED = "plain, float32, as PyTorch has it", "plain, bfloat16, chosen", "pruned, chosen"
BARS = {"start": 4.0, "end": 6.0, "whole": 0.90}
SHARE = 0.1  # of a run's looks: its start, and its end


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs, and write what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="src56", help="one of our CIFAR networks")
    parser.add_argument("--epochs", type=int, default=60, help="of 2,000 images")
    parser.add_argument("--steps", type=int, default=40, help="of the float32 runs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/cpu_use.json"))
    options = parser.parse_args(arguments)
    with ends_in_one_line():
        rounds = [measured_round(options) for _ in range(options.rounds)]
        found = {"model": options.model, "epochs": options.epochs, "bars": BARS, "rounds": rounds, **ratios(rounds)}
        found |= surroundings(init_world("cpu"))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(options.output, json.dumps(found, indent=1) + "\n")
        print(json.dumps(ratios(rounds), indent=1))


def measured_round(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The three runs."""
    common = ["-a", options.model, "--dataset", "synthetic", "--batch-size", "64", "--device", "cpu"]
    common += ["--log-interval", "10", "--val-interval", "1000", "--val-last", "0", "--save-interval", "0"]
    whole = [*common, "--epochs", str(options.epochs)]
    as_torch = ["--no-tune", "--processes", "1", "--threads", str(torch.get_num_threads()), "--no-channels-last"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = folder / "plain"
        first = run(
            folder / "first",
            ["train_base_model.py", *common, "--no-amp", *as_torch, "--max-steps", str(options.steps)],
        )
        chosen = run(plain, ["train_base_model.py", *whole, "--amp"])
        weights = ["--weights", str(plain / "finish.hdf5")]
        pruned = run(folder / "pruned", ["rr/exp_resrep.py", *whole, "--fast", "--flops-target", "0.471", *weights])
    return {FIRST: first, CHOSEN: chosen, PRUNED: pruned}


def run(folder: Path, words: list[str]) -> dict[str, Any]:
    """Make one run, and read from its files what it took.

    Raises:
        InputError: if it fails.
    """
    command = [sys.executable, str(ROOT / words[0]), *words[1:], "--output-dir", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode not in (0, TARGET_MISSED):
        raise InputError(f"{' '.join(words)} failed: {done.stderr[-500:]}")
    log = (folder / "log.txt").read_text()
    speeds = [float(speed) for speed in re.findall(r"TRAIN speed: ([\d.]+) examples/sec", log)]
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    recipe = json.loads((folder / "run.json").read_text())["recipe"]
    few = max(1, round(SHARE * len(speeds)))
    return {
        "images_per_s": statistics.median(speeds),
        "start_images_per_s": statistics.median(speeds[:few]),
        "end_images_per_s": statistics.median(speeds[-few:]),
        "seconds": sum(epoch["time"]["seconds"] for epoch in epochs if "time" in epoch),
        "choice": {name: recipe[name] for name in ("processes", "threads", "amp", "channels_last", "compile")},
        "choosing": [line for line in done.stderr.splitlines() if " a step" in line or line.startswith("chosen in")],
    }


def ratios(rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, list[float]]:
    """By round: how many times faster a step is than the first implementation's, and the share of the plain run."""
    first = [of_round[FIRST]["images_per_s"] / FIRST_IMPLEMENTATION for of_round in rounds]
    return {
        "start": [of_round[PRUNED]["start_images_per_s"] / base for of_round, base in zip(rounds, first, strict=True)],
        "end": [of_round[PRUNED]["end_images_per_s"] / base for of_round, base in zip(rounds, first, strict=True)],
        "whole": [of_round[PRUNED]["seconds"] / of_round[CHOSEN]["seconds"] for of_round in rounds],
    }


if __name__ == "__main__":
    main()
