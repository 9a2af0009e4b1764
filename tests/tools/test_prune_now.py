"""Pruning without training, by the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from base_model import build_model
from rr import Timing, load_converted, load_pruned
from rr.latency import goal
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


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def prune_now(*options: object) -> Done:
    return scripts.call("tools/prune_now.py", *options)


@pytest.mark.slow
def test_the_files_of_a_pruning_run(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stopwatch that counts parameters, so that nothing depends on the machine."""
    timed: list[tuple[Timing, tuple[int, ...]]] = []

    def stopwatch(timing: Timing, shape: tuple[int, ...]) -> Callable[..., list[float]]:
        timed.append((timing, shape))
        return lambda full, narrow, _: [parameters(narrow) / parameters(full)] * 2

    monkeypatch.setattr(goal, "Stopwatch", stopwatch)
    folder = tmp_path / "out"
    options = ["--images", 100, "--batch-size", 20, "--held-out", 0.4]
    options += ["--latency-target", "80%", "--latency-runtime", "onnxruntime", "--latency-batch", 4]
    patterns = ["--include", "stage1.*", "stage2.*", "--exclude", "stage1.block0.*"]
    done = prune_now(weights, *options, *patterns, "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["settings"]["images"] == 100
    assert result["fitted"] + result["held_out"] == 100
    assert 0 < result["held_out"] < result["fitted"]
    told = f"refitted on {result['fitted']} inputs, and measured on {result['held_out']} others, which were kept out"
    assert told in done.stdout
    for stage in ("tracing the network", "measuring what each channel is worth: 0 of 3 batches", "testing the full"):
        assert stage in done.stderr  # where there is no terminal to draw a bar on
    assert result["outputs"].keys() == {"before", "after"}
    narrow = [layer["name"] for layer in result["conversion"]["layers"] if layer["width_after"] < layer["width_before"]]
    assert narrow
    assert all(re.match(r"stage(1\.block[12]|2\.)", name) for name in narrow)
    found, conversion = result["latency"], result["conversion"]
    assert timed[0] == (Timing("onnxruntime", batch=4), (1, 8, 8))
    assert found["median"] == pytest.approx(0.8, rel=0.03)
    assert found["macs_share"] == conversion["macs_after"] / conversion["macs_before"]
    assert found["where"] == {"runtime": "onnxruntime", "precision": "float32", "threads": 1, "batch": 4}
    assert f"it takes {found['median']:.1%} of the full network's time" in done.stdout
    assert f"top-1 {result['before']['top1']:.2f}% before, {result['after']['top1']:.2f}% after" in done.stdout
    assert f"the pruned network: {folder / 'finish_converted.hdf5'} (and" in done.stdout
    full = build_model("src20", num_classes=10, image_size=8, in_channels=1)
    slim = load_converted(folder / "finish_converted.hdf5", full)
    assert parameters(slim) == result["conversion"]["parameters_after"]
    named = load_pruned(folder / "finish_converted.safetensors")
    assert torch.equal(named(torch.ones(1, 1, 8, 8)), slim(torch.ones(1, 1, 8, 8)))
    assert named.card.classes == tuple("0123456789")
    assert named.card.proof["macs_after"] == result["conversion"]["macs_after"]
    assert named.card.proof["latency"] == found
    assert (folder / "finish_converted.pt2").is_file()
    again = prune_now(weights, "--output-dir", folder)
    assert again.returncode == 2
    assert "another --output-dir" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", 0], "--images is 0"),
        (["--rounds", 0], "--rounds must be at least 1, not 0"),
        (["--held-out", "100%"], "--held-out must be at least 0 and under 1, a share of the inputs, not 1.0"),
        (["--include", "nothing.*"], "--include has a pattern that fits no layer, 'nothing.*'"),
        (["--flops-target", 0.0001, "--images", 20], "can't be reached"),
        (["--layers", "most"], "invalid choice"),
        (["--latency-target", "150%"], "--latency-target is 1.5: give a share of the full network's time"),
        (["--runtime", "onnxruntime"], "are for a --latency-target: give it too"),
    ],
)
def test_mistakes_are_one_line(options: list[object], message: str, weights: Path, tmp_path: Path) -> None:
    done = prune_now(weights, "--output-dir", tmp_path / "out", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_file_is_the_first_thing_that_is_told_of(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "finish_converted.hdf5").touch()
    done = prune_now(tmp_path / "nope.hdf5", "--output-dir", tmp_path, "--images", 0)
    assert (done.returncode, done.stderr) == (2, f"error: there is no file {tmp_path / 'nope.hdf5'}: check the path\n")
    swallowed = prune_now("--include", "stage1.*", weights)
    assert "required: weights (--include takes all values that follow it: put WEIGHTS first)" in swallowed.stderr


def test_weights_of_other_classes_are_told_of_as_a_pruning_run_does(tmp_path: Path) -> None:
    path = tmp_path / "three.hdf5"
    model = build_model("src8", num_classes=3, image_size=32, in_channels=1)
    save_hdf5(path, model.state_dict(), {"arch": "src8", "dataset": "digits"})
    done = prune_now(path, "--output-dir", tmp_path / "out")
    assert done.returncode == 2
    assert f"{path} has 3 classes, the data has 10: give the data that it was trained on, or fine-tune" in done.stderr
