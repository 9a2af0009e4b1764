"""The experiment script end to end, as a person runs it: prune, convert, test, kill, resume, several processes."""

import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from base_model import build_any, build_model, full_widths
from experiments.command_line import read_network
from experiments.recipes import fast_recipe, resrep_config, resrep_recipe
from rr import load_converted
from rr.graph import ChannelGraph
from rr.weights import load_network, read_hdf5, save_hdf5
from training import to_plain

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "rr" / "exp_resrep.py"
COMMON = ["-a", "src20", "--dataset", "digits", "--image-size", "8", "--batch-size", "64", "--device", "cpu"]
FAST = [*COMMON, "--epochs", "4", "--checkpoint-interval", "10", "--log-interval", "10"]  # 92 steps
# 23 steps an epoch; a masked row moves by lr * penalty / (1 - 0.9) = 0.025 a step, and settles as the rate falls.
PRUNE = [*COMMON, "--no-fast", "--epochs", "12", "--lr", "0.05", "--schedule", "step", "--gamma", "0.2"]
PRUNE += ["--milestones", "6", "7", "8", "9", "10", "11", "--penalty", "0.05", "--compactor-momentum", "0.9"]
PRUNE += ["--before-mask-epochs", "0.5", "--mask-interval", "1", "--begin-granularity", "16", "--log-interval", "10"]

MINE = """
from torch import nn
from torch.nn import functional as F

class Mine(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.up = nn.Conv2d(16, 32, 1, bias=False)
        self.up_bn = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(32)
        self.down = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = F.relu(self.stem_bn(self.stem(x)))
        y = F.relu(self.depthwise_bn(self.depthwise(F.relu(self.up_bn(self.up(x))))))
        return self.head(F.relu(x + self.down(y)).mean((2, 3)))

def build(num_classes, in_channels):
    return Mine(num_classes, in_channels)

def other(num_classes, in_channels):
    return Mine(num_classes, in_channels)
"""


def run_script(*options: str, script: Path = SCRIPT, **settings: object) -> subprocess.CompletedProcess:
    """Run a script in a process of its own."""
    command = [sys.executable, str(script), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **settings)


@pytest.fixture(scope="module")
def base_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that nobody trained: what is tested here doesn't depend on how good it is."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "finish.hdf5"
    save_hdf5(path, build_model("src20", in_channels=1).state_dict(), {"arch": "src20"})
    return path


@pytest.fixture(scope="module")
def finished(base_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = run_script(*PRUNE, "--base-weights", base_weights, "--output-dir", folder)
    assert run.returncode == 0, run.stderr
    return folder


def test_a_run_reaches_its_target_and_loses_nothing(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["conversion"]["macs_ratio"] <= 0.471
    assert result["conversion"]["float64_difference"] <= 1e-10
    assert result["converted"]["top1"] == result["before_conversion"]["top1"] == result["last_epoch"]["top1"]
    assert result["converted"]["loss"] == pytest.approx(result["before_conversion"]["loss"], rel=1e-5)
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)
    assert result["run"]["recipe"]["penalty"] == 0.05
    assert {"torch", "python"} <= set(result["run"]["versions"])


def test_files_are_the_documented_ones(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"log.txt", "init.hdf5", "before_first_mask.hdf5", "latest.pth", "finish.hdf5"} <= names
    assert {"finish_converted.hdf5", "finish_converted.pth", "metrics.jsonl", "run.json", "tensorboard"} <= names
    converted = read_hdf5(finished / "finish_converted.hdf5")
    assert len(converted.deps) == len(full_widths("src20"))
    assert not any("compactor" in name or ".bn." in name for name in converted.arrays)
    with h5py.File(finished / "finish.hdf5") as file:
        assert file["stage1.block0.conv1.compactor.pwc.weight"].shape == (16, 16, 1, 1)
        assert file["stage1.block0.conv1.compactor.mask"].shape == (16,)
    with h5py.File(finished / "before_first_mask.hdf5") as file:
        assert all(file[name][()].min() == 1 for name in file if name.endswith(".mask"))
    payload = torch.load(finished / "finish_converted.pth", weights_only=True)
    assert payload["deps"] == converted.deps


def test_log_lines_are_the_originals(finished: Path) -> None:
    log = (finished / "log.txt").read_text()
    assert re.search(r"val at epoch 12, top1=[\d.]+, top5=[\d.]+, loss=[\d.]+", log)
    assert re.search(r"iter \d+, unmasked deps \[16, \d+, 16, ", log)
    assert re.search(r"TRAIN speed: [\d.]+ examples/sec", log)


def test_the_converted_macs_are_those_of_the_widths(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())["conversion"]
    narrow = build_model("src20", widths=result["widths"], in_channels=1, image_size=8)
    graph = ChannelGraph(narrow, torch.zeros(1, 1, 8, 8))
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == result["macs_after"]


def test_every_file_can_be_evaluated_afresh(finished: Path, base_weights: Path, tmp_path: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    figures = tmp_path / "figures.json"
    tool = ROOT / "tools" / "evaluate.py"
    options = [*COMMON[:6], "--against", str(base_weights), "--output", str(figures)]
    run = run_script(finished / "finish_converted.pth", *options, script=tool)
    assert run.returncode == 0, run.stderr
    assert "MACs" in run.stdout
    written = json.loads(figures.read_text())
    assert written["val"]["top1"] == pytest.approx(result["converted"]["top1"])
    assert written["comparison"]["macs_ratio"] == pytest.approx(result["conversion"]["macs_ratio"])
    change = written["comparison"]["pruned"]["val"]["top1"] - written["comparison"]["base"]["val"]["top1"]
    assert written["comparison"]["paired"]["points"] == pytest.approx(change)
    assert f"top-1 {change:+.2f} points, standard error" in run.stdout
    in_training = run_script(finished / "finish.hdf5", *COMMON[:6], script=tool)
    assert f"top1={result['converted']['top1']:.4f}" in in_training.stdout
    assert "with compactors" in in_training.stdout


def test_a_finished_folder_is_tested_and_one_without_the_converted_file_converted(
    finished: Path, base_weights: Path
) -> None:
    options = [*PRUNE, "--base-weights", str(base_weights), "--output-dir", str(finished)]
    before = (finished / "finish_converted.hdf5").read_bytes()
    finish = (finished / "finish.hdf5").read_bytes()
    tested = run_script(*options)
    assert tested.returncode == 0, tested.stderr
    assert "converted model: top1=" in tested.stderr
    assert "step " not in tested.stderr
    (finished / "finish_converted.hdf5").unlink()
    again = run_script(*options)
    assert again.returncode == 0, again.stderr
    assert (finished / "finish.hdf5").read_bytes() == finish
    afresh = read_hdf5(finished / "finish_converted.hdf5")
    (finished / "finish_converted.hdf5").write_bytes(before)
    for name, array in read_hdf5(finished / "finish_converted.hdf5").arrays.items():
        assert np.array_equal(array, afresh.arrays[name]), name


def test_a_target_for_parameters_and_widths_in_multiples(base_weights: Path, tmp_path: Path) -> None:
    options = ["--flops-target", "none", "--params-target", "0.6", "--width-multiple", "8", "--min-width", "16"]
    options += ["--begin-granularity", "64", "--max-steps", "30"]
    run = run_script(*PRUNE, *options, "--base-weights", base_weights, "--output-dir", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    recipe = result["run"]["recipe"]
    asked = [recipe[name] for name in ("flops_target", "params_target", "width_multiple", "min_width")]
    assert asked == [None, 0.6, 8, 16]
    conversion = result["conversion"]
    assert conversion["masked_params_ratio"] <= 0.6
    masked = re.findall(r"unmasked deps \[([\d, ]+)\]", (tmp_path / "run" / "log.txt").read_text())[-1]
    widths = [int(width) for width in masked.split(", ")]
    assert widths != full_widths("src20")
    assert all(width % 8 == 0 and width >= 16 for width in widths)
    converted = read_hdf5(tmp_path / "run" / "finish_converted.hdf5")
    assert sum(array.size for array in converted.arrays.values()) == conversion["parameters_after"]
    before = sum(parameter.numel() for parameter in build_model("src20", in_channels=1).parameters())
    assert conversion["parameters_ratio"] == conversion["parameters_after"] / before


def test_killed_in_mid_epoch_it_goes_on_bit_identically(finished: Path, base_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    options = [*PRUNE, "--base-weights", str(base_weights), "--output-dir", str(folder), "--checkpoint-interval", "5"]
    kill_after("step 30 ", options)  # the masks are at work, and the second epoch isn't over
    assert not (folder / "finish.hdf5").exists()

    refused = run_script(*options)
    assert refused.returncode == 2
    assert "-c continue" in refused.stderr
    resumed = run_script(*options, "-c", "continue")
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"going on after epoch 1, step (25|30) ", resumed.stderr)
    for name in ("finish.hdf5", "finish_converted.hdf5"):
        whole, other = read_hdf5(finished / name), read_hdf5(folder / name)
        assert whole.arrays.keys() == other.arrays.keys()
        for key, array in whole.arrays.items():
            assert np.array_equal(array, other.arrays[key]), key


def test_a_short_run_is_the_default_of_other_networks_and_resumes_bit_identically(
    base_weights: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [*FAST, "--base-weights", str(base_weights)]
    run = run_script(*options, "--output-dir", whole)
    assert run.returncode == 0, run.stderr
    result = json.loads((whole / "result.json").read_text())
    recipe = result["run"]["recipe"]
    config = resrep_config("src20", fast=True).for_run(92, fast_recipe("src20").lr)
    assert {name: recipe[name] for name in to_plain(config)} == to_plain(config)
    assert result["conversion"]["macs_ratio"] <= 0.471
    assert result["conversion"]["macs_ratio"] == result["conversion"]["masked_macs_ratio"]  # what was masked is dead
    assert result["conversion"]["float64_difference"] <= 1e-10
    assert result["converted"]["top1"] == result["before_conversion"]["top1"] == result["last_epoch"]["top1"]
    assert result["converted"]["loss"] == pytest.approx(result["before_conversion"]["loss"], rel=1e-5)
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)
    taken = [int(step) for step in re.findall(r"iter (\d+), \d+ dead channels taken out", run.stderr)]
    assert len(taken) > 3
    assert min(taken) < 40
    assert run.stderr.count("pruning is over") == 1

    kill_after("dead channels taken out", [*options, "--output-dir", str(killed)])
    assert not (killed / "finish.hdf5").exists()
    resumed = run_script(*options, "--output-dir", killed, "-c", "continue")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("finish.hdf5", "finish_converted.hdf5"):
        first, second = read_hdf5(whole / name), read_hdf5(killed / name)
        assert first.arrays.keys() == second.arrays.keys()
        for key, array in first.arrays.items():
            assert np.array_equal(array, second.arrays[key]), key


def settings_of(*words: str) -> tuple[Any, ...]:
    """What the script makes of these words: recipe, config, start, options."""
    return runpy.run_path(str(SCRIPT))["parse_arguments"](words)


@pytest.mark.parametrize(
    ("words", "fast"),
    [
        (["-a", "src56"], False),
        (["-a", "sres50"], False),
        (["-a", "src56", "--fast"], True),
        (["-a", "src20"], True),
        (["-a", "src110", "--epochs", "25"], True),
        (["-a", "src20", "--no-fast"], False),
        (["-a", "torchvision/resnet50", "--dataset", "imagenet"], True),
        (["-a", "mine.py:src56", "--dataset", "folder", "--no-fast"], False),
    ],
    ids=str,
)
def test_which_settings_are_the_default(words: list[str], fast: bool) -> None:
    recipe, config, start, options = settings_of(*words)
    assert options.fast == fast
    arch, dataset = read_network(words)
    if fast:
        assert config == resrep_config(arch, fast=True)
        assert recipe == fast_recipe(arch, dataset, 25 if "--epochs" in words else 12)
        assert start.before_mask_epochs is None
    else:
        assert config == resrep_config(arch)
        assert recipe == resrep_recipe(arch, dataset)
        assert start.before_mask_epochs == 5


def test_single_options_change_the_settings_of_a_short_run() -> None:
    words = ["-a", "src20", "--tighten-steps", "300", "--before-mask-epochs", "0.5", "--penalty", "1e-5", "--lr", "0.1"]
    recipe, config, start, _ = settings_of(*words)
    assert config == resrep_config("src20", fast=True).with_settings(tighten_steps=300, penalty=1e-5)
    assert recipe == replace(fast_recipe("src20"), lr=0.1)
    assert start.before_mask_epochs == 0.5


def test_a_run_that_is_older_than_a_setting_can_be_gone_on_with(
    finished: Path, base_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    shutil.copytree(finished, folder)
    stored = json.loads((folder / "run.json").read_text())
    newer = {"death_steps", "tighten_steps", "score", "per_mac", "masked_penalty", "narrow"}
    older = {"min_width": "num_at_least", "warmup_steps": "before_mask_iters", "rows_per_update": "begin_granularity"}
    kept = {name: value for name, value in stored["recipe"].items() if name not in newer}
    stored["recipe"] = {older.get(name, name): value for name, value in kept.items()}
    stored["recipe"] |= {"compactor_lr_factor": 1.0, "fold_share": 0.25}  # gone since
    (folder / "run.json").write_text(json.dumps(stored))
    options = [*PRUNE, "--base-weights", str(base_weights), "--output-dir", str(folder)]
    tested = run_script(*options, "-c", "continue")
    assert tested.returncode == 0, tested.stderr
    refused = run_script(*options, "-c", "continue", "--score", "taylor")
    assert refused.returncode == 2
    assert 'score: there "norm", now "taylor"' in refused.stderr


def test_with_a_teacher_too_a_killed_run_goes_on_bit_identically(base_weights: Path, tmp_path: Path) -> None:
    """The unpruned network teaches; a killed run finds it in its own folder, and the base weights may be gone."""
    weights = tmp_path / "base.hdf5"
    shutil.copy(base_weights, weights)
    common = [*PRUNE, "--base-weights", str(weights), "--checkpoint-interval", "5", "--max-steps", "40"]
    common += ["--narrow", "rows", "--narrow-threshold", "0.9", "--seed", "1"]  # not the base weights' seed
    options = [*common, "--distill", "0.5", "--temperature", "2"]
    whole, untaught, killed = (tmp_path / name for name in ("whole", "untaught", "killed"))
    for folder, words in ((whole, options), (untaught, common)):
        run = run_script(*words, "--output-dir", folder)
        assert run.returncode == 0, run.stderr
    assert "taken out of the network" in (whole / "log.txt").read_text()
    finals = [read_hdf5(folder / "finish.hdf5").arrays for folder in (whole, untaught)]
    assert any(not np.array_equal(array, finals[1][name]) for name, array in finals[0].items())

    kill_after("step 30 ", [*options, "--output-dir", str(killed)])
    weights.unlink()
    resumed = run_script(*options, "--output-dir", killed, "-c", "continue")
    assert resumed.returncode == 0, resumed.stderr
    for name, array in read_hdf5(killed / "finish.hdf5").arrays.items():
        assert np.array_equal(array, finals[0][name]), name


def test_a_network_of_ones_own_from_its_own_checkpoint(tmp_path: Path) -> None:
    path, weights, folder = tmp_path / "mine.py", tmp_path / "mine.pth", tmp_path / "resrep_models" / "mine-build_train"
    path.write_text(MINE)
    name = f"{path}:build"
    torch.manual_seed(0)
    torch.save({"model": build_any(name, 10, 1).state_dict(), "epoch": 7}, weights)
    options = [*PRUNE, "-a", name, "--weights", str(weights), "--flops-target", "0.5"]
    run = run_script(*options, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["conversion"]["macs_ratio"] <= 0.5
    assert result["conversion"]["float64_difference"] <= 1e-10
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)

    slim = load_converted(folder / "finish_converted.hdf5", build_any(name, 10, 1))
    graph = ChannelGraph(slim, torch.zeros(1, 1, 8, 8))
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == result["conversion"]["macs_after"]

    tool = ROOT / "tools" / "evaluate.py"
    refused = run_script(folder / "finish_converted.hdf5", script=tool)
    assert refused.returncode == 2
    assert f"give -a {name}" in refused.stderr  # a weight file doesn't make the tool run a file
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / path.name)
    for file, kind in (
        ("finish_converted.hdf5", "converted"),
        ("finish_converted.pth", "converted"),
        ("finish.hdf5", "in training"),
    ):
        tested = run_script(folder / file, "-a", f"{moved}:build", script=tool)
        assert tested.returncode == 0, tested.stderr
        assert kind in tested.stdout
        assert f"top1={result['converted']['top1']:.4f}" in tested.stdout
    other = run_script(folder / "finish.hdf5", "-a", f"{moved}:other", script=tool)
    assert other.returncode == 2
    assert "holds a" in other.stderr


def kill_after(words: str, options: list[str]) -> None:
    """Run the script, and kill -9 it when it has logged `words`."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), *options], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if words in line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(60) == -signal.SIGKILL
    process.stderr.close()


@pytest.mark.parametrize("narrow", ["rows", "full"])
def test_a_network_that_is_narrowed_in_mid_run(narrow: str, base_weights: Path, tmp_path: Path) -> None:
    """Its dead channels go while it trains; files stay at full width; killed after that, it goes on bit-identically."""
    options = [*PRUNE, "--narrow", narrow, "--layers", "all", "--flops-target", "0.6", "--base-weights", base_weights]
    options = [str(option) for option in (*options, "--checkpoint-interval", "10", "--max-steps", "200")]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = run_script(*options, "--output-dir", whole)
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"iter \d+, \d+ dead channels taken out", run.stderr)) > 3
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

    kill_after("dead channels taken out", [*options, "--output-dir", str(killed)])
    assert not (killed / "finish.hdf5").exists()
    state = torch.load(killed / "latest.pth", weights_only=True)
    resumed = run_script(*options, "--output-dir", killed, "-c", "continue")
    assert resumed.returncode == 0, resumed.stderr
    assert str(state).count("removed") == 1
    assert str(state).count("folded") == (narrow == "full")
    for name in ("finish.hdf5", "finish_converted.hdf5"):
        first, second = read_hdf5(whole / name), read_hdf5(killed / name)
        for key, array in first.arrays.items():
            assert np.array_equal(array, second.arrays[key]), key


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
    began = time.perf_counter()
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert time.perf_counter() - began < 300
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "dead channels taken out" in log  # and the ranks' gradients still fit each other
    assert log.count("converted model: top1=") == 1  # rank 0 alone logs and writes
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    model, _ = load_network(
        tmp_path / "run" / "finish_converted.hdf5", lambda **widths: build_model("src20", in_channels=1, **widths)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-a", "src21"], "src20, src32"),
        (["-a", "torchvision/resnet18"], "--dataset"),
        (["-a", "torchvision/resnet19", "--dataset", "synthetic"], "no classifier 'resnet19'"),
        (
            ["-a", "torchvision/resnet18", "--dataset", "synthetic"],
            "torchvision-resnet18_train/finish.hdf5 are missing",
        ),
        (["-a", "src20", "--dataset", "digits", "--weights", "nowhere.safetensors"], "nowhere.safetensors are missing"),
        (["-a", "src20", "--dataset", "digits", "--weights", "default"], "no weights to download for 'src20'"),
        (["-a", "src20", "--epoch", "3"], "unrecognized arguments: --epoch"),
        (["-a", "src20", "--dataset", "cifar"], "cifar10, cifar100"),
        (["-a", "src20", "--dataset", "digits"], "python train_base_model.py -a src20"),
        (["-a", "sres50", "--dataset", "digits"], "python transform_torchvision.py -a sres50"),
        (["-a", "src20", "--dataset", "digits", "--flops-target", "0"], "flops_target must be more than 0"),
        (["-a", "src20", "--dataset", "digits", "--flops-target", "none"], "flops_target must be given"),
        (["-a", "src20", "--dataset", "digits", "--batch-size", "0"], "batch_size"),
        (["-a", "src20", "--dataset", "folder", "--data-dir", "nowhere"], "nowhere"),
        (["-a", "src20", "--dataset", "digits", "--base-weights", "BROKEN"], "HDF5"),
        (["-a", "src32", "--dataset", "digits", "--base-weights", "BASE"], "missing"),
        (
            ["-a", "src20", "--dataset", "digits", "--base-weights", "BASE", "--flops-target", "0.01"],
            "can't be reached",
        ),
        ([*COMMON, "--base-weights", "BASE", "--output-dir", "FINISHED"], "another recipe"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    options: list[str],
    message: str,
    finished: Path,
    base_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "broken.hdf5").write_bytes(base_weights.read_bytes()[:5000])
    stand_for = {"BASE": base_weights, "FINISHED": finished, "BROKEN": tmp_path / "broken.hdf5"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *(str(stand_for.get(option, option)) for option in options)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
