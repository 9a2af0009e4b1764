"""Pruning runs that begin with the cut: their files and figures, and one that is killed after it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from tests.experiments.runs import ARCH, COMMON, assert_same_weights, pruned, stopped

pytestmark = pytest.mark.slow

CUT = (*COMMON, "--start", "refit", "--refit-images", "40", "--flops-target", "0.5", "--distill", "0.5")
SHORT = ("--epochs", "1", "--checkpoint-interval", "1", "--log-interval", "2", "--max-steps", "3", "--lr", "0.01")


@pytest.mark.long
def test_a_run_is_narrow_from_its_first_step_and_goes_on_without_a_second_cut(
    base_weights: Path, tmp_path: Path
) -> None:
    options = [*CUT, *SHORT, "--base-weights", base_weights]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    log = pruned(*options, "--output-dir", whole).stderr
    assert log.count("cut at once") == log.count("(held out)") == 1
    names = {path.name for path in whole.iterdir()}
    assert {"init.hdf5", "before_first_mask.hdf5", "finish.hdf5", "finish_converted.pt2", "report.html"} <= names
    result = json.loads((whole / "result.json").read_text())
    first = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    assert result["base"] == first["val"]  # of the full network: the cut comes after it
    assert result["cut"].keys() == result["base"].keys() | {"seconds", "refit"}
    assert 0 < result["cut"]["loss"] != result["base"]["loss"]
    assert 0 < result["cut"]["refit"]["held_out"] < 40
    assert result["conversion"]["macs_ratio"] <= 0.5
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)

    done = stopped(signal.SIGKILL, "step 2 of 3", *options, "--output-dir", killed)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = torch.load(killed / "latest.pth", weights_only=True)
    assert saved["step"] == 1
    assert saved["callbacks"][0]["retired"]
    assert saved["model"]["stage1.block0.conv1.conv.weight"].shape[0] == result["conversion"]["widths"][1] < 16
    resumed = pruned("-a", ARCH, "--output-dir", killed, "-c", "continue").stderr
    assert "cut at once" not in resumed
    assert_same_weights(whole, killed, ["finish.hdf5", "finish_converted.hdf5"])
    assert json.loads((killed / "result.json").read_text())["cut"]["refit"] == result["cut"]["refit"]
