"""Pruning runs that are killed or stopped on the way and go on: bit by bit they end as those that weren't."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from experiments.recipes import fast_recipe, resrep_config
from rr.weights import read_hdf5
from tests.experiments.runs import ARCH, FAST, PRUNE, assert_same_weights, prune, pruned, stopped
from training import to_plain

pytestmark = pytest.mark.slow

BOTH = ("finish.hdf5", "finish_converted.hdf5")


def killed(words: str, *options: object) -> None:
    """Run the script, and have it killed as `kill -9` does when it has logged the words."""
    done = stopped(signal.SIGKILL, words, *options)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_in_mid_epoch_it_goes_on_bit_identically(finished: Path, base_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    options = [*PRUNE, "--base-weights", base_weights, "--output-dir", folder, "--checkpoint-interval", "5"]
    killed("step 30 ", *options)  # the masks are at work, and the second epoch isn't over
    assert not (folder / "finish.hdf5").exists()

    refused = prune(*options)
    assert refused.returncode == 2
    assert "-c continue" in refused.stderr
    resumed = pruned(*options, "-c", "continue")
    assert "going on after epoch 1, step 25 " in resumed.stderr
    assert_same_weights(finished, folder, BOTH)


@pytest.mark.long
def test_a_short_run_is_the_default_of_other_networks_and_resumes_bit_identically(
    base_weights: Path, tmp_path: Path
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    options = [*FAST, "--base-weights", base_weights]
    run = pruned(*options, "--output-dir", whole)
    result = json.loads((whole / "result.json").read_text())
    recipe = result["run"]["recipe"]
    config = resrep_config(ARCH, fast=True).for_run(92, fast_recipe(ARCH).lr)
    assert {name: recipe[name] for name in to_plain(config)} == to_plain(config)
    assert result["conversion"]["macs_ratio"] <= 0.471
    assert result["conversion"]["macs_ratio"] == result["conversion"]["masked_macs_ratio"]  # what was masked is dead
    assert result["conversion"]["float64_difference"] <= 1e-10
    assert result["converted"]["top1"] == result["before_conversion"]["top1"] == result["last_epoch"]["top1"]
    assert result["converted"]["loss"] == pytest.approx(result["before_conversion"]["loss"], rel=1e-5)
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)
    taken = [int(step) for step in re.findall(r"step (\d+), \d+ dead channels taken out", run.stderr)]
    assert len(taken) > 3
    assert min(taken) < 40
    assert run.stderr.count("pruning is over") == 1

    options += ["--output-dir", folder]
    killed(
        "step 13, channels that are to stay", *options
    )  # between two that channels were taken out at, three behind a checkpoint
    assert not (folder / "finish.hdf5").exists()
    refused = prune("-a", ARCH, "--dataset", "digits", "--output-dir", folder, "-c", "continue", "--lr", "0.5")
    assert refused.returncode == 2
    assert "(--lr: there 0.02, now 0.5): to go on with that one leave these options out" in refused.stderr
    resumed = pruned("-a", ARCH, "--output-dir", folder, "-c", "continue")  # all else is in run.json
    assert "step 10 of 92" in resumed.stderr
    assert_same_weights(whole, folder, BOTH)


@pytest.mark.long
def test_with_a_teacher_too_a_killed_run_goes_on_bit_identically(base_weights: Path, tmp_path: Path) -> None:
    """The unpruned network teaches; a killed run finds it in its own folder, and the base weights may be gone."""
    weights = tmp_path / "base.hdf5"
    shutil.copy(base_weights, weights)
    common = [*PRUNE, "--base-weights", weights, "--checkpoint-interval", "5", "--max-steps", "20"]
    common += ["--narrow", "rows", "--narrow-threshold", "0.9", "--seed", "1"]  # not the base weights' seed
    options = [*common, "--distill", "0.5", "--temperature", "2"]
    whole, untaught, folder = (tmp_path / name for name in ("whole", "untaught", "killed"))
    pruned(*options, "--output-dir", whole)
    pruned(*common, "--output-dir", untaught)
    assert "taken out of the network" in (whole / "log.txt").read_text()
    finals = [read_hdf5(each / "finish.hdf5").arrays for each in (whole, untaught)]
    assert any((array != finals[1][name]).any() for name, array in finals[0].items())

    killed("step 17, channels that are to stay", *options, "--output-dir", folder)
    weights.unlink()
    pruned(*options, "--output-dir", folder, "-c", "continue")
    assert_same_weights(whole, folder)


@pytest.mark.parametrize("name", ["INT", *(pytest.param(name, marks=pytest.mark.long) for name in ("TERM", "USR1"))])
def test_stopped_by_a_person_it_says_how_to_go_on_and_does_so_bit_by_bit(
    name: str, finished: Path, base_weights: Path, tmp_path: Path
) -> None:
    """The step of the signal is done, and in the checkpoint."""
    number, folder = signal.Signals[f"SIG{name}"], tmp_path / "stopped"
    options = [*PRUNE, "--base-weights", base_weights, "--output-dir", folder, "--signal-checkpoint", "USR1"]
    done = stopped(number, "step 40, channels that are to stay", *options)
    assert done.returncode == 128 + number
    *before, last = done.stderr.splitlines()
    assert last == f"stopped; the same command with -c continue goes on from {folder / 'latest.pth'}"
    assert "Traceback" not in done.stderr
    assert not any("-c continue" in line for line in before)
    resumed = pruned(*options, "-c", "continue")
    assert "going on after epoch 1, step 40 " in resumed.stderr
    assert_same_weights(finished, folder, BOTH)
