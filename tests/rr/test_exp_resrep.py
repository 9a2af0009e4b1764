"""What the script makes of a command line: which settings are the default, and what single options change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from experiments.command_line import read_network
from experiments.recipes import fast_recipe, resrep_config, resrep_recipe
from rr import InputError
from tests import scripts


def settings_of(*words: str) -> tuple[Any, ...]:
    """What the script makes of these words: recipe, config, start, a target of time, options."""
    return scripts.load("rr/exp_resrep.py").parse_arguments(words)


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
    recipe, config, start, _, options = settings_of(*words)
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


@pytest.mark.parametrize(
    ("text", "value"), [("0.4", 0.4), ("40%", 0.4), ("60e6", 60e6), ("1", 1), ("none", None)], ids=str
)
def test_a_target_is_a_share_or_a_number(text: str, value: float | None) -> None:
    words = ["-a", "src20", "--flops-target", text, "--params-target", "30%"]
    config = settings_of(*words)[1]
    assert (config.target.flops, config.target.params) == (value, 0.3)


def test_single_options_change_the_settings_of_a_short_run() -> None:
    words = ["-a", "src20", "--tighten-steps", "300", "--before-mask-epochs", "0.5", "--penalty", "1e-5", "--lr", "0.1"]
    recipe, config, start, *_ = settings_of(*words)
    assert config == resrep_config("src20", fast=True).with_settings(tighten_steps=300, penalty=1e-5)
    assert recipe == replace(fast_recipe("src20"), lr=0.1)
    assert start.before_mask_epochs == 0.5


@pytest.mark.parametrize("option", ["--start", "--begin"])
def test_a_run_that_begins_with_the_cut_has_settings_of_its_own(option: str) -> None:
    recipe, config, start, *_ = settings_of("-a", "src20", option, "refit", "--epochs", "4")
    assert config == resrep_config("src20", is_cut=True)
    assert start.is_cut
    assert recipe == fast_recipe("src20", epochs=4)
    with pytest.raises(InputError, match="add --fast"):
        settings_of("-a", "src56", "--start", "refit")
