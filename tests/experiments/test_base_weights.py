"""Base weights that were trained on other images than they are pruned on are told of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.base_weights import of_other_data
from tests.experiments.runs import ARCH, PRUNE, prune, pruned
from training import Recipe

pytestmark = pytest.mark.slow


def test_base_weights_of_other_data_are_told_of(base_weights: Path, tmp_path: Path) -> None:
    base = tmp_path / "base" / "finish.hdf5"
    base.parent.mkdir()
    shutil.copy(base_weights, base)
    (base.parent / "run.json").write_text(json.dumps({"recipe": {"dataset": "cifar10"}}))
    run = pruned(*PRUNE, "--max-steps", "1", "--base-weights", base, "--output-dir", tmp_path / "run", "-c", "fs")
    assert f"{base} were trained with --dataset cifar10, and this run is with" in run.stderr
    for trained_on in ({"dataset": "digits", "data_dir": "a"}, {}):
        (base.parent / "run.json").write_text(json.dumps({"recipe": trained_on}))
        assert of_other_data(str(base), Recipe(ARCH, "digits")) is None
    refused = prune(*PRUNE, "--dataset", "synthetic", "--base-weights", base, "-c", "fs", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--dataset digits, and this run is with" not in refused.stderr  # nothing is known of these
    (base.parent / "run.json").write_text(json.dumps({"recipe": {"dataset": "digits"}}))
    refused = prune(*PRUNE, "--dataset", "synthetic", "--base-weights", base, "-c", "fs", cwd=tmp_path)
    assert "doesn't fit the model" in refused.stderr
    assert "were trained with --dataset digits, and this run is with --dataset synthetic" in refused.stderr


def test_base_weights_of_another_size_or_of_images_held_out_are_told_of(tmp_path: Path) -> None:
    recipe = Recipe("src8", "digits")
    for trained_on, here, told in (
        (
            {"dataset": "digits", "image_size": 8},
            recipe,
            "--dataset digits --image-size 8, and this run is with --dataset",
        ),
        ({"dataset": "digits", "image_size": 8}, replace(recipe, image_size=8), None),
        ({"dataset": "digits"}, replace(recipe, image_size=8), None),  # an older version's
        ({"dataset": "digits"}, replace(recipe, hold_out=100), "were trained on images that this run holds out"),
        ({"dataset": "digits", "hold_out": 100}, replace(recipe, hold_out=100), None),
        ({"dataset": "digits", "hold_out": 100}, recipe, None),
    ):
        (tmp_path / "run.json").write_text(json.dumps({"recipe": trained_on}))
        found = of_other_data(str(tmp_path / "finish.hdf5"), here)
        assert (found is None) if told is None else (told in found)
