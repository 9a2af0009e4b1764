"""The networks that are timed: the widths of each variant, and the units that die."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.cost.training_figures import FLOOR, FULL, FULL_WIDTH, PLAIN, ROWS
from benchmarks.cost.training_variants import Setting, narrow_plain, training_of
from experiments.tuning.narrowed import RandomDeaths, mask
from rr.compactors import find_compactors

TINY = Setting("src8", "float32", batch=2, image_size=16)
SILENT_UNITS_LEAVE_CONSTANTS = Setting("smi1_cifar", "float32", batch=2, image_size=16)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [TINY, pytest.param(SILENT_UNITS_LEAVE_CONSTANTS, marks=pytest.mark.long)],
    ids=lambda setting: setting.model,
)
def test_at_full_width_the_floor_is_the_plain_network(setting: Setting) -> None:
    plain = training_of(PLAIN, setting).model
    floor = narrow_plain(training_of(ROWS, setting).pruner)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (plain, floor)]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [TINY, pytest.param(SILENT_UNITS_LEAVE_CONSTANTS, marks=pytest.mark.long)],
    ids=lambda setting: setting.model,
)
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


@pytest.mark.slow
def test_units_die_in_one_order_and_evenly() -> None:
    pruner = training_of(ROWS, TINY).pruner
    schedule = RandomDeaths(pruner)
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
