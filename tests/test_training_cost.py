"""The benchmark of training cost: what ratios come to, the networks that it times, and a tiny run of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.cost import training_cost
from benchmarks.cost.training_figures import (
    FLOOR,
    FULL,
    FULL_WIDTH,
    PLAIN,
    ROWS,
    SHARES,
    VARIANTS,
    bars,
    paired_ratio,
    whole_run,
    whole_runs,
)
from benchmarks.cost.training_steps import Schedule, Setting, mask, narrow_plain, training_of
from rr.compactors import find_compactors

TINY = Setting("src20", "float32", batch=2, image_size=16)
SILENT_UNITS_LEAVE_CONSTANTS = Setting("torchvision/mobilenet_v2", "float32", batch=2, image_size=32)


# Pure parts --------------------------------------------------------------------------------------------------


def test_ratios_are_of_pairs() -> None:
    """A machine that is slow in one round is so for both."""
    times = [{PLAIN: 1.0, ROWS: 0.8}, {PLAIN: 10.0, ROWS: 8.0}, {PLAIN: 2.0, ROWS: 1.8}]
    found = paired_ratio(times, ROWS)
    assert found["median"] == pytest.approx(0.8)
    assert found["quartiles"] == pytest.approx([0.8, 0.85])
    assert paired_ratio(times, PLAIN, over=ROWS)["median"] == pytest.approx(1.25)


@pytest.mark.parametrize("share", [0.1, 1 / 3, 1.0])
def test_a_whole_run_is_the_mean_over_its_steps(share: float) -> None:
    progress, ratios = [0.0, 0.2, 0.7, 1.0], [1.15, 1.1, 0.8, 0.7]
    steps = (np.arange(1_000_000) + 0.5) / 1_000_000
    by_hand = np.interp(np.minimum(steps / share, 1), progress, ratios).mean()
    assert whole_run(progress, ratios, share) == pytest.approx(by_hand, abs=1e-6)


def test_a_whole_run_needs_the_whole_way_to_the_target() -> None:
    for progress in ([0.0], [0.1, 1.0], [0.0, 0.9]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            whole_run(progress, [1.0] * len(progress), 0.5)
    with pytest.raises(ValueError, match="share"):
        whole_run([0.0, 1.0], [1.0, 1.0], 0.0)


def test_what_comes_between_the_steps_counts() -> None:
    points = [
        {"progress": at, "ratios": {name: {"median": ratio} for name in VARIANTS[1:]}}
        for at, ratio in ((0.0, 1.0), (1.0, 0.5))
    ]
    found = whole_runs(points, {ROWS: 0.01, FULL: 0.02})
    assert set(found) == {ROWS, FULL, FLOOR}
    assert found[FLOOR] == pytest.approx({"a third": 0.75 / 3 + 0.5 * 2 / 3, "a tenth": 0.075 + 0.45})
    for name in SHARES:
        assert found[ROWS][name] == pytest.approx(found[FLOOR][name] + 0.01)
        assert found[FULL][name] == pytest.approx(found[FLOOR][name] + 0.02)


@pytest.mark.parametrize(
    ("no_narrowing", "over_floor", "third", "tenth", "expected"),
    [
        (1.10, 1.03, 0.90, 0.82, [True, True, True, True]),
        (1.11, 1.03, 0.90, 0.82, [False, True, True, True]),
        (1.10, 1.04, 0.90, 0.82, [True, False, True, True]),
        (1.10, 1.03, 0.91, 0.82, [True, True, False, True]),
        (1.10, 1.03, 0.90, 0.83, [True, True, True, False]),
    ],
)
def test_each_bar_is_its_own(
    no_narrowing: float, over_floor: float, third: float, tenth: float, expected: list[bool]
) -> None:
    others = {"a third": 0.5, "a tenth": 0.5}
    figures = {
        "no_narrowing": {"median": no_narrowing},
        "over_floor": {FULL: {"median": over_floor}, ROWS: {"median": 0.5}},
        "whole_run": {FLOOR: others, ROWS: others, FULL: {"a third": third, "a tenth": tenth}},
    }
    assert list(bars(figures).values()) == expected


# What is timed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [TINY, SILENT_UNITS_LEAVE_CONSTANTS], ids=lambda setting: setting.model)
def test_at_full_width_the_floor_is_the_plain_network(setting: Setting) -> None:
    plain = training_of(PLAIN, setting).model
    floor = narrow_plain(training_of(ROWS, setting).pruner)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (plain, floor)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("setting", [TINY, SILENT_UNITS_LEAVE_CONSTANTS], ids=lambda setting: setting.model)
def test_at_the_target_the_variants_have_its_widths(setting: Setting) -> None:
    full = training_of(FULL_WIDTH, setting)
    rows, folded, floor = (training_of(variant, setting, at_target=True) for variant in (ROWS, FULL, FLOOR))
    assert setting.config.target.flops - 0.05 < rows.pruner.remaining.macs_ratio <= setting.config.target.flops
    assert rows.pruner.live.remaining.removed.sum() == (~rows.pruner.remaining.alive).sum() > 0
    assert all((compactor.mask == 1).all() for compactor in find_compactors(rows.model).values())
    assert not find_compactors(floor.model)
    assert find_compactors(full.model)
    assert folded.pruner.retired
    inputs = {}
    for training in (full, rows, folded, floor):
        convs = {
            name: m for name, m in training.model.named_modules() if isinstance(m, nn.Conv2d) and "pwc" not in name
        }
        inputs[training] = {name: conv.in_channels for name, conv in convs.items()}
        norms = [module for module in training.model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(norms) == len(convs)
    assert inputs[rows] == inputs[folded] == inputs[floor] != inputs[full]
    shapes = [
        {name: tensor.shape for name, tensor in training.model.state_dict().items() if "compactor" not in name}
        for training in (folded, floor)
    ]
    assert shapes[0] == shapes[1]
    for training in (full, rows, folded, floor):
        before = {name: tensor.clone() for name, tensor in training.model.named_parameters()}
        training.step()
        changed = [name for name, tensor in training.model.named_parameters() if not torch.equal(tensor, before[name])]
        assert len(changed) > 0.9 * sum(tensor.requires_grad for tensor in training.model.parameters())


def test_units_die_in_one_order_and_evenly() -> None:
    pruner = training_of(ROWS, TINY).pruner
    schedule = Schedule(pruner)
    alive = [schedule.alive_at(progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    dead = [int((~one).sum()) for one in alive]
    assert dead[0] == 0
    for position in range(1, 5):
        assert not (alive[position] & ~alive[position - 1]).any()
        assert abs(dead[position] - dead[-1] * position / 4) < 0.25 * dead[-1]  # multiples of 8 wait for company
        selected = np.unique(pruner.graph.macs.group_of_unit[pruner.selected])
        assert (pruner.graph.macs.group_widths(alive[position])[selected] % 8 == 0).all()
    mask(pruner, alive[2])
    assert pruner.narrow() == dead[2]
    mask(pruner, alive[4])
    assert pruner.narrow() == dead[4] - dead[2]


@pytest.mark.parametrize(("name", "value"), [("batch", 1), ("points", 1), ("rounds", 0), ("precision", "float16")])
def test_settings_that_cannot_be_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Setting("src20", **{name: value})


# The script -------------------------------------------------------------------------------------------------


def test_a_tiny_run_writes_figures_and_plot_and_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_cost, "VARIANTS", (FLOOR,))  # whose memory is measured: one process will do
    output = tmp_path / "new" / "cost.json"
    tiny = ["--batch", "2", "--image-size", "16", "--points", "3", "--rounds", "2", "--warmup", "1", "--threads", "1"]
    command = ["--output", str(output), "--models", "src20", *tiny]
    training_cost.main(command)
    entry = json.loads(output.read_text())["entries"]["src20 bfloat16"]
    assert [point["progress"] for point in entry["points"]] == [0, 0.5, 1]
    assert entry["points"][0]["taken_out"] == 0 < entry["points"][1]["taken_out"] < entry["points"][2]["taken_out"]
    assert entry["points"][2]["macs_ratio"] <= 0.47
    assert all(set(point["ms"]) == set(VARIANTS) and min(point["ms"].values()) > 0 for point in entry["points"])
    assert set(entry["bars"].values()) <= {True, False}
    assert all(times["convolutions"] > times["other"] > 0 for times in entry["profile"].values())
    assert 0 < entry["hooks"]["at the target"]["share_of_step"] < 1
    assert {"commit", "hardware", "versions", "threads"} <= set(entry)
    if Path("/proc/self/status").exists():
        assert 0 < entry["memory"][FLOOR]["mib"] < entry["memory"][FLOOR]["whole_process_mib"]
    picture = output.with_suffix(".png")
    assert picture.stat().st_size > 10_000

    written = output.read_text()
    monkeypatch.setattr(training_cost, "measure", lambda setting: pytest.fail("measured again"))
    capsys.readouterr()
    training_cost.main(command)
    assert "already" in capsys.readouterr().out
    assert output.read_text() == written


def test_an_unknown_network_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        training_cost.main(["--output", str(tmp_path / "cost.json"), "--models", "src21"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
