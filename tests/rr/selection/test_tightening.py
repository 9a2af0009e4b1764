"""Targets that tighten: the schedule of Zhu & Gupta, and the masks that follow it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rr.graph.costs import Target
from rr.selection.tightening import tightened
from tests.rr.pruners import masked_widths, optimizer_of, step, tiny_pruner, wide_pruner


class Cost:
    """A cost of 1000 at full width."""

    full = 1000


@pytest.mark.parametrize(("value", "full"), [(0.3, 1.0), (1.0, 1.0), (640, 1000), (2.5, 1000), (3000, 3000)])
def test_the_schedule_is_cubic_and_exact_at_both_ends(value: float, full: float) -> None:
    target = Target("flops_target", value, Cost(), "MACs")
    assert tightened(target, 0.0).value == tightened(target, -2.0).value == full
    assert tightened(target, 1.0) == tightened(target, 1.7) == target
    for part in np.linspace(0, 1, 21):
        expected = value + (full - value) * (1 - part) ** 3
        assert tightened(target, float(part)).value == pytest.approx(expected)
        assert tightened(target, float(part)).limit == pytest.approx(expected * (1000 if value <= 1 else 1))


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-3, 1.0) | st.floats(1.5, 2000.0), st.floats(0, 1), st.floats(0, 1))
def test_it_only_tightens(value: float, one: float, other: float) -> None:
    target = Target("flops_target", value, Cost(), "MACs")
    earlier, later = (tightened(target, part).limit for part in sorted((one, other)))
    assert earlier >= later * (1 - 1e-12)
    assert later >= target.limit * (1 - 1e-12)


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(
    "targets",
    [
        {"flops_target": 0.3},
        {"flops_target": 90_000},
        {"flops_target": None, "params_target": 0.3},
        {"flops_target": None, "params_target": 2_000},
        {"flops_target": 0.5, "params_target": 0.4},
    ],
    ids=str,
)
def test_masks_meet_each_days_target_and_not_much_more(targets: dict[str, float | None], multiple: int) -> None:
    pruner = wide_pruner(**targets, width_multiple=multiple, warmup_steps=20, tighten_steps=100)
    before = masked_widths(pruner)
    for since in range(0, 141, 10):
        pruner.steps = 20 + since
        pruner.update_masks()
        widths = pruner.graph.macs.group_widths(pruner.unmasked.alive)
        today = [tightened(target, since / 100) for target in pruner.targets]
        assert all(target.met(widths) for target in today)
        if since <= 20:
            assert not pruner.target_met
        if since == 0:
            assert pruner.unmasked.alive.all()
        if multiple == 1 and not pruner.unmasked.alive.all():  # one row fewer forgotten is one too few
            scores = np.where(pruner.unmasked.alive[pruner.candidates], -1, pruner.candidate_scores())
            widths[pruner.graph.macs.group_of_unit[pruner.candidates][scores.argmax()]] += 1
            assert not all(target.met(widths) for target in today)
        now = masked_widths(pruner)
        assert all(new <= old for new, old in zip(now, before, strict=True))
        assert all(width % multiple == 0 or width == full for width, full in zip(now, [40, 20, 6], strict=True))
        before = now
    assert pruner.target_met


def test_the_end_is_that_of_the_papers_rule() -> None:
    """With the same norms, the schedule ends with the very masks that a few rows more at each update end with."""
    tightening, stepwise = wide_pruner(tighten_steps=50), wide_pruner(rows_per_update=3)
    tightening.steps = 50
    tightening.update_masks()
    for _ in range(30):
        stepwise.update_masks()
    assert (tightening.unmasked.alive == stepwise.unmasked.alive).all()
    assert not stepwise.unmasked.alive.all()


def test_the_target_is_met_by_the_last_step_of_the_schedule_in_a_loop() -> None:
    pruner = wide_pruner(warmup_steps=3, mask_interval=4, tighten_steps=12)
    optimizer, ratios = optimizer_of(pruner, lr=0.001), []
    for seed in range(20):
        step(pruner, optimizer, seed)
        ratios.append(pruner.unmasked.macs_ratio)
    assert ratios[:6] == [1] * 6
    for after, ratio in ((7, ratios[6]), (11, ratios[10]), (15, ratios[14])):  # a row more or less is some 3%
        assert ratio == pytest.approx(0.5 + 0.5 * (1 - (after - 3) / 12) ** 3, abs=0.03)
    assert ratios[6] > ratios[10] > ratios[14]
    assert ratios[14] <= 0.5
    assert pruner.target_met


@pytest.mark.slow
def test_an_interrupted_run_with_all_of_it_is_the_uninterrupted_one() -> None:
    settings = {"warmup_steps": 3, "mask_interval": 2, "tighten_steps": 20, "score": "taylor", "proximal": True}
    settings |= {"penalty": 0.0, "masked_penalty": 0.5, "compactor_momentum": 0.5}
    whole = tiny_pruner(**settings)
    optimizer = optimizer_of(whole)
    losses = [step(whole, optimizer, seed) for seed in range(30)]
    first = tiny_pruner(**settings)
    optimizer = optimizer_of(first)
    for seed in range(14):
        step(first, optimizer, seed)
    saved = copy.deepcopy((first.state_dict(), first.model.state_dict(), optimizer.state_dict()))
    second = tiny_pruner(**settings)
    optimizer = optimizer_of(second)
    second.load_state_dict(saved[0])
    second.model.load_state_dict(saved[1])
    optimizer.load_state_dict(saved[2])
    assert [step(second, optimizer, seed) for seed in range(14, 30)] == losses[14:]
    assert second.target_met
    assert whole.target_met
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
