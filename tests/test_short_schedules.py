"""The benchmark of short schedules: the rivals' cuts, what is read from runs, and a tiny call of it, killed too."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from base_model import build_model, full_widths
from benchmarks.studies import fast_settings, narrowing_accuracy, rivals, short_schedules, study
from benchmarks.studies.pairs import paired_runs
from benchmarks.studies.results import (
    at_best_rates,
    entry_of,
    evaluations_table,
    joined,
    lead_in_words,
    leads_of,
    over_seeds,
    read_run,
    table,
)
from benchmarks.studies.rivals import (
    INNER,
    Rival,
    SparseLearning,
    convolutions,
    cut,
    cut_by_torch_pruning,
    two_parts,
    uniform_widths,
    widths_of,
)
from benchmarks.studies.short_schedules import ARMS
from data import Data, load_data
from rr import Share, fast_config
from rr.exp_resrep import parse_arguments
from rr.weights import read_hdf5, save_hdf5
from training import Paired, Recipe, TrainState, count_macs, loop, to_plain

SCRIPT = Path(short_schedules.__file__)
IMAGE = torch.zeros(1, 1, 8, 8)
NETWORK = ("-a", study.NETWORKS[0])


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", image_size=8)


@pytest.fixture
def network() -> nn.Module:
    """Trained-looking: BN statistics and scales that aren't the initial ones. float64, so that sums can be compared."""
    torch.manual_seed(1)
    model = build_model("src20", in_channels=1).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)
    return model


def images(number: int = 5) -> torch.Tensor:
    return torch.randn(number, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def silence(model: nn.Module, name: str, channels: torch.Tensor) -> None:
    """Make these channels of an inner convolution 0 behind its BN."""
    norm = model.get_submodule(name.removesuffix("conv") + "bn")
    with torch.no_grad():
        norm.weight[channels] = 0
        norm.bias[channels] = 0


def inner_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, conv) for name, conv in convolutions(model) if INNER.search(name)]


# The cuts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.2, 0.47, 0.9])
def test_l1_has_one_share_of_filters_and_the_largest_that_fits(data: Data, target: float) -> None:
    widths, full = uniform_widths("src20", data, target), full_widths("src20")
    limit = target * count_macs(build_model("src20", in_channels=1), IMAGE)
    pruned = [index for index, pair in enumerate(zip(widths, full, strict=True)) if pair[0] < pair[1]]
    names = [name for name, _ in convolutions(build_model("src20"))]
    assert [names[index] for index in pruned] == [name for name in names if INNER.search(name)]
    assert len(pruned) == 9
    least = max((widths[index] - 0.5) / full[index] for index in pruned)
    most = min((widths[index] + 0.5) / full[index] for index in pruned)
    assert least <= most  # one share rounds to all of these widths
    assert count_macs(build_model("src20", widths, in_channels=1), IMAGE) <= limit
    larger = [
        width + ((width + 0.5) / whole == most) if index in pruned else width
        for index, (width, whole) in enumerate(zip(widths, full, strict=True))
    ]
    assert larger != widths
    assert count_macs(build_model("src20", larger, in_channels=1), IMAGE) > limit


def test_a_target_under_one_filter_each_is_refused(data: Data) -> None:
    with pytest.raises(ValueError, match="can't be reached"):
        uniform_widths("src20", data, 0.01)


def test_l1_keeps_the_filters_with_the_largest_norms_and_all_their_numbers(network: nn.Module, data: Data) -> None:
    narrow = cut(Rival("l1", "some.hdf5"), "src20", network, data).double().eval()
    for name, conv in inner_convolutions(network):
        norms = [kernel.abs().sum().item() for kernel in conv.weight.detach()]
        width = narrow.get_submodule(name).out_channels
        silence(network, name, torch.tensor(sorted(range(len(norms)), key=norms.__getitem__)[:-width]))
    with torch.no_grad():
        assert torch.allclose(narrow(images()), network(images()), rtol=0, atol=1e-5)  # it was built in float32


def test_scratch_has_the_widths_of_l1_and_none_of_its_weights(network: nn.Module, data: Data) -> None:
    narrow, other = (cut(Rival(how, "some.hdf5"), "src20", network, data) for how in ("l1", "scratch"))
    assert widths_of(narrow) == widths_of(other)
    assert not any(
        torch.equal(a.weight, b.weight)
        for (_, a), (_, b) in zip(convolutions(narrow), convolutions(other), strict=True)
    )


def test_torch_pruning_cuts_inner_layers_alone_and_dead_channels_first(network: nn.Module, data: Data) -> None:
    network = network.float()
    generator = torch.Generator().manual_seed(3)
    dead = {}
    for name, conv in inner_convolutions(network):
        dead[name] = torch.randperm(conv.out_channels, generator=generator)[: conv.out_channels * 6 // 10]
        silence(network, name, dead[name])
        with torch.no_grad():
            conv.weight[dead[name]] *= 1e-3  # not 0: what is equal goes at once
            network.get_submodule(name.replace("conv1.conv", "conv2.conv")).weight[:, dead[name]] *= 1e-3
    with torch.no_grad():
        before = network(images().float())
    narrow = cut_by_torch_pruning(network, data, 0.47).eval()
    limit = 0.47 * count_macs(build_model("src20", in_channels=1), IMAGE)
    assert 0.97 * limit < count_macs(narrow, IMAGE) <= limit
    for (name, conv), whole in zip(convolutions(narrow), full_widths("src20"), strict=True):
        assert (conv.out_channels < whole) == (name in dead), name
    with torch.no_grad():
        assert torch.allclose(narrow(images().float()), before, rtol=0, atol=1e-5)


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


# Rivals that are stopped and go on ----------------------------------------------------------------------------

RIVAL = ["-a", "src20", "--dataset", "digits", "--image-size", "8", "--device", "cpu", "--schedule", "cosine"]
RIVAL += ["--milestones", "--batch-size", "64", "--max-steps", "4", "--checkpoint-interval", "2", "--epochs", "2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("base") / "finish.hdf5"
    save_hdf5(path, build_model("src20", in_channels=1).state_dict(), {"arch": "src20"})
    return path


@pytest.mark.parametrize(
    ("how", "more", "stops"),
    [("l1", ["--distill", "0.5"], 1), ("scratch", [], 1), ("unpruned", [], 1), ("torch-pruning", [], 2)],
)
def test_a_rival_that_is_stopped_ends_with_the_same_weights(
    how: str, more: list[str], stops: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped behind the first checkpoint of each of its parts."""
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
        with pytest.raises(KeyboardInterrupt):
            rivals.main(again)
        assert not (stopped / "result.json").exists()
    rivals.main(again)
    assert stopped_in == [stopped / "sparse", stopped][-stops:]

    first, second = (read_hdf5(folder / "finish.hdf5") for folder in (whole, stopped))
    assert first.deps == second.deps
    for name, array in first.arrays.items():
        assert np.array_equal(array, second.arrays[name]), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, stopped)]
    for result in results:
        del result["run"]
    assert results[0] == results[1]
    assert (results[0]["base"] is None) == (how == "scratch")
    assert (results[0]["base"] == results[0]["before_cut"]) == (how in ("l1", "scratch"))
    assert (results[0]["after_cut"] is None) == (how in ("scratch", "unpruned"))
    if how == "unpruned":
        assert (results[0]["macs_ratio"], results[0]["widths"]) == (1.0, full_widths("src20"))
    else:
        assert 0.4 < results[0]["macs_ratio"] <= 0.47
    (stopped / "result.json").unlink()  # stopped before its last word
    rivals.main(again)
    assert json.loads((stopped / "result.json").read_text())["finished"] == results[0]["finished"]


# The script -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of two classes, and a network for them to start from."""
    folder = tmp_path_factory.mktemp("short")
    random = np.random.default_rng(0)
    for split, number in (("train", 20), ("test", 6)):
        for label in ("cat", "dog"):
            (folder / "images" / split / label).mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / label / f"{index}.png")
    torch.manual_seed(7)
    for seed in (0, 1):
        save_hdf5(folder / "bases" / f"s{seed}" / "finish.hdf5", build_model("src20", num_classes=2).state_dict(), {})
    return folder


def call(place: Path, *more: str) -> list[str]:
    words = ["--data-dir", "images", "--bases", "bases", "--runs", "runs", "--output", "results/short.json"]
    folders = [str(place / word) if index % 2 else word for index, word in enumerate(words)]
    return [*folders, "--data-name", "two classes", *more]


def test_every_arm_runs_once_and_is_read_then(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = call(place, "--epochs", "2", "--seeds", "0", "--jobs", "2")
    short_schedules.main(words)
    results = json.loads((place / "results" / "short.json").read_text())
    assert (place / "results" / "short.png").stat().st_size > 10_000
    assert str(place) not in (place / "results" / "short.json").read_text()
    entries = {entry["arm"]: entry for entry in results["entries"]}
    assert list(entries) == list(ARMS)
    for name, entry in entries.items():
        (run,) = entry["runs"]
        assert entry["top1"] == {"mean": run["top1"], "spread": None, "n": 1}
        assert {"commit", "versions", "hardware"} <= set(run)
        assert entry["recipe"]["amp"]
        assert entry["recipe"]["batch_size"] == 128
        assert entry["recipe"]["distill"] == (0.5 if "distill" in name else 0.0)
        assert entry["recipe"]["distill_until"] == (0.65 if name.endswith("distill-part") else 1.0)
        assert entry["lr"] == ARMS[name].lr == entry["recipe"]["lr"]
        is_cut = ARMS[name].script == study.RIVALS and name != "base"  # two steps are too few for compactors
        assert (run["macs_ratio"] <= 0.47) == is_cut
        assert (run["base"] is None) == (name == "scratch")
        assert (run["after_cut"] is None) == (name in ("base", "scratch"))
    assert len({entry["runs"][0]["base"] for name, entry in entries.items() if name != "scratch"}) == 1

    for lead in results["leads"]:  # image by image, of the networks that the runs ended with
        paired = lead["paired"]
        assert paired["points"] == pytest.approx(lead["points"]["mean"])

    first = (place / "results" / "short.json").read_text()
    monkeypatch.setattr(study, "start", lambda *_: pytest.fail("started again"))
    short_schedules.main(words)
    assert (place / "results" / "short.json").read_text() == first
    short_schedules.main([*words, "--report", "--seeds", "0", "1"])  # those of another seed aren't trained
    assert (place / "results" / "short.json").read_text() == first
    assert "torch-pruning" in capsys.readouterr().out

    monkeypatch.setitem(ARMS, "l1", replace(ARMS["l1"], options=(*ARMS["l1"].options, "--momentum", "0.8")))
    with pytest.raises(SystemExit) as stopped:
        short_schedules.main(words)
    assert stopped.value.code == 2
    assert "other options" in capsys.readouterr().err


def test_what_a_file_keeps_is_not_trained_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, runs = tmp_path / "kept.json", [str(tmp_path / name) for name in ("here", "there")]
    words = [*call(place, "--epochs", "1", "--keep", "--output", str(output)), "--arms"]
    short_schedules.main([*words, "l1", "--seeds", "0", "--runs", runs[0]])
    (first,) = json.loads(output.read_text())["entries"]
    short_schedules.main([*words, "l1", "scratch", "--seeds", "0", "1", "--runs", runs[1]])
    assert sorted(path.name for path in Path(runs[1]).glob("*/")) == [  # seed 0 of l1 isn't among them
        *("l1-e1-lr0.05-s1", "scratch-e1-lr0.1-s0", "scratch-e1-lr0.1-s1")
    ]
    l1, scratch = json.loads(output.read_text())["entries"]
    assert [run["seed"] for run in l1["runs"]] == [run["seed"] for run in scratch["runs"]] == [0, 1]
    assert l1["runs"][0] == first["runs"][0]
    assert l1["top1"] == over_seeds([run["top1"] for run in l1["runs"]])

    monkeypatch.setattr(study, "start", lambda *_: pytest.fail("started again"))
    whole = output.read_text()
    short_schedules.main([*words, "scratch", "--seeds", "1", "--runs", runs[1]])
    assert output.read_text() == whole
    capsys.readouterr()
    for more, wrong in ((["-a", "src56"], "network src20, not src56"), (["--data-name", "birds"], "not birds")):
        with pytest.raises(SystemExit) as stopped:
            short_schedules.main([*words, "l1", "--seeds", "0", *more, "--runs", runs[1]])
        assert stopped.value.code == 2
        assert wrong in capsys.readouterr().err


def test_another_network_has_a_file_of_its_own(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "ROOT", tmp_path)
    of_one = study.Study("", ARMS, "short.json", (1,))
    words = ["--data-dir", "images", "--bases", str(place / "bases"), "--runs", "runs", "--seeds", "0", "--arms", "l1"]
    for network, file in (("src20", "short.json"), ("src56", "short_src56.json")):
        options = study.parse_arguments(of_one, [*words, "-a", network])
        assert options.output == tmp_path / "results" / file
        (run,) = study.wanted_runs(ARMS, options)
        assert run.command[:3] == (study.RIVALS, "-a", network)


def test_killed_it_goes_on_and_no_run_is_trained_twice_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = call(place, "--arms", "scratch", "--epochs", "120", "--seeds", "1", "--output", str(place / "killed.json"))
    folder = place / "runs" / "scratch-e120-lr0.1-s1"
    process = subprocess.Popen([sys.executable, str(SCRIPT), *words], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (folder / "latest.pth").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(SystemExit):
        short_schedules.main(words)
    assert "another process is at work" in capsys.readouterr().out
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not (folder / "finish.hdf5").exists()
    with open(folder.with_name(f"{folder.name}.out")) as lock:  # its own process is gone as well
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    short_schedules.main(words)
    assert re.search(r"going on after epoch \d+", (folder / "log.txt").read_text())
    assert json.loads((place / "killed.json").read_text())["entries"][0]["top1"]["n"] == 1


def test_a_run_that_fails_is_told_and_the_others_go_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "l1", replace(ARMS["l1"], options=("--how", "l0")))
    words = call(place, "--arms", "l1", "base", "--epochs", "1", "--seeds", "1", "--output", str(place / "some.json"))
    with pytest.raises(SystemExit) as stopped:
        short_schedules.main(words)
    assert stopped.value.code == 1
    assert re.search(r"l1-e1-lr0.05-s1: FAILED \(2\): .*l0", capsys.readouterr().out)
    assert [entry["arm"] for entry in json.loads((place / "some.json").read_text())["entries"]] == ["base"]


def test_compiling_more_threads_or_processes_make_it_no_other_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, threads, popen = [], [], subprocess.Popen

    def instead(command: list[str], env: dict[str, str], **options: Any) -> subprocess.Popen:
        commands.append(command)
        threads.append(env["OMP_NUM_THREADS"])
        return popen(["true"], env=env, **options)

    monkeypatch.setattr(study.subprocess, "Popen", instead)
    # those after the first would raise if they were other runs
    for more in ([], ["--compile"], ["--threads", "2"], ["--processes", "2"]):
        with pytest.raises(SystemExit):
            short_schedules.main(call(place, "--arms", "l1", "--epochs", "3", "--seeds", "0", *more))
    plain, compiled, of_two, in_two = commands
    assert sorted(compiled) == sorted([*plain, "--compile"])
    assert of_two == plain
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert in_two == [*plain[: plain.index(sys.executable) + 1], *launcher, *plain[plain.index(sys.executable) + 1 :]]
    assert threads == ["1", "1", "2", "1"]


def test_two_processes_train_a_run_together(place: Path) -> None:
    """A rival's and one of ours, with four images of each batch for either process."""
    output = place / "together.json"
    more = ("--epochs", "1", "--seeds", "0", "--lr", "0.03", "--processes", "2", "--output", str(output))
    short_schedules.main(call(place, "--arms", "l1", "fast", *more))
    for entry in json.loads(output.read_text())["entries"]:
        assert [run["processes"] for run in entry["runs"]] == [2]
        assert 0.4 < entry["macs_ratio"]["mean"] <= 1


def test_each_arm_of_the_settings_changes_one_of_them() -> None:
    lr = ("--lr", str(fast_settings.LR))
    before = [*NETWORK, *study.COMMON, *fast_settings.ARMS["before"].options, *lr]
    ours = [to_plain(part) for part in parse_arguments(before)[:3]]
    for name, arm in fast_settings.ARMS.items():
        if arm.script == study.PRUNE:
            words = [*NETWORK, *study.COMMON, *arm.options, "--lr", str(arm.lr)]
            theirs = [to_plain(part) for part in parse_arguments(words)[:3]]
            changed = [key for a, b in zip(ours, theirs, strict=True) for key in a if a[key] != b[key]]
            assert len(changed) == (name != "before"), name


def test_the_arms_of_narrowing_differ_in_nothing_else() -> None:
    ours, found = fast_config(flops_target=0.47, per_mac=False, tighten_steps=Share(0.25)), {}
    for name, arm in narrowing_accuracy.ARMS.items():
        _, config, _, _ = parse_arguments([*NETWORK, *study.COMMON, *arm.options])
        found[name] = (config.narrowing.mode, config.decay.proximal)
        assert config.with_settings(narrow="full", proximal=True) == ours
    assert found == {"no": ("no", True), "rows": ("rows", True), "full": ("full", True), "penalty": ("full", False)}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seeds", "5"], "s5"),
        (["--jobs", "0"], "--jobs 0"),
        (["--processes", "0"], "--processes 0"),
        (["--threads", "0"], "--threads 0"),
        (["--epochs", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_line(place: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        short_schedules.main(call(place, *more))
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


# Two runs image by image ------------------------------------------------------------------------------------


def says(label: int) -> dict[str, torch.Tensor]:
    """The weights of a network that takes everything for this class of two."""
    weights = build_model("src20", num_classes=2).state_dict()
    weights["linear.bias"] = 1000 * torch.eye(2)[label]
    return weights


def test_pairs_are_of_the_networks_that_the_runs_end_with(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for split in ("train", "test"):
        shutil.copytree(place / "images" / split, images / split)
    for image in sorted((images / "test" / "dog").iterdir())[2:]:
        image.unlink()  # 6 cats and 2 dogs
    folders = {name: tmp_path / name for name in ("cat", "dog")}
    save_hdf5(folders["cat"] / "finish.hdf5", says(0), {})
    save_hdf5(folders["dog"] / "finish.hdf5", says(0), {})
    save_hdf5(folders["dog"] / "finish_converted.hdf5", says(1), {})
    both = folders["cat"], folders["dog"]
    assert paired_runs("src20", "folder", images, [both, both[::-1]]) == [Paired(6, 2, 8), Paired(2, 6, 8)]
    assert paired_runs("src20", "folder", tmp_path / "no images", []) == []


def test_leads_of_one_seed_are_compared_where_the_runs_are_and_else_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def lead(arm: str, points: float, seeds: int = 1) -> dict[str, Any]:
        found = {"epochs": 12, "arm": arm, "arm_lr": 0.1, "rival": "theirs", "rival_lr": 0.2, "seeds": [*range(seeds)]}
        return {**found, "points": {"mean": points}, "spread": None if seeds == 1 else 0.1}

    asked = []

    def measure(arch: str, dataset: str, data_dir: Path, pairs: list[tuple[Path, Path]]) -> list[Paired]:
        asked.extend(pairs)
        return [Paired(1, 2, 10) for _ in pairs]

    monkeypatch.setattr(study, "paired_runs", measure)
    groups = {(12, name, lr): {0: Path(name)} for name, lr in (("ours", 0.1), ("many", 0.1), ("theirs", 0.2))}
    leads = [lead("ours", 1.0), lead("many", 2.0, seeds=2), lead("gone", 3.0), lead("trained anew", 4.0)]
    before = [{**lead(*of), "paired": of} for of in (("ours", 1.0), ("gone", 3.0), ("trained anew", 5.0))]
    options = SimpleNamespace(arch="src20", data_dir=Path("images"))
    found = study.with_pairs(leads, groups, before, options)
    assert asked == [(Path("theirs"), Path("ours"))]
    assert [one.get("paired") for one in found] == [Paired(1, 2, 10).to_dict(), None, ("gone", 3.0), None]
    assert [{**one, "paired": None} for one in found] == [{**one, "paired": None} for one in leads]


# What is read from runs -------------------------------------------------------------------------------------


def test_over_seeds() -> None:
    assert over_seeds([80.0, 82.0, 84.0]) == {"mean": 82.0, "spread": 2.0, "n": 3}
    assert over_seeds([80.0]) == {"mean": 80.0, "spread": None, "n": 1}


def test_leads_are_of_the_best_rates_and_of_seeds_that_both_have() -> None:
    def entry(arm: str, epochs: int, top1: dict[int, float], lr: float = 0.1) -> dict[str, Any]:
        runs = [{"seed": seed, "top1": value} for seed, value in top1.items()]
        return {"arm": arm, "epochs": epochs, "lr": lr, "top1": over_seeds(list(top1.values())), "runs": runs}

    entries = [
        entry("ours", 12, {0: 85.0, 1: 86.0, 2: 99.0}),
        entry("theirs", 12, {0: 70.0, 1: 71.0}),
        entry("theirs", 12, {0: 84.0, 1: 84.5}, 0.2),
        entry("theirs", 12, {0: 99.0}),  # a search on one seed decides nothing
        entry("ours", 25, {0: 85.0}),
        entry("theirs", 25, {0: 86.0}),
        entry("others", 25, {4: 80.0}),
    ]
    assert at_best_rates(entries) == [entries[0], entries[2], *entries[4:]]
    long, short = reversed(leads_of(entries, [("ours", "theirs"), ("ours", "others"), ("ours", "no one's")]))
    assert (short["arm"], short["rival"], short["epochs"]) == ("ours", "theirs", 12)
    assert (short["seeds"], short["arm_lr"], short["rival_lr"]) == ([0, 1], 0.1, 0.2)
    assert short["points"] == {"mean": 1.25, "spread": pytest.approx(0.125**0.5), "n": 2}
    assert short["spread"] == pytest.approx(0.5**0.5)
    assert short["more_than_the_spread"]
    assert (long["points"]["mean"], long["spread"], long["more_than_the_spread"]) == (-1.0, None, None)
    words = [lead_in_words(lead) for lead in (short, long)]
    assert words[0] == "12 epochs: ours over theirs +1.25 points, more than the spread of 0.71 (2 seeds)"
    assert words[1] == "25 epochs: ours over theirs -1.00 points (one seed)"
    on_images = {"only_first": 1300, "only_second": 1200, "num": 10_000, "points": -1.0, "standard_error": 0.5}
    assert lead_in_words({**long, "paired": on_images}) == (
        "25 epochs: ours over theirs -1.00 points "
        "(one seed; alone right: ours on 1,200 images, theirs on 1,300; standard error 0.50)"
    )
    (behind,) = leads_of(entries[:4], [("theirs", "ours")])
    assert "-1.25 points, not more than" in lead_in_words(behind)


def write_run(folder: Path, recipe: dict[str, Any], top1: list[float], result: dict[str, Any] | None) -> Path:
    """A finished run as the scripts leave it, with the evaluations `top1`."""
    folder.mkdir()
    run = {"recipe": {"output_dir": str(folder), "seed": 3, **recipe}}
    run |= dict.fromkeys(("started", "commit", "versions", "hardware", "processes", "threads", "device"), "known")
    (folder / "run.json").write_text(json.dumps(run))
    lines = [
        json.dumps({"epoch": epoch, "val": {"top1": value, "loss": 1.0 / (1 + epoch)}, "train": {"loss": 2.0 - epoch}})
        + "\n"
        for epoch, value in enumerate(top1)
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if result is not None:
        (folder / "result.json").write_text(json.dumps({**result, "run": run}))
    return folder


def test_figures_of_each_kind_of_run(tmp_path: Path) -> None:
    def val(top1: float) -> dict[str, float]:
        return {"top1": top1}

    recipe = {"flops_target": 0.47}
    assert read_run(tmp_path / "none") is None
    assert read_run(write_run(tmp_path / "unconverted", recipe, [80.0, 81.0], None)) is None
    pruned = {"base": val(80.0), "last_epoch": val(81.0), "conversion": {"macs_ratio": 0.5, "widths": [1]}}
    assert read_run(write_run(tmp_path / "untested", recipe, [80.0, 81.0], pruned)) is None
    both = {"before_conversion": val(82.0), "converted": val(79.0)}
    tested = read_run(write_run(tmp_path / "tested", recipe, [80.0, 81.0], {**pruned, **both}))
    around = [tested[name] for name in ("base", "before_cut", "after_cut", "top1", "macs_ratio")]
    assert around == [80.0, 82.0, 79.0, 79.0, 0.5]

    entry = {"macs_ratio": 0.46, "widths": [1], "finished": val(83.0)}
    rival = {"base": val(80.0), "before_cut": val(79.0), "after_cut": val(20.0), **entry}
    scratch = {"base": None, "before_cut": None, "after_cut": None, **entry}
    folders = {
        0: write_run(tmp_path / "rival", recipe, [20.0, 83.0], rival),
        1: write_run(tmp_path / "other", recipe, [20.0, 84.0], {**rival, "finished": val(84.0)}),
    }
    both = entry_of(folders)
    assert both["top1"] == {"mean": 83.5, "spread": pytest.approx(0.5**0.5), "n": 2}
    assert both["change"]["mean"] == 3.5
    assert both["val_loss"]["mean"] == 0.5
    assert (both["train_loss"]["mean"], [run["seed"] for run in both["runs"]]) == (1.0, [0, 1])
    assert [run["evaluations"] for run in both["runs"]] == [{"0": 20.0, "1": 83.0}, {"0": 20.0, "1": 84.0}]
    assert both["recipe"] == recipe  # without what is of one seed or one machine
    assert entry_of({0: write_run(tmp_path / "new", recipe, [9.0, 83.0], scratch)})["change"] is None


def test_the_way_of_each_run_that_has_it_is_a_column() -> None:
    runs = [{"seed": 0}, {"seed": 1, "evaluations": {"0": 10.0, "12": 80.123}}]
    entries = [
        {"arm": "ours", "lr": 0.02, "runs": runs},
        {"arm": "theirs", "lr": 0.1, "runs": [{"seed": 0, "evaluations": {"5": 70.0, "12": 79.0}}]},
    ]
    assert evaluations_table(entries).splitlines() == [
        "| after epoch | `ours`, 0.02, seed 1 | `theirs`, 0.1, seed 0 |",
        "| --- | --- | --- |",
        "| 0 | 10.00% |  |",
        "| 5 |  | 70.00% |",
        "| 12 | 80.12% | 79.00% |",
    ]


def test_runs_of_another_recipe_are_not_joined() -> None:
    def entry(seeds: tuple[int, ...], top1: float, **recipe: Any) -> dict[str, Any]:
        losses = dict.fromkeys(("val_loss", "train_loss", "macs_ratio"), 0.5)
        runs = [{"seed": seed, "top1": top1, "base": 80.0, **losses} for seed in seeds]
        return {"arm": "ours", "epochs": 12, "lr": 0.1, "recipe": {"lr": 0.1, **recipe}, "runs": runs}

    both = joined(entry((1,), 81.0, compile=True, new=1), entry((0, 1), 84.0, compile=False))
    assert [(run["seed"], run["top1"]) for run in both["runs"]] == [(0, 84.0), (1, 81.0)]
    assert (both["top1"]["mean"], both["change"]["mean"], both["top1"]["n"]) == (82.5, 2.5, 2)
    with pytest.raises(ValueError, match=r"ours with 12 epochs .*\(momentum\)"):
        joined(entry((1,), 81.0, momentum=0.9), entry((0,), 84.0, momentum=0.8))


def test_a_table_says_what_trained_its_runs(tmp_path: Path) -> None:
    entry = {"base": {"top1": 80.0}, "before_cut": None, "after_cut": None, "macs_ratio": 1.0, "widths": [1]}
    folder = write_run(tmp_path / "run", {}, [80.0, 81.0], {**entry, "finished": {"top1": 81.0}})
    found = {"arm": "base", "epochs": 1, "lr": 0.1, **entry_of({0: folder})}
    found["runs"] = [dict(found["runs"][0]) for _ in range(4)]
    for run, processes, threads in zip(found["runs"], (1, 1, 1, 2), (1, 1, 2, 1), strict=True):
        run |= {"processes": processes, "threads": threads, "hardware": {"cpu": "a CPU"}, "versions": {"torch": "2"}}
    del found["runs"][0]["processes"]  # as in files of before
    text = table({"network": "src20", "data": "images", "entries": [found]}, "some.json", [found])
    machines = ("one core a run", "2 cores a run", "2 cores (2 processes) a run")
    assert "; ".join(f"a CPU, {cores}, torch 2" for cores in machines) + "." in text
