"""A whole pruning run as a person runs it: its files, its figures, and what a second call of the script makes of it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from base_model import build_model, full_widths
from experiments.run_report.reading import read_run
from rr import load_pruned
from rr.graph import ChannelGraph
from rr.weights import read_hdf5
from tests.experiments.runs import ARCH, COMMON, PRUNE, assert_same_weights, prune, pruned
from training.json_files import read_json, read_lines

pytestmark = pytest.mark.slow


def test_a_run_reaches_its_target_and_loses_nothing(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["conversion"]["macs_ratio"] <= 0.471
    assert result["conversion"]["float64_difference"] <= 1e-10
    assert result["converted"]["top1"] == result["before_conversion"]["top1"] == result["last_epoch"]["top1"]
    assert result["skipped_steps"] == 0
    assert result["converted"]["loss"] == pytest.approx(result["before_conversion"]["loss"], rel=1e-5)
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)
    assert result["run"]["recipe"]["penalty"] == 0.05
    assert {"torch", "python"} <= set(result["run"]["versions"])


def test_a_run_that_misses_its_target_ends_with_3_and_one_piece_of_advice(base_weights: Path, tmp_path: Path) -> None:
    options = [*PRUNE, "--max-steps", "14", "--base-weights", base_weights, "--output-dir", tmp_path / "run"]
    for _ in range(2):  # whole, and once more where all is there
        done = prune(*options)
        assert done.returncode == 3, done.stderr
        told = [line for line in done.stderr.splitlines() if "reach" in line]
        assert told == done.stderr.splitlines()[-1:]
        assert re.search(r"the target isn't reached: [\d.]+% of the MACs remain, 47.1% were asked for; .* --", told[0])


def test_its_last_line_names_the_base_that_it_found_itself(base_weights: Path, tmp_path: Path) -> None:
    base = tmp_path / "src8_train" / "finish.hdf5"
    base.parent.mkdir()
    shutil.copy(base_weights, base)
    run = pruned(*PRUNE, "--max-steps", "1", cwd=tmp_path)
    assert "finish_converted.hdf5 --against src8_train/finish.hdf5\n" in run.stderr


def test_every_row_is_told_of_from_the_first_step_to_the_last(finished: Path) -> None:
    steps, rows = read_run(finished).row_norms
    last = read_lines(finished / "metrics.jsonl")[-1]
    assert (steps[0], steps[-1]) == (0, last["step"])
    assert steps == sorted(set(steps))
    found = json.loads((finished / "result.json").read_text())["conversion"]["layers"]
    layers = {layer["name"]: layer for layer in found}
    assert rows
    for name, norms in rows.items():
        assert len(norms) == layers[name]["width_before"]
        assert norms[:, 0] == pytest.approx(0, abs=0.021)  # the identity's
        assert (norms[:, -1] > -5).sum() == layers[name]["width_after"]


def test_files_are_the_documented_ones(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"log.txt", "init.hdf5", "before_first_mask.hdf5", "latest.pth", "finish.hdf5"} <= names
    assert {f"finish_converted.{suffix}" for suffix in ("hdf5", "pth", "safetensors", "pt2")} <= names
    assert {"metrics.jsonl", "run.json", "report.html", "tensorboard"} <= names
    card = load_pruned(finished / "finish_converted.safetensors").card
    assert card.recipe["dataset"] == "digits"
    assert "output_dir" not in card.recipe
    converted = read_hdf5(finished / "finish_converted.hdf5")
    assert len(converted.deps) == len(full_widths(ARCH))
    assert not any("compactor" in name or ".bn." in name for name in converted.arrays)
    with h5py.File(finished / "finish.hdf5") as file:
        assert file["stage1.block0.conv1.compactor.pwc.weight"].shape == (16, 16, 1, 1)
        assert file["stage1.block0.conv1.compactor.mask"].shape == (16,)
    with h5py.File(finished / "before_first_mask.hdf5") as file:
        assert all(file[name][()].min() == 1 for name in file if name.endswith(".mask"))
    payload = torch.load(finished / "finish_converted.pth", weights_only=True)
    assert payload["deps"] == converted.deps


def test_tensorboard_has_an_image_of_the_widths_for_each_epoch_that_changed_them(finished: Path) -> None:
    images = EventAccumulator(str(finished / "tensorboard"), size_guidance={"images": 0}).Reload().Images("Widths")
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    widths = {
        line["step"]: [value for name, value in line["scalars"].items() if name.startswith("width/")] for line in lines
    }
    changed = [step for (_, before), (step, now) in itertools.pairwise(widths.items()) if before != now]
    assert [image.step for image in images] == changed != []
    assert images[-1].encoded_image_string.startswith(b"\x89PNG")


def test_log_lines_are_the_originals(finished: Path) -> None:
    log = (finished / "log.txt").read_text()
    assert re.search(r"val at epoch 3, top1=[\d.]+, top5=[\d.]+, loss=[\d.]+", log)
    assert re.search(r"step \d+, channels that are to stay, by layer: \[16, \d+, 16, ", log)
    assert re.search(r"TRAIN speed: [\d.]+ examples/sec", log)


def test_the_converted_macs_are_those_of_the_widths(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())["conversion"]
    narrow = build_model(ARCH, widths=result["widths"], in_channels=1, image_size=8)
    graph = ChannelGraph(narrow, torch.zeros(1, 1, 8, 8))
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == result["macs_after"]


def test_a_finished_folder_is_tested_and_one_without_the_converted_file_converted(
    finished: Path, base_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    options = [*PRUNE, "--base-weights", base_weights, "--output-dir", folder]
    tested = pruned(*options)
    assert "converted model: top1=" in tested.stderr
    assert "step " not in tested.stderr
    (folder / "finish_converted.hdf5").unlink()
    pruned(*options)
    assert (folder / "finish.hdf5").read_bytes() == (finished / "finish.hdf5").read_bytes()
    assert_same_weights(finished, folder, ["finish_converted.hdf5"])
    for name in ("finish_converted.hdf5", "finish.hdf5"):
        (folder / name).unlink()
    (folder / "finish.hdf5").write_bytes((finished / "finish.hdf5").read_bytes()[:5000])
    damaged = prune(*options)
    assert damaged.returncode == 2
    assert "delete it: '-c continue' then writes it again from latest.pth" in damaged.stderr


def test_a_target_for_parameters_and_widths_in_multiples(base_weights: Path, tmp_path: Path) -> None:
    options = ["--flops-target", "none", "--params-target", "0.6", "--width-multiple", "8", "--min-width", "16"]
    options += ["--begin-granularity", "64", "--max-steps", "30"]
    pruned(*PRUNE, *options, "--base-weights", base_weights, "--output-dir", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    recipe = result["run"]["recipe"]
    asked = [recipe[name] for name in ("flops_target", "params_target", "width_multiple", "min_width")]
    assert asked == [None, 0.6, 8, 16]
    conversion = result["conversion"]
    assert conversion["masked_params_ratio"] <= 0.6
    masked = re.findall(
        r"channels that are to stay, by layer: \[([\d, ]+)\]", (tmp_path / "run" / "log.txt").read_text()
    )[-1]
    widths = [int(width) for width in masked.split(", ")]
    assert widths != full_widths(ARCH)
    assert all(width % 8 == 0 and width >= 16 for width in widths)
    converted = read_hdf5(tmp_path / "run" / "finish_converted.hdf5")
    assert sum(array.size for array in converted.arrays.values()) == conversion["parameters_after"]
    before = sum(parameter.numel() for parameter in build_model(ARCH, in_channels=1).parameters())
    assert conversion["parameters_ratio"] == conversion["parameters_after"] / before


def test_a_run_that_is_older_than_a_setting_can_be_gone_on_with(
    finished: Path, base_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    shutil.copytree(finished, folder)
    stored = read_json(folder / "run.json")
    newer = {"death_steps", "tighten_steps", "score", "per_mac", "masked_penalty", "narrow"}
    older = {"min_width": "num_at_least", "warmup_steps": "before_mask_iters", "rows_per_update": "begin_granularity"}
    kept = {name: value for name, value in stored["recipe"].items() if name not in newer}
    stored["recipe"] = {older.get(name, name): value for name, value in kept.items()}
    stored["recipe"] |= {"compactor_lr_factor": 1.0, "fold_share": 0.25}  # gone since
    (folder / "run.json").write_text(json.dumps(stored))
    options = [*PRUNE, "--masked-penalty", "none", "--base-weights", base_weights, "--output-dir", folder]
    pruned(*options, "-c", "continue")
    refused = prune(*options, "-c", "continue", "--score", "taylor")
    assert refused.returncode == 2
    assert 'score: there "norm", now "taylor"' in refused.stderr


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
        (["-a", "src20", "--dataset", "digits"], "python train_base_model.py -a src20 --dataset digits`"),
        (["-a", "sres50", "--dataset", "digits"], "python transform_torchvision.py -a sres50"),
        (["-a", "src20", "--dataset", "digits", "--flops-target", "0"], "--flops-target must be more than 0"),
        (["-a", "src20", "--dataset", "digits", "--flops-target", "none"], "--flops-target must be given"),
        (["-a", "src20", "--dataset", "digits", "--batch-size", "0"], "--batch-size is 0"),
        (["-a", "src20", "--dataset", "digits", "--flops-target", "2"], "give a share, 0.02 or 2%"),
        (["-a", "src20", "--dataset", "digits", "--flops-target", "much"], "--flops-target"),
        (["-a", "src20", "--dataset", "folder", "--data-dir", "nowhere"], "nowhere"),
        (["-a", ARCH, "--dataset", "digits", "--base-weights", "BROKEN"], "HDF5"),
        (["-a", "src32", "--dataset", "digits", "--base-weights", "BASE"], "missing"),
        (
            ["-a", ARCH, "--dataset", "digits", "--base-weights", "BASE", "--flops-target", "0.01"],
            "let more layers be pruned (--layers all)",
        ),
        ([*COMMON, "--base-weights", "BASE", "--output-dir", "FINISHED"], "another recipe"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    options: list[str], message: str, finished: Path, base_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.hdf5").write_bytes(base_weights.read_bytes()[:5000])
    stand_for = {"BASE": base_weights, "FINISHED": finished, "BROKEN": tmp_path / "broken.hdf5"}
    done = prune(*(stand_for.get(option, option) for option in options), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
