"""Any weight file is tested afresh, alone or against another one (`tools/evaluate.py`)."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rr.weights import save_hdf5
from tests import scripts
from tests.experiments.runs import ARCH, COMMON
from tests.scripts import Done

pytestmark = pytest.mark.slow


def evaluate(*options: object) -> Done:
    done = scripts.call("tools/evaluate.py", *options)
    assert done.returncode == 0, done.stderr
    return done


def test_every_file_can_be_evaluated_afresh(finished: Path, base_weights: Path, tmp_path: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    figures = tmp_path / "figures.json"
    options = [*COMMON[:6], "--against", base_weights, "--output", figures]
    run = evaluate(finished / "finish_converted.pth", *options)
    assert "MACs" in run.stdout
    written = json.loads(figures.read_text())
    assert written["val"]["top1"] == pytest.approx(result["converted"]["top1"])
    assert written["comparison"]["macs_ratio"] == pytest.approx(result["conversion"]["macs_ratio"])
    change = written["comparison"]["pruned"]["val"]["top1"] - written["comparison"]["base"]["val"]["top1"]
    assert written["comparison"]["paired"]["points"] == pytest.approx(change)
    assert f"top-1 {change:+.2f} points, standard error" in run.stdout
    of_the_run = evaluate(finished / "finish.pth")  # run.json says which network, which data and what size
    assert f"top1={result['converted']['top1']:.4f}" in of_the_run.stdout
    in_training = evaluate(finished / "finish.hdf5", *COMMON[:6])
    assert f"top1={result['converted']['top1']:.4f}" in in_training.stdout
    assert "with compactors" in in_training.stdout


def test_what_cant_be_evaluated_is_told_in_a_line(base_weights: Path, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "own.pth")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "other").mkdir()
    slim = tmp_path / "other" / "slim.hdf5"
    arrays = {"linear.weight": torch.zeros(3, 64)}
    save_hdf5(slim, arrays, {"arch": ARCH, "dataset": "digits", "num_classes": 3}, [16])
    for words, message in (
        ([tmp_path / "own.pth"], "says which network it holds: give -a"),
        ([tmp_path], f"{tmp_path} is a folder: give a file in it, {tmp_path / 'own.pth'}, say"),
        ([tmp_path / "notes.txt"], "is no file of weights: give one of .hdf5"),
        ([slim], f"{slim} has 3 classes, the data has 10: give the data that it is for"),
        ([base_weights, "--dataset", "folder"], "the data set 'folder' needs --data-dir"),
        ([base_weights, "--image-size", 0], "--image-size is 0: give at least 1"),
        ([base_weights, "--batch-size", 0], "--batch-size is 0: give at least 1"),
    ):
        done = scripts.call("tools/evaluate.py", *words)
        assert done.returncode == 2
        assert message in done.stderr


def test_weights_without_checksums_are_said_to_have_none(tmp_path: Path) -> None:
    """Also by the scripts that read them before they have their data: they said nothing."""
    with h5py.File(tmp_path / "others.hdf5", "w") as file:
        file["linear.weight"] = np.zeros((3, 64), np.float32)
    for words in (["tools/evaluate.py"], ["tools/prune_now.py", "--flops-target", 0.5]):
        done = scripts.call(words[0], tmp_path / "others.hdf5", *words[1:])
        assert done.returncode == 2
        assert "others.hdf5 has no checksum" in done.stderr
