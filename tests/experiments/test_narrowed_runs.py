"""Networks that lose channels in mid-run: their files, and runs that are killed on the way."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.experiments.runs import PRUNE, assert_same_weights, pruned, stopped

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize("narrow", ["rows", "full"])
def test_a_network_that_is_narrowed_in_mid_run(narrow: str, base_weights: Path, tmp_path: Path) -> None:
    """Its dead channels go while it trains; files stay at full width; killed after that, it goes on bit-identically.

    With 'full' it is killed while what the last fold needs is being measured.
    """
    options = [*PRUNE, "--narrow", narrow, "--layers", "all", "--flops-target", "0.6", "--base-weights", base_weights]
    options += ["--checkpoint-interval", "1", "--max-steps", "32"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = pruned(*options, "--output-dir", whole)
    taken = [int(step) for step in re.findall(r"step (\d+), \d+ dead channels taken out", run.stderr)]
    assert len(taken) > 1
    assert run.stderr.count("pruning is over") == (narrow == "full")
    result = json.loads((whole / "result.json").read_text())
    assert result["conversion"]["macs_ratio"] <= 0.6
    assert result["converted"]["top1"] == result["before_conversion"]["top1"] == result["last_epoch"]["top1"]
    assert result["converted"]["loss"] == pytest.approx(result["before_conversion"]["loss"], rel=1e-5)
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)
    widths = result["conversion"]["widths"]
    with h5py.File(whole / "finish.hdf5") as file:
        matrix = file["stage1.block0.conv1.compactor.pwc.weight"][()]
    assert matrix.shape == (16, 16, 1, 1)
    assert (np.abs(matrix).sum((1, 2, 3)) > 1e-5).sum() == widths[1] < 16

    options += ["--output-dir", killed]
    # at the last removal, after the checkpoint of the step before: with 'full' that is the retirement of the compactors
    done = stopped(signal.SIGKILL, f"step {taken[-1]}, channels that are to stay", *options)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (killed / "finish.hdf5").exists()
    (state,) = torch.load(killed / "latest.pth", weights_only=True)["callbacks"]
    assert state["removed"]
    assert ("folded" in state) == (narrow == "full")
    assert bool(state.get("meters")) == (narrow == "full")
    pruned(*options, "-c", "continue")
    assert_same_weights(whole, killed, ["finish.hdf5", "finish_converted.hdf5"])
