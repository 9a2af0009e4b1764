"""Settings in steps and in shares of a run, by topic and by flat name."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from rr import InputError, ResRepConfig, ResRepPruner, Share, fast_config, paper_config
from rr.config import DecayConfig, NarrowingConfig, SelectionConfig, TargetConfig
from rr.settings import flat, settings_of
from tests.rr.pruners import IMAGES, step, tiny_pruner

SHARES = {"warmup_steps": Share(0.02), "mask_interval": Share(0.01), "tighten_steps": Share(0.25)}
DEATH = {"death_steps": Share(0.03)}


def steps_of(config: ResRepConfig) -> list[int]:
    found = [flat(config)[name] for name in SHARES]
    assert all(type(number) is int for number in found)
    return found


# In steps and shares ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total_steps", "expected", "death_steps"),
    [
        (4692, [94, 47, 1173], 141),  # 93.84, 46.92, 1173, 140.76
        (9775, [196, 98, 2444], 293),  # 195.5, 97.75, 2443.75, 293.25
        (144, [3, 1, 36], 4),
        (1, [1, 1, 1], 1),  # 0 would mean: not used
    ],
)
def test_shares_become_whole_steps_of_the_run(total_steps: int, expected: list[int], death_steps: int) -> None:
    config = paper_config(**SHARES, **DEATH).for_run(total_steps, lr=0.02)
    assert steps_of(config) == expected
    assert config.decay.death_steps == 0  # the penalty says it
    assert config.decay.masked_penalty == pytest.approx(1.001 / death_steps * 0.01 / 0.02)


def test_steps_stay_what_they_are_and_so_does_all_else() -> None:
    assert ResRepConfig().for_run(1000, lr=0.1) == ResRepConfig()
    config = paper_config(flops_target=0.3, warmup_steps=7, mask_interval=3, tighten_steps=0, death_steps=9)
    resolved = config.for_run(1000, lr=0.1)
    assert steps_of(resolved) == [7, 3, 0]
    assert resolved.with_settings(masked_penalty=None, death_steps=9) == config
    assert resolved.for_run(50, lr=0.7) == resolved


@pytest.mark.parametrize("settings", [{"death_steps": 0}, {"masked_penalty": 0.3}], ids=str)
def test_a_penalty_that_is_given_and_no_death_at_all_leave_the_penalty(settings: dict[str, float]) -> None:
    config = paper_config(**settings)
    assert config.for_run(100, lr=0.1) == config


@pytest.mark.parametrize("lr", [0.0, -0.1, math.inf, math.nan])
def test_a_run_has_a_learning_rate_and_steps(lr: float) -> None:
    with pytest.raises(InputError, match="learning rate"):
        ResRepConfig().for_run(100, lr)
    with pytest.raises(InputError, match="at least one step"):
        ResRepConfig().for_run(0, 0.1)


@pytest.mark.parametrize("name", [*SHARES, *DEATH])
@pytest.mark.parametrize("value", [-1, -0.5, 0.01, 1.5, 3.0, math.inf, math.nan, True, "1%"])
def test_neither_steps_nor_a_share(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} must be a whole number of steps, or a share"):
        paper_config(**{name: value})


@pytest.mark.parametrize("value", [0, -0.1, 1.01, math.inf, math.nan])
def test_a_share_is_over_0_and_at_most_1(value: float) -> None:
    with pytest.raises(InputError, match="share of a run"):
        Share(value)


def test_a_share_as_text_and_of_a_number() -> None:
    assert Share.read("1%") == Share.read("0.01") == Share(0.01)
    assert Share(0.25).of(200) == 50
    assert repr(Share(0.5)) == "Share(0.5)"


@pytest.mark.parametrize(
    "settings", [*({name: value} for name, value in {**SHARES, **DEATH}.items()), {"death_steps": 20}], ids=str
)
def test_the_pruner_wants_steps_and_says_where_they_come_from(settings: dict[str, float]) -> None:
    config = paper_config(flops_target=0.5, **settings)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))
    with pytest.raises(InputError, match=rf"{next(iter(settings))}=.*config\.for_run\(total_steps, lr\)"):
        ResRepPruner(model, IMAGES, config)
    assert ResRepPruner(model, IMAGES, config.for_run(100, lr=0.1)).compactors


@pytest.mark.slow
@pytest.mark.parametrize("death_steps", [1, 7, 100, 1000])
@pytest.mark.parametrize(("lr", "momentum"), [(0.05, 0.9), (0.01, 0.99), (0.3, 0.0)])
def test_a_masked_row_of_norm_1_is_dead_after_death_steps(death_steps: int, lr: float, momentum: float) -> None:
    """At a constant learning rate, to exactly 0, and not much earlier; the optimiser has the pruner's own groups."""
    settings = {"penalty": 0.0, "proximal": True, "death_steps": death_steps, "warmup_steps": 10**6}
    config = paper_config(**settings, compactor_momentum=momentum).for_run(10**6, lr)
    pruner = tiny_pruner(**flat(config) | {"flops_target": 0.5, "include": (), "exclude": ()})
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


# By topic and by name -----------------------------------------------------------------------------------------------


def test_flat_names_reach_the_topics() -> None:
    nested = ResRepConfig(
        TargetConfig(flops=0.3, params=0.5),
        SelectionConfig(layers="all", min_width=3),
        DecayConfig(momentum=0.9, threshold=1e-4),
        NarrowingConfig(mode="rows", threshold=1e-2),
        compactors="diagonal",
    )
    settings = {"flops_target": 0.3, "params_target": 0.5, "layers": "all", "min_width": 3, "compactor_momentum": 0.9}
    settings |= {"threshold": 1e-4, "narrow": "rows", "narrow_threshold": 1e-2, "compactors": "diagonal"}
    assert paper_config(**settings) == nested
    assert {name: flat(nested)[name] for name in settings} == settings


def test_every_setting_has_a_flat_name_of_its_own() -> None:
    names = [name for setting in settings_of(ResRepConfig()) for name in (setting.name, *setting.aliases)]
    assert len(names) == len(set(names))


def test_the_originals_names_are_taken_as_well() -> None:
    original = paper_config(num_at_least=2, before_mask_iters=7, begin_granularity=9)
    assert original == paper_config(min_width=2, warmup_steps=7, rows_per_update=9)


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="no setting 'flop_target': did you mean flops_target"):
        paper_config(flop_target=0.5)
    with pytest.raises(InputError, match="no setting 'xyz': there are by_image, compactor_momentum"):
        fast_config(xyz=1)


@pytest.mark.parametrize(
    ("settings", "both"),
    [
        ({"rows_per_update": 8, "tighten_steps": 10}, ("rows_per_update", "tighten_steps")),
        ({"masked_penalty": 0.1, "death_steps": 10}, ("masked_penalty", "death_steps")),
        ({"narrow_threshold": 0.1}, ("narrow_threshold", "narrow='rows'")),
    ],
)
def test_settings_that_exclude_each_other_are_named(settings: dict[str, object], both: tuple[str, str]) -> None:
    with pytest.raises(InputError) as error:
        paper_config(**settings)
    assert all(name in str(error.value) for name in both)


@pytest.mark.parametrize(
    "settings",
    [
        {"flops_target": 0.0},
        {"flops_target": -1.0},
        {"flops_target": math.inf},
        {"params_target": 0.0},
        {"params_target": None, "flops_target": None},
        {"width_multiple": 0},
        {"penalty": -1e-4},
        {"masked_penalty": -1e-4},
        {"masked_penalty": float("nan")},
        {"warmup_steps": -1},
        {"mask_interval": 0},
        {"rows_per_update": 0},
        {"tighten_steps": -1},
        {"min_width": -1},
        {"min_width_share": 1.5},
        {"threshold": -1.0},
        {"threshold": 0.011},
        {"threshold": 1.0},
        {"threshold": float("nan")},
        {"penalty": float("inf")},
        {"masked_penalty": 1e39},
        {"min_width": 2**31},
        {"width_multiple": 10**20},
        {"compactor_momentum": 1.0},
        {"layers": "some"},
        {"score": "size"},
        {"flops_target": float("nan")},
        {"penalty": float("nan")},
    ],
    ids=str,
)
def test_invalid_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        paper_config(**settings)


def test_a_config_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ResRepConfig().decay.penalty = 1.0
    assert fast_config() == fast_config(flops_target=0.5)


def test_a_short_run_has_the_settings_that_were_measured() -> None:
    """Each value is what a study found (docs/log.md): a change of one is a change of every figure."""
    assert flat(fast_config()) == {
        "flops_target": 0.5,
        "params_target": None,
        "layers": "internal",
        "include": [],
        "exclude": [],
        "min_width": 1,
        "min_width_share": 0.0,
        "width_multiple": 1,
        "score": "taylor",
        "by_image": False,
        "per_mac": True,
        "warmup_steps": 0.02,
        "mask_interval": 0.01,
        "rows_per_update": 4,
        "tighten_steps": 0.1,
        "penalty": 0.0,
        "masked_penalty": None,
        "death_steps": 0.03,
        "proximal": True,
        "compactor_momentum": 0.9,
        "threshold": 1e-5,
        "narrow": "full",
        "narrow_threshold": 1e-3,
        "compactors": "dense",
    }


def test_the_papers_settings() -> None:
    """Section 4.1."""
    assert flat(paper_config()) == {
        "flops_target": 0.471,
        "params_target": None,
        "layers": "internal",
        "include": [],
        "exclude": [],
        "min_width": 1,
        "min_width_share": 0.0,
        "width_multiple": 1,
        "score": "norm",
        "by_image": False,
        "per_mac": False,
        "warmup_steps": 0,
        "mask_interval": 200,
        "rows_per_update": 4,
        "tighten_steps": 0,
        "penalty": 1e-4,
        "masked_penalty": None,
        "death_steps": 0,
        "proximal": False,
        "compactor_momentum": 0.99,
        "threshold": 1e-5,
        "narrow": "no",
        "narrow_threshold": 1e-3,
        "compactors": "dense",
    }


def test_numbers_of_numpy_and_lists_of_names_are_taken() -> None:
    config = fast_config(width_multiple=np.int64(8), flops_target=np.float32(0.5), exclude=["conv1"])
    assert config == fast_config(width_multiple=8, flops_target=0.5, exclude=("conv1",))
