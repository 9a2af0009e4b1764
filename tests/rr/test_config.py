"""Settings in steps and in shares of a run."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from rr import ResRepConfig, ResRepPruner
from tests.rr.pruners import IMAGES, step, tiny_pruner

SHARES = {"before_mask_iters": 0.02, "mask_interval": 0.01, "tighten_steps": 0.25, "death_steps": 0.03}


def steps_of(config: ResRepConfig) -> list[int]:
    found = [getattr(config, name) for name in SHARES]
    assert all(type(number) is int for number in found)
    return found


@pytest.mark.parametrize(
    ("total_steps", "expected"),
    [
        (4692, [94, 47, 1173, 141]),  # 93.84, 46.92, 1173, 140.76
        (9775, [196, 98, 2444, 293]),  # 195.5, 97.75, 2443.75, 293.25
        (144, [3, 1, 36, 4]),
        (1, [1, 1, 1, 1]),  # 0 would mean: not used
    ],
)
def test_shares_become_whole_steps_of_the_run(total_steps: int, expected: list[int]) -> None:
    assert steps_of(ResRepConfig(**SHARES).for_run(total_steps, lr=0.02)) == expected


def test_steps_stay_what_they_are_and_so_does_all_else() -> None:
    assert ResRepConfig().for_run(1000, lr=0.1) == ResRepConfig()
    config = ResRepConfig(flops_target=0.3, before_mask_iters=7, mask_interval=3.0, tighten_steps=0, death_steps=9)
    resolved = config.for_run(1000, lr=0.1)
    assert steps_of(resolved) == [7, 3, 0, 9]
    assert dataclasses.replace(resolved, masked_penalty=None) == config
    assert resolved.for_run(50, lr=0.7) == resolved


@pytest.mark.parametrize("settings", [{"death_steps": 0}, {"death_steps": 40, "masked_penalty": 0.3}])
def test_a_penalty_that_is_given_and_no_death_at_all_leave_the_penalty(settings: dict[str, float]) -> None:
    config = ResRepConfig(**settings)
    assert config.for_run(100, lr=0.1) == config


@pytest.mark.parametrize("lr", [0.0, -0.1, math.inf, math.nan])
def test_a_run_has_a_learning_rate_and_steps(lr: float) -> None:
    with pytest.raises(ValueError, match="learning rate"):
        ResRepConfig().for_run(100, lr)
    with pytest.raises(ValueError, match="at least one step"):
        ResRepConfig().for_run(0, 0.1)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [-1, -0.5, 1.5, math.inf, math.nan])
def test_neither_steps_nor_a_share(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of steps, or under 1 a share"):
        ResRepConfig(**{name: value})


@pytest.mark.parametrize("settings", [*({name: value} for name, value in SHARES.items()), {"death_steps": 20}], ids=str)
def test_the_pruner_wants_steps_and_says_where_they_come_from(settings: dict[str, float]) -> None:
    config = ResRepConfig(flops_target=0.5, **settings)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))
    with pytest.raises(ValueError, match=rf"{next(iter(settings))}=.*config\.for_run\(total_steps, lr\)"):
        ResRepPruner(model, IMAGES, config)
    assert ResRepPruner(model, IMAGES, config.for_run(100, lr=0.1)).compactors


@pytest.mark.parametrize("death_steps", [1, 7, 100, 1000])
@pytest.mark.parametrize(("lr", "lr_factor", "momentum"), [(0.05, 1.0, 0.9), (0.01, 2.0, 0.99), (0.3, 0.5, 0.0)])
def test_a_masked_row_of_norm_1_is_dead_after_death_steps(
    death_steps: int, lr: float, lr_factor: float, momentum: float
) -> None:
    """At a constant learning rate, to exactly 0, and not much earlier; the optimiser has the pruner's own groups."""
    settings = {"penalty": 0.0, "proximal": True, "death_steps": death_steps, "before_mask_iters": 10**6}
    settings |= {"compactor_momentum": momentum, "compactor_lr_factor": lr_factor}
    config = ResRepConfig(**settings).for_run(10**6, lr)
    pruner = tiny_pruner(**dataclasses.asdict(config) | {"flops_target": 0.5})
    optimizer = torch.optim.SGD(pruner.param_groups(lr=lr))
    pruner.attach(optimizer)
    for compactor in pruner.compactors.values():
        compactor.mask[::2] = 0

    def largest() -> float:
        return max(compactor.matrix[::2].norm(dim=1).max().item() for compactor in pruner.compactors.values())

    for seed in range(death_steps - 1):
        if death_steps <= 10:  # with a loss, too: the task's part of their gradients is reset
            step(pruner, optimizer, seed)
        else:
            optimizer.zero_grad()
            optimizer.step()
    assert largest() == pytest.approx(1 - 1.001 * (death_steps - 1) / death_steps, abs=2e-4)
    step(pruner, optimizer, 0)
    assert largest() == 0
    assert min(compactor.matrix[1::2].norm(dim=1).min().item() for compactor in pruner.compactors.values()) > 0
