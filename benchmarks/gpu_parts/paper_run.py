"""The paper's run of ResNet-56, whole: 240 epochs of base training, 480 of pruning, in as many slices as it takes.

The scripts' own checkpoints carry it from slice to slice: each is stopped by SIGTERM in time, and gone on with by
`-c continue`. Runs are in OUTPUT/runs; what the next slice needs of them is packed into OUTPUT/runs.tar at the end of
each, and unpacked where it is missing, so that another machine can go on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts.images import image_folder
from benchmarks.gpu_parts.precision import may_record
from benchmarks.gpu_parts.setting import LEFT, Figures, Setting
from benchmarks.run_commands import ENDED
from rr.errors import InputError
from rr.whole_files import written_whole
from training.checkpoint_files import LATEST
from training.json_files import read_json, read_lines
from training.run_folder import CONVERTED_WEIGHTS, FINISH_WEIGHTS, METRICS, RESULT, RUN

ROOT = Path(__file__).resolve().parents[2]
STOPS_IN = 30  # seconds: the end of a step, a checkpoint, and packing
STARTS_IN = 60  # seconds: without more left than this no run is begun
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)  # the second before it could listen
DATA = "cifar10_jpeg"  # the folder's name, from which tables take that of the data
GIVEN = "given_base.hdf5"  # a copy of the weights that are to be pruned, beside the runs


@dataclass(frozen=True)
class Run:
    """One of the scripts' runs.

    Attributes:
        name: of its folder in the runs' folder, from which it is started, so that no path is the machine's.
        script: from the checkout's root.
        options: without folder and device.
        ends_with: the file that says that it is complete.
    """

    name: str
    script: str
    options: tuple[str, ...]
    ends_with: str


def runs_of(setting: Setting) -> list[Run]:
    """The base's and the pruning run, as the scripts have them by default; narrowed as channels die."""
    weights = f"src56_base/{FINISH_WEIGHTS}" if setting.base is None else GIVEN
    if setting.dry_run:
        tiny = ("-a", "src8", "--dataset", "digits", "--epochs", "2", "--max-steps", "12", "--batch-size", "128")
        steps = ("--schedule", "cosine", "--milestones")
        pruning = ("--weights", weights, "--mask-interval", "2", "--before-mask-epochs", "0")
    else:
        tiny, steps = ("-a", "src56", "--dataset", "folder", "--data-dir", DATA), ()
        pruning = ("--weights", weights, "--narrow", "full")
    base = Run("src56_base", "train_base_model.py", (*tiny, *steps), FINISH_WEIGHTS)
    pruned = Run("src56_pruned", "rr/exp_resrep.py", (*tiny, *pruning), RESULT)
    return [pruned] if setting.base is not None else [base, pruned]


def measure(setting: Setting) -> Figures:
    """Go on with the runs; what is left of them, or what they came to.

    Raises:
        InputError: without CIFAR-10, or if a run ends with an error.
    """
    if setting.cifar is None and not setting.dry_run:
        raise InputError("the paper's run needs CIFAR-10: give --cifar")
    folder, archive = setting.output / "runs", setting.output / "runs.tar"
    runs = runs_of(setting)
    unpack(archive, folder)
    if not setting.dry_run:
        image_folder(setting.cifar, folder / DATA)
    if setting.base is not None:
        shutil.copyfile(setting.base, folder / GIVEN)
    try:
        for run in runs:
            if not (folder / run.name / run.ends_with).exists() and not go_on(run, folder, setting):
                return {LEFT: where(runs, folder)}
    finally:
        pack(runs, folder, archive)
    return {run.name: outcome(folder / run.name) for run in runs}


def go_on(run: Run, folder: Path, setting: Setting) -> bool:
    """Start a run or go on with it, until its end or until it must stop; whether it came to its end.

    Raises:
        InputError: if it ends with an error.
    """
    if setting.seconds_left < STARTS_IN:
        return False
    free = ["--device", setting.device, "--keep", "1", "--save-interval", "0", "--log-interval", "391"]
    free += ["--cuda-graph"] if may_record(setting) else ["--no-cuda-graph"]
    words = [sys.executable, str(ROOT / run.script), *run.options, "--output-dir", run.name, *free, "-c", "continue"]
    with open(folder / f"{run.name}.out", "a") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ))
        try:
            left = setting.seconds_left - STOPS_IN
            code = process.wait(timeout=None if left == float("inf") else left)
        except subprocess.TimeoutExpired:
            process.terminate()
            code = process.wait(timeout=STOPS_IN)
        finally:
            process.kill()
    if code not in (*ENDED, *STOPPED):
        last = (folder / f"{run.name}.out").read_text(errors="replace").strip().splitlines()[-1:]
        raise InputError(f"{run.script} ended with status {code}: {' '.join(last)}")
    return code in ENDED


def where(runs: list[Run], folder: Path) -> str:
    """How far each run is, in words."""
    return "; ".join(f"{run.name}: {len(epochs_of(folder / run.name))} epochs done" for run in runs)


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without that of its start."""
    return [line for line in read_lines(folder / METRICS) if line["epoch"] > 0]


def outcome(folder: Path) -> Figures:
    """What a run was and came to: run.json, result.json where it has one, and its epochs."""
    result = folder / RESULT
    epochs = epochs_of(folder)
    return {
        "run": read_json(folder / RUN),
        "result": read_json(result) if result.exists() else None,
        "seconds_of_epochs": sum(line["time"]["seconds"] for line in epochs),
        "epochs": [{key: line[key] for key in ("epoch", "lr", "train", "val") if key in line} for line in epochs],
    }


def pack(runs: list[Run], folder: Path, archive: Path) -> None:
    """Write what going on takes, 16 MB at most: of a complete run its weights, of another one its checkpoint."""
    with written_whole(archive) as path, tarfile.open(path, "w") as packed:
        for run in runs:
            is_complete = (folder / run.name / run.ends_with).exists()
            weights = {FINISH_WEIGHTS, CONVERTED_WEIGHTS} if is_complete else {FINISH_WEIGHTS, LATEST}
            for file in sorted((folder / run.name).glob("*")):
                if file.suffix in (".json", ".jsonl", ".txt") or file.name in weights:
                    packed.add(file, f"{run.name}/{file.name}")


def unpack(archive: Path, folder: Path) -> None:
    """Bring the runs of an earlier slice back, unless they are here."""
    folder.mkdir(parents=True, exist_ok=True)
    if archive.exists() and not any(folder.glob(f"*/{RUN}")):
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
