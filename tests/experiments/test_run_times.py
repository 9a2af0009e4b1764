"""Milliseconds by layer for a run's report: of which runs, and that both networks' layers are there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data import load_data
from experiments.run import Run
from experiments.run_times import is_worth_it, layer_milliseconds
from tests.experiments.runs import ARCH
from training import Recipe, World


@pytest.mark.parametrize(
    ("seconds", "device", "is_timed"), [([20, 39], "cpu", False), ([20, 41], "cpu", True), ([99], "cuda", False)]
)
def test_short_runs_and_those_on_a_gpu_are_not_timed(
    seconds: list[float], device: str, is_timed: bool, tmp_path: Path
) -> None:
    lines = [{"epoch": 0}, *({"epoch": epoch, "time": {"seconds": each}} for epoch, each in enumerate(seconds, 1))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = SimpleNamespace(folder=tmp_path, world=SimpleNamespace(device=torch.device(device)))
    assert is_worth_it(run) == is_timed


@pytest.mark.slow
def test_every_layer_of_the_report_has_its_times(finished: Path) -> None:
    layers = json.loads((finished / "result.json").read_text())["conversion"]["layers"]
    recipe = Recipe(ARCH, "digits", batch_size=4, output_dir=str(finished))
    world = World(0, 0, 1, torch.device("cpu"))
    times = layer_milliseconds(Run(recipe, (), world, load_data("digits", image_size=8)))
    assert times["images"] == 4
    assert {layer["name"] for layer in layers} == set(times["layers"])
    assert all(before > 0 and after > 0 for before, after in times["layers"].values())
