"""A pruning run of two processes, by both of torch's launchers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from base_model import build_model
from rr.weights import load_network
from tests.experiments.runs import PRUNE, SCRIPT
from tests.forked import AMPLE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("launcher", "narrow"),
    [(["-m", "torch.distributed.run"], "full"), (["-m", "torch.distributed.launch"], "rows")],
    ids=["torchrun", "torch.distributed.launch"],
)
def test_two_processes(launcher: list[str], narrow: str, base_weights: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *launcher, "--nproc_per_node=2", f"--master_port={port}", str(SCRIPT), *PRUNE]
    command += ["--base-weights", str(base_weights), "--output-dir", str(tmp_path / "run"), "--max-steps", "20"]
    command += ["--narrow", narrow, "--narrow-threshold", "0.9", "--rows-per-update", "4"]
    command += ["--score", "taylor", "--per-mac", "--proximal", "--masked-penalty", "0.1", "--tighten-steps", "10"]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=AMPLE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr[-3000:]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "dead channels taken out" in log  # and the ranks' gradients still fit each other
    assert log.count("converted model: top1=") == 1  # rank 0 alone logs and writes
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    model, _ = load_network(
        tmp_path / "run" / "finish_converted.hdf5", lambda **widths: build_model("src20", in_channels=1, **widths)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
