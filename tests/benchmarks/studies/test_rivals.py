"""The rivals' own script: what it refuses, sparse learning, and runs that are stopped and go on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from base_model import build_model, full_widths
from benchmarks.studies import cuts, rivals
from benchmarks.studies.rivals import Rival, SparseLearning, two_parts
from data import Data
from rr.weights import read_hdf5, save_hdf5
from tests.benchmarks.studies.helpers import SMALL, inner_convolutions
from training import Recipe, TrainState, loop
from training.json_files import read_json

RIVAL = ["-a", SMALL, "--dataset", "digits", "--image-size", "8", "--device", "cpu", "--schedule", "cosine"]
RIVAL += ["--milestones", "--batch-size", "64", "--max-steps", "4", "--checkpoint-interval", "2", "--epochs", "2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("base") / "finish.hdf5"
    save_hdf5(path, build_model(SMALL, in_channels=1).state_dict(), {"arch": SMALL})
    return path


def test_sparse_learning_pulls_at_the_layers_that_are_cut_and_at_no_others(network: nn.Module, data: Data) -> None:
    network = network.float()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = SimpleNamespace(model=network, optimizer=optimizer)
    SparseLearning(Rival("torch-pruning", "some.hdf5", sparse_penalty=0.1), data).on_start(state)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name: value for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    blocks = [name.removesuffix("conv1.conv") for name, _ in inner_convolutions(network)]
    parts = ("conv1.conv.weight", "conv1.bn.weight", "conv2.conv.weight")
    assert set(changed) == {block + part for block in blocks for part in parts}
    for name, value in changed.items():  # by lr x penalty x (1 to 2^4) of itself
        pull = 1 - (value / before[name]).detach()
        assert 0.01 * (1 - 1e-3) < pull.min() < pull.max() < 0.16 * (1 + 1e-3), name


@pytest.mark.parametrize(("epochs", "share", "expected"), [(12, 0.5, (6, 6)), (2, 0.01, (1, 1)), (3, 0.99, (2, 1))])
def test_both_parts_of_torch_pruning_are_trained_in_all_for_the_epochs(
    epochs: int, share: float, expected: tuple[int, int]
) -> None:
    rival = Rival("torch-pruning", "some.hdf5", sparse_share=share)
    before, after = two_parts(Recipe("src20", "digits", epochs=epochs), rival)
    assert (before.epochs, after.epochs) == expected
    assert before.output_dir != after.output_dir


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--how", "l1"], "--weights"),
        (["--how", "l2"], "invalid choice"),
        (["--how", "scratch", "--distill", "0.5"], "--weights"),
        (["--how", "scratch", "--flops-target", "1.5"], "flops_target"),
        (["--how", "scratch", "-a", "vc"], "CIFAR ResNets"),
        (["--how", "torch-pruning", "--weights", "BASE", "--epochs", "1"], "--epochs 2"),
    ],
)
def test_what_a_rival_cannot_be_is_one_line(
    options: list[str], words: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(base) if option == "BASE" else option for option in options]
    with pytest.raises(SystemExit) as stopped:
        rivals.main([*RIVAL, *options, "--output-dir", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert words in [line for line in capsys.readouterr().err.splitlines() if "error: " in line][-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "more", "stops"),
    [
        ("l1", ["--distill", "0.5"], 1),
        pytest.param("scratch", [], 1, marks=pytest.mark.long),
        pytest.param("unpruned", [], 1, marks=pytest.mark.long),
        pytest.param("torch-pruning", [], 2, marks=pytest.mark.long),
    ],
)
def test_a_rival_that_is_stopped_ends_with_the_same_weights(
    how: str, more: list[str], stops: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped behind the first checkpoint of each of its parts."""
    monkeypatch.setattr(cuts, "PRUNING_STEPS", 50)  # coarse, but of the same parts
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = [*RIVAL, "--how", how, *more] + ([] if how == "scratch" else ["--weights", str(base)])
    rivals.main([*options, "--output-dir", str(whole)])
    real, stopped_in = loop.save_run, []

    def save_and_stop(name: str, state: TrainState, *rest: object) -> None:
        real(name, state, *rest)
        if state.log.folder not in stopped_in:
            stopped_in.append(state.log.folder)
            raise KeyboardInterrupt

    again = [*options, "--output-dir", str(stopped), "-c", "continue"]
    monkeypatch.setattr(loop, "save_run", save_and_stop)
    for _ in range(stops):
        with pytest.raises(SystemExit):  # as Ctrl-C ends it
            rivals.main(again)
        assert not (stopped / "result.json").exists()
    rivals.main(again)
    assert stopped_in == [stopped / "sparse", stopped][-stops:]

    first, second = (read_hdf5(folder / "finish.hdf5") for folder in (whole, stopped))
    assert first.deps == second.deps
    for name, array in first.arrays.items():
        assert np.array_equal(array, second.arrays[name]), name
    results = [read_json(folder / "result.json") for folder in (whole, stopped)]
    for result in results:
        del result["run"]
    assert results[0] == results[1]
    assert (results[0]["base"] is None) == (how == "scratch")
    assert (results[0]["base"] == results[0]["before_cut"]) == (how in ("l1", "scratch"))
    assert (results[0]["after_cut"] is None) == (how in ("scratch", "unpruned"))
    if how == "unpruned":
        assert (results[0]["macs_ratio"], results[0]["widths"]) == (1.0, full_widths(SMALL))
    else:
        assert 0.4 < results[0]["macs_ratio"] <= 0.47
    (stopped / "result.json").unlink()  # stopped before its last word
    rivals.main(again)
    assert read_json(stopped / "result.json")["finished"] == results[0]["finished"]
