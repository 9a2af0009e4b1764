"""A pruning run of two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from base_model import build_model
from rr.weights import load_network
from tests import forked
from tests.experiments.runs import ARCH, PRUNE, SCRIPT, assert_same_weights
from tests.forked import AMPLE, free_port, run_ranks
from tests.scripts import ROOT
from training.checkpoint_files import load
from training.endings import TARGET_MISSED

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("launched", "narrow"),
    [pytest.param(True, "rows", id="launched", marks=pytest.mark.long), pytest.param(False, "full", id="alone")],
)
def test_two_processes(launched: bool, narrow: str, base_weights: Path, tmp_path: Path) -> None:
    """By the launcher of the README, and by --processes (benchmarks/studies has a test with torchrun)."""
    command = [str(SCRIPT), *PRUNE, "--base-weights", str(base_weights), "--output-dir", str(tmp_path / "run")]
    command += ["--narrow", narrow, "--narrow-threshold", "0.9", "--rows-per-update", "4", "--max-steps", "20"]
    command += ["--score", "taylor", "--per-mac", "--masked-penalty", "0.1", "--tighten-steps", "10"]
    run = _launched(command) if launched else forked.run(*command, "--processes", "2")
    assert run.returncode == 0, run.stderr[-3000:]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "dead channels taken out" in log  # and the ranks' gradients still fit each other
    assert log.count("converted model: top1=") == 1  # rank 0 alone logs and writes
    there = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (there["processes"], there["threads"]) == (2, 1)
    model, _ = load_network(
        tmp_path / "run" / "finish_converted.hdf5", lambda **widths: build_model(ARCH, in_channels=1, **widths)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@pytest.mark.long
def test_a_signal_to_one_process_stops_all_after_the_same_step(base_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [*PRUNE, "--base-weights", base_weights, "--output-dir", folder, "--max-steps", "30"]
    stopped = [
        "-m",
        "tests.experiments.stopped_run",
        signal.SIGTERM,
        "step 13, channels that are to stay",
        SCRIPT,
        *options,
    ]
    done = run_ranks(2, *stopped)  # rank 0 alone logs, and so is signalled
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert f"-c continue goes on from {folder / 'latest.pth'}" in done.stderr
    assert "Traceback" not in done.stderr
    step = load(folder / "latest.pth")["step"]
    assert step in (13, 14)  # the question goes around while a step is made
    resumed = run_ranks(2, SCRIPT, *options, "-c", "continue")
    assert resumed.returncode in (0, TARGET_MISSED), resumed.stderr
    assert f"step {step} of 30" in resumed.stderr


@pytest.mark.long
def test_what_torchrun_starts_again_goes_on_by_itself(finished: Path, base_weights: Path, tmp_path: Path) -> None:
    """Nobody gives `-c continue`; the end is that of a run that nothing disturbed, bit by bit."""
    folder = tmp_path / "run"
    stopped = ["-m", "tests.experiments.stopped_run", str(int(signal.SIGKILL)), "step 30 ", str(SCRIPT)]
    options = [*PRUNE, "--base-weights", base_weights, "--output-dir", folder, "--checkpoint-interval", "5"]
    launcher = ["torch.distributed.run", "--nproc_per_node=1", "--max-restarts=1", f"--master_port={free_port()}"]
    command = [sys.executable, "-m", *launcher, *stopped, *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, timeout=AMPLE, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    log = (folder / "log.txt").read_text()
    assert "going on after epoch 1, step 25 of 69" in log
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1
    assert_same_weights(finished, folder, ("finish.hdf5", "finish_converted.hdf5"))


def _launched(command: list[str]) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node=2", f"--master_port={free_port()}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=AMPLE, env=environment)
