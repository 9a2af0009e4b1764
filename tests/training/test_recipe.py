"""A training run's recipe: values that can't be are refused, and what its files say of it."""

import dataclasses
import json

import pytest

from experiments.recipes import base_recipe
from training import Recipe, to_plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("accumulate", 65),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("schedule", "cosin"),
        ("warmup", "slow"),
        ("milestones", ()),
        ("milestones", (180, 120)),
        ("milestones", (120, 240)),
        ("milestones", (0, 120)),
        ("gamma", 0.0),
        ("min_lr", 0.2),
        ("min_lr", -0.1),
        ("warmup_epochs", 240),
        ("warmup_factor", -0.1),
        ("warmup_factor", 1.1),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("label_smoothing", 1.0),
        ("distill", -0.1),
        ("distill", 1.1),
        ("distill", float("nan")),
        ("distill_until", 0.0),
        ("distill_until", 1.1),
        ("distill_until", 0.5),  # of no distillation
        ("temperature", 0.0),
        ("temperature", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("image_size", 10**12),
        ("process_timeout", 0),
        ("process_timeout", 10**20),
        ("max_steps", -1),
        ("lr", 1e308),
        ("lr", 6e37),  # of biases twice as much
        ("weight_decay", 1e308),
        ("workers", -1),
        ("workers", 10**6),
        ("threads", 10**11),
        ("processes", 0),
        ("processes", 10**6),
        ("val_interval", 0),
        ("log_interval", 0),
        ("save_interval", -1),
        ("output_dir", ""),
    ],
)
def test_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(base_recipe("src56"), **{name: value})


def test_plain_values_are_what_json_gives_back() -> None:
    plain = to_plain(base_recipe("src56").for_run())
    assert plain["milestones"] == [120, 180]
    assert plain == json.loads(json.dumps(plain))


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({"compile_mode": "reduce-overhead"}, "add it"),
        ({"compile_mode": "reduce-overhead", "compile": True, "cuda_graph": True}, "leave it or --cuda-graph out"),
        ({"compile_mode": "reduce-overhead", "compile": True, "accumulate": 2}, "accumulate is 2"),
        ({"compile_mode": "fast", "compile": True}, "choose from default, reduce-overhead, max-autotune"),
    ],
)
def test_what_makes_graphs_of_a_networks_passes_stands_alone(settings: dict[str, object], fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        Recipe("src20", "digits", **settings)


@pytest.mark.parametrize("name", ["SIGUSR1", "usr1", "KILL", "STOP", ""])
def test_only_a_signal_that_a_process_can_hear_asks_for_a_checkpoint(name: str) -> None:
    with pytest.raises(ValueError, match="signal_checkpoint"):
        Recipe("src20", "digits", signal_checkpoint=name)
    assert Recipe("src20", "digits", signal_checkpoint="USR1").signal_checkpoint == "USR1"
