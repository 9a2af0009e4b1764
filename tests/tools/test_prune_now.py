"""Pruning without training, by the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from base_model import build_model
from rr import load_converted, load_pruned
from rr.weights import save_hdf5
from tests import scripts
from tests.scripts import Done


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that nobody has trained, in a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "finish.hdf5"
    model = build_model("src20", num_classes=10, image_size=8, in_channels=1)
    save_hdf5(path, model.state_dict(), {"arch": "src20", "dataset": "digits", "image_size": 8})
    return path


def prune_now(*options: object) -> Done:
    return scripts.call("tools/prune_now.py", *options)


def test_the_files_of_a_pruning_run(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    options = ["--flops-target", "80%", "--images", 100, "--batch-size", 20, "--held-out", 0.4]
    patterns = ["--include", "stage1.*", "stage2.*", "--exclude", "stage1.block0.*"]
    done = prune_now(weights, *options, *patterns, "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["settings"]["images"] == 100
    assert result["fitted"] + result["held_out"] == 100
    assert 0 < result["held_out"] < result["fitted"]
    told = f"refitted on {result['fitted']} inputs; on {result['held_out']} inputs held out:"
    assert told in done.stdout
    assert result["outputs"].keys() == {"before", "after"}
    narrow = [layer["name"] for layer in result["conversion"]["layers"] if layer["width_after"] < layer["width_before"]]
    assert narrow
    assert all(re.match(r"stage(1\.block[12]|2\.)", name) for name in narrow)
    assert result["conversion"]["macs_after"] <= 0.8 * result["conversion"]["macs_before"]
    assert f"top-1 {result['before']['top1']:.2f}% before, {result['after']['top1']:.2f}% after" in done.stdout
    full = build_model("src20", num_classes=10, image_size=8, in_channels=1)
    slim = load_converted(folder / "finish_converted.hdf5", full)
    assert sum(p.numel() for p in slim.parameters()) == result["conversion"]["parameters_after"]
    named = load_pruned(folder / "finish_converted.safetensors")
    assert torch.equal(named(torch.ones(1, 1, 8, 8)), slim(torch.ones(1, 1, 8, 8)))
    assert named.card.classes == tuple("0123456789")
    assert named.card.proof["macs_after"] == result["conversion"]["macs_after"]
    assert (folder / "finish_converted.pt2").is_file()
    again = prune_now(weights, "--output-dir", folder)
    assert again.returncode == 2
    assert "another --output-dir" in again.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", 0], "--images is 0"),
        (["--rounds", 0], "rounds"),
        (["--include", "nothing.*"], "nothing.*"),
        (["--flops-target", 0.0001, "--images", 20], "can't be reached"),
        (["--layers", "most"], "invalid choice"),
    ],
)
def test_mistakes_are_one_line(options: list[object], message: str, weights: Path, tmp_path: Path) -> None:
    done = prune_now(weights, "--output-dir", tmp_path / "out", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
