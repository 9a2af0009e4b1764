"""Which rows are masked when: the schedule, the targets, and widths in multiples."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from rr import InputError, ResRepPruner, paper_config
from rr.graph import Target
from tests.rr.networks import Networks, generic, tiny
from tests.rr.pruners import (
    IMAGES,
    kill_masked_rows,
    masked_widths,
    optimizer_of,
    settle,
    step,
    tiny_pruner,
    wide_pruner,
)


def test_masks_come_when_they_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = tiny_pruner(warmup_steps=5, mask_interval=3, rows_per_update=2, flops_target=0.3)
    optimizer = optimizer_of(pruner, lr=0.001)
    forgotten = []
    for seed in range(14):
        step(pruner, optimizer, seed)
        forgotten.append(int((~pruner.unmasked.alive).sum()))
    # Steps 1 to 14: the phase begins after step 5, the first update is 3 steps later.
    assert forgotten == [0] * 7 + [2] * 3 + [4] * 3 + [6]
    counted = []
    monkeypatch.setattr(pruner, "update_masks", lambda: counted.append(pruner.steps))
    for seed in range(8):
        step(pruner, optimizer, seed)
    assert counted == [17, 20]


def test_masks_are_those_of_the_lowest_norms_and_stay_current() -> None:
    pruner = tiny_pruner(rows_per_update=3, flops_target=0.112, min_width=2)
    compactor = pruner.compactors["1"]
    with torch.no_grad():
        compactor.pwc.weight.mul_(torch.tensor([3.0, 0.5, 0.6, 4.0, 0.7, 5.0]).view(-1, 1, 1, 1))
    pruner.update_masks()
    assert compactor.mask.tolist() == [1, 0, 0, 1, 0, 1]
    assert pruner.compactors["4"].mask.tolist() == [1] * 8
    with torch.no_grad():  # chosen afresh: nothing stays masked because it once was
        compactor.pwc.weight[1] *= 100
    pruner.update_masks()
    assert compactor.mask.tolist() == [1, 1, 0, 1, 0, 1]
    assert int(pruner.compactors["4"].mask.sum()) == 4
    for _ in range(9):
        pruner.update_masks()
    assert [int(item.mask.sum()) for item in pruner.compactors.values()] == [2, 2]  # min_width, no stall
    alive = pruner.unmasked.alive
    assert pruner.graph.widths(alive) == [2, 2]
    assert pruner.unmasked.macs_ratio == pruner.graph.macs(alive) / pruner.graph.macs.full


def test_masks_stop_at_the_target() -> None:
    pruner = tiny_pruner(flops_target=0.6, rows_per_update=1)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.mul_(1 + torch.rand(len(compactor.mask), 1, 1, 1))
    ratios = []
    for _ in range(14):
        pruner.update_masks()
        ratios.append(pruner.unmasked.macs_ratio)
        assert pruner.target_met == (ratios[-1] <= 0.6)
    assert ratios == sorted(ratios, reverse=True)
    first = next(index for index, ratio in enumerate(ratios) if ratio <= 0.6)
    assert len(set(ratios[first:])) == 1
    assert ratios[first - 1] > 0.6


def test_a_target_that_was_met_stays_met() -> None:
    """The original lifts the budget while the masks meet the target: the new lowest rows may save fewer MACs each."""
    pruner = tiny_pruner(flops_target=0.3, rows_per_update=1)
    first, second = pruner.compactors.values()  # a row of the first takes more MACs along
    with torch.no_grad():
        for factor, compactor in ((0.1, first), (1.0, second)):
            compactor.pwc.weight.mul_(factor * torch.linspace(0.5, 1, len(compactor.mask)).view(-1, 1, 1, 1))
    for _ in range(14):
        pruner.update_masks()
    assert pruner.target_met
    masked = int((~pruner.unmasked.alive).sum())
    with torch.no_grad():
        second.pwc.weight.mul_(0.01)
    pruner.update_masks()
    assert pruner.target_met
    assert int((~pruner.unmasked.alive).sum()) > masked + 1


@pytest.mark.slow
def test_an_unreachable_target_is_refused_before_training() -> None:
    model = generic(tiny())
    names = list(model.state_dict())
    with pytest.raises(
        ValueError, match=r"flops_target 0\.01 can't be reached.*min_width = 3, 0\.\d+ of the MACs"
    ) as error:
        ResRepPruner(model, IMAGES, paper_config(flops_target=0.01, min_width=3))
    reachable = float(str(error.value).split("min_width = 3, ")[1].split()[0])
    assert list(model.state_dict()) == names
    with pytest.raises(ValueError, match="can't be reached"):
        ResRepPruner(tiny(), IMAGES, paper_config(flops_target=reachable - 1e-3, min_width=3))
    pruner = ResRepPruner(model, IMAGES, paper_config(flops_target=reachable + 1e-4, min_width=3))
    for _ in range(9):
        pruner.update_masks()
    assert pruner.target_met
    assert pruner.unmasked.macs_ratio == pytest.approx(reachable, abs=1e-4)


@pytest.mark.parametrize("name", ["flops_target", "params_target"])
def test_more_than_the_whole_network_is_no_target(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} 1e\+30 is over the [\d,]+ .* of the whole network"):
        ResRepPruner(tiny(), IMAGES, paper_config(**{name: 1e30}))


def test_what_can_be_reached_is_said_for_each_target() -> None:
    with pytest.raises(ValueError, match=r"^params_target 5 can't be reached.* of the MACs .* of the parameters \("):
        wide_pruner(params_target=5.0)
    with pytest.raises(ValueError, match=r"^flops_target 0.001 and params_target 0.001 can't"):
        wide_pruner(flops_target=0.001, params_target=0.001)


@pytest.mark.parametrize("granularity", [1, 3, 100])
def test_widths_in_multiples_reach_the_target_without_a_stall(granularity: int) -> None:
    pruner = wide_pruner(width_multiple=8, rows_per_update=granularity)
    seen = set()
    for _ in range(80):
        pruner.update_masks()
        widths = masked_widths(pruner)
        assert all(width % 8 == 0 or width == full for width, full in zip(widths, [40, 20, 6], strict=True))
        seen.add(tuple(widths))
    assert len(seen) > 2 or granularity == 100
    assert pruner.target_met
    assert pruner.unmasked.macs_ratio <= 0.5
    norms = pruner.candidate_norms().reshape(-1)
    alive = pruner.unmasked.alive[pruner.selected]
    for group in np.unique(pruner.graph.macs.group_of_unit[pruner.candidates]):
        inside = pruner.graph.macs.group_of_unit[pruner.candidates] == group
        assert norms[inside & ~alive].max(initial=0) < norms[inside & alive].min()


@pytest.mark.parametrize(("least", "expected"), [(1, [8, 8, 6]), (8, [8, 8, 6]), (9, [16, 16, 6]), (17, [24, 20, 6])])
def test_the_least_width_in_multiples(least: int, expected: list[int]) -> None:
    with pytest.raises(ValueError, match=f"min_width = {least} .in multiples of 8., 0.*remain") as error:
        wide_pruner(flops_target=1e-3, width_multiple=8, min_width=least)
    reachable = int(str(error.value).split("MACs (")[1].split(")")[0].replace(",", ""))
    pruner = wide_pruner(flops_target=reachable, width_multiple=8, min_width=least)
    settle(pruner)
    assert masked_widths(pruner) == expected
    assert pruner.target_met
    assert pruner.graph.macs(pruner.unmasked.alive) == reachable


def test_rows_that_wait_for_a_multiple_are_remembered_across_a_restart() -> None:
    whole, first = (wide_pruner(width_multiple=8, rows_per_update=1) for _ in range(2))
    for _ in range(12):
        first.update_masks()
        whole.update_masks()
    assert first.state_dict()["waiting"] > 0
    second = wide_pruner(width_multiple=8, rows_per_update=1)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(30):
        whole.update_masks()
        second.update_masks()
        assert (whole.unmasked.alive == second.unmasked.alive).all()
        assert whole.state_dict() == second.state_dict()
    assert not whole.unmasked.alive.all()


def test_a_state_from_before_there_were_multiples_loads() -> None:
    pruner = wide_pruner(rows_per_update=3)
    pruner.update_masks()
    again = wide_pruner(rows_per_update=3)
    again.model.load_state_dict(pruner.model.state_dict())
    again.load_state_dict({"steps": 7})
    assert again.steps == 7
    for _ in range(3):
        pruner.update_masks()
        again.update_masks()
        assert (again.unmasked.alive == pruner.unmasked.alive).all()
        assert pruner.state_dict()["waiting"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("multiple", [1, 8])
def test_targets_for_parameters(share: float, multiple: int) -> None:
    """As a share or as a number; the converted network has no more, and one row less forgotten would be too few."""
    named = wide_pruner().model.named_parameters()
    full = sum(parameter.numel() for name, parameter in named if "compactor" not in name)
    for target in (share, share * full):
        pruner = wide_pruner(flops_target=None, params_target=target, width_multiple=multiple, rows_per_update=1)
        before = pruner.unmasked.params_ratio
        while not pruner.target_met:
            before = pruner.unmasked.params_ratio
            pruner.update_masks()
        settle(pruner)
        assert pruner.unmasked.params_ratio <= share < before
        kill_masked_rows(pruner)
        assert pruner.remaining.params_ratio == pruner.unmasked.params_ratio
        slim = pruner.convert()
        assert pruner.report.parameters_before == full
        assert sum(parameter.numel() for parameter in slim.parameters()) <= share * full
        assert pruner.report.parameters_ratio == pruner.unmasked.params_ratio
        assert pruner.report.kept_for_width == 0


@pytest.mark.slow
def test_both_targets_hold() -> None:
    for macs, params in ((0.9, 0.3), (0.3, 0.9), (0.5, 0.5)):
        pruner = wide_pruner(flops_target=macs, params_target=params)
        settle(pruner)
        assert pruner.target_met
        assert pruner.unmasked.macs_ratio <= macs
        assert pruner.unmasked.params_ratio <= params
        alone = wide_pruner(flops_target=macs), wide_pruner(flops_target=None, params_target=params)
        for other in alone:
            settle(other)
        forgotten = [int((~other.unmasked.alive).sum()) for other in (pruner, *alone)]
        assert forgotten[0] == max(forgotten[1:])


@pytest.mark.slow
def test_one_update_of_resnet50_is_exact_and_costs_a_dozen_evaluations(
    traced: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, graph = traced["sres50"]
    config = paper_config(flops_target=0.5, exclude=("conv1.*",), rows_per_update=8000)
    pruner, evaluations = ResRepPruner(copy.deepcopy(model), images, config, graph=graph), []
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.mul_(torch.rand(len(compactor.mask), 1, 1, 1))
    met = Target.met
    monkeypatch.setattr(Target, "met", lambda target, widths: evaluations.append(0) or met(target, widths))
    pruner.update_masks()
    assert 0.499 < pruner.unmasked.macs_ratio <= 0.5
    assert len(evaluations) <= math.ceil(math.log2(7553)) + 1


def test_another_target_holds_from_the_next_update_on_and_over_a_restart() -> None:
    pruner = tiny_pruner(rows_per_update=100, flops_target=0.6)
    pruner.update_masks()
    kept = pruner.unmasked.macs_ratio
    assert 0.4 < kept <= 0.6
    pruner.retarget(0.4)
    assert pruner.unmasked.macs_ratio == kept
    pruner.update_masks()
    assert pruner.unmasked.macs_ratio <= 0.4
    again = tiny_pruner(rows_per_update=100, flops_target=0.6)
    again.load_state_dict(pruner.state_dict())
    assert again.targets[0].value == 0.4
    with pytest.raises(InputError, match="can't be reached"):
        pruner.retarget(0.001)
    with pytest.raises(InputError, match="no flops_target to change"):
        tiny_pruner(flops_target=None, params_target=0.9).retarget(0.5)
