"""A pruning run of 20,000 steps: whether its memory and its open files stay flat, and what checkpoints cost.

    python benchmarks/soak.py --output results/robustness/soak.json

src8 on digits of 8 x 8 pixels, a checkpoint every 200 steps, an evaluation every 20 epochs; the process is looked at
every two seconds from outside. Writes the curve, and a plot beside it. Some ten minutes on one core of a laptop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

import matplotlib.pyplot as plt
import numpy as np
import torch

from base_model import build_model
from benchmarks.run_commands import ENDED, last_step, started
from rr.weights import save_hdf5
from rr.whole_files import write_text_whole, written_whole
from training import World, checkpoint_files, surroundings

INTERVAL = 200  # steps between checkpoints, and between lines of the log
STEPS_PER_EPOCH = 23
EVERY_S = 2.0
WARM = 0.2  # of the run: caches and pools fill
SAVES = 20
COMMON = ("-a", "src8", "--dataset", "digits", "--image-size", "8", "--batch-size", "64", "--device", "cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="default: 20,000")
    parser.add_argument("--interval", type=int, default=INTERVAL, help="steps between checkpoints (default: 200)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "robustness" / "soak.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder, words = Path(scratch) / "run", command(Path(scratch), options.steps, options.interval)
        began = time.monotonic()
        process = started(words, Path(scratch) / "out")
        points = watched(process, folder)
        seconds = time.monotonic() - began
        if process.wait() not in ENDED:
            raise SystemExit((Path(scratch) / "out").read_text()[-2000:])
        checkpoint_s = saving_seconds(folder / "finish.pth")
    training = [point for point in points if point["step"]]
    step_s = (training[-1]["s"] - training[0]["s"]) / (training[-1]["step"] - training[0]["step"])
    found = {
        "summary": {
            **summary(points),
            "seconds": round(seconds, 1),
            "checkpoint_ms": round(1000 * checkpoint_s, 2),
            "checkpoint_share": round(checkpoint_s / (options.interval * step_s), 5),
            "checkpoint_interval": options.interval,
        },
        "made": surroundings(World(0, 0, 1, torch.device("cpu"))),
        "points": points,
    }
    write_text_whole(options.output, json.dumps(found) + "\n")
    plot(points, options.output.with_suffix(".png"))
    print(json.dumps(found["summary"], indent=1))


def command(scratch: Path, steps: int, interval: int) -> list[str]:
    """The run's command line; its base weights are made here."""
    torch.manual_seed(0)
    save_hdf5(scratch / "base.hdf5", build_model("src8", in_channels=1).state_dict(), {"arch": "src8"})
    options = {
        "--epochs": -(-steps // STEPS_PER_EPOCH),
        "--max-steps": steps,
        "--checkpoint-interval": interval,
        "--log-interval": interval,
        "--val-interval": 20,
        "--save-interval": 0,
        "--weights": scratch / "base.hdf5",
        "--output-dir": scratch / "run",
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, str(ROOT / "rr" / "exp_resrep.py"), *COMMON, *words]


def watched(process: subprocess.Popen, folder: Path) -> list[dict[str, Any]]:
    """Seconds, step, MiB and open files, every two seconds until the process ends."""
    points, began = [], time.monotonic()
    here = Path(f"/proc/{process.pid}")
    while process.poll() is None:
        try:
            pages = int((here / "statm").read_text().split()[1])
            files = len(os.listdir(here / "fd"))
        except OSError:  # it has just ended
            break
        if not pages:  # ended, and not waited for yet
            break
        mib = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
        points.append({"s": round(time.monotonic() - began, 2), "step": last_step(folder), "mib": mib, "files": files})
        time.sleep(EVERY_S)
    return points


def saving_seconds(checkpoint: Path) -> float:
    """The median of some savings of the run's checkpoint, to the disk it is on."""
    state, taken = checkpoint_files.load(checkpoint), []
    for _ in range(SAVES):
        began = time.perf_counter()
        checkpoint_files.save(checkpoint.with_name("again.pth"), state)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def summary(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How memory and files went once the run was warm, up to its last step in training."""
    last = max(point["step"] for point in points)
    steady = [point for point in points if WARM * last <= point["step"] < last]
    slope = np.polyfit([point["step"] / 1000 for point in steady], [point["mib"] for point in steady], 1)[0]
    return {
        "steps": last,
        "mib_first": steady[0]["mib"],
        "mib_last": steady[-1]["mib"],
        "mib_per_1000_steps": round(float(slope), 3),
        "files_least": min(point["files"] for point in steady),
        "files_most": max(point["files"] for point in steady),
    }


def plot(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Memory and open files over the steps."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 4.5), sharex=True, layout="constrained")
    steps = [point["step"] for point in points]
    upper.plot(steps, [point["mib"] for point in points])
    upper.set_ylabel("memory (MiB)")
    upper.set_ylim(bottom=0)
    lower.step(steps, [point["files"] for point in points], where="post")
    lower.set_ylabel("open files")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("step")
    with written_whole(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
