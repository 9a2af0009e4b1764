"""Loops in which the hooks can't work are refused, or told of before the training is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from timm.optim import Lookahead
from torch import nn

from rr import InputError, ResRepPruner, paper_config
from tests.rr.networks import conv, generic
from tests.rr.pruners import optimizer_of, step, tiny_pruner


class Unhooked(torch.optim.Optimizer):
    """A wrapper that never calls torch's own constructor, as those of other libraries."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.param_groups, self.defaults = inner, inner.param_groups, inner.defaults

    def step(self, closure: object = None) -> None:
        self.inner.step()


def sgd(pruner: ResRepPruner) -> torch.optim.SGD:
    return torch.optim.SGD(pruner.param_groups(lr=0.01), lr=0.01)


def steps(pruner: ResRepPruner, optimizer: torch.optim.Optimizer, count: int) -> None:
    for seed in range(count):
        step(pruner, optimizer, seed)


def test_an_optimiser_without_hooks_is_refused() -> None:
    pruner = tiny_pruner()
    with pytest.raises(InputError, match=r"Unhooked isn't a torch\.optim\.Optimizer with hooks .* that it wraps"):
        pruner.attach(Unhooked(sgd(pruner)))


def test_a_wrapper_that_has_its_scheduler_after_attach_is_seen() -> None:
    """Torch patches the class of Lookahead, whose constructor doesn't call torch's, only at its first zero_grad."""
    pruner = tiny_pruner()
    wrapper = Lookahead(sgd(pruner))
    pruner.attach(wrapper)
    scheduler = torch.optim.lr_scheduler.StepLR(wrapper, 1000)
    for seed in range(5):
        step(pruner, wrapper, seed)
        scheduler.step()
    assert pruner.steps == 5


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
@pytest.mark.parametrize("before", [0, 4])
def test_an_optimiser_made_anew_after_attach_is_noticed(kind: type[torch.optim.Optimizer], before: int) -> None:
    pruner = tiny_pruner()
    attached = sgd(pruner)
    pruner.attach(attached)
    steps(pruner, attached, before)
    anew = kind(pruner.model.parameters(), lr=0.01)
    with pytest.raises(InputError, match="hasn't seen the last 3 steps"):
        steps(pruner, anew, 5)
    assert pruner.steps == before


def test_one_that_writes_past_the_version_of_its_tensors_is_noticed() -> None:
    class Old(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(parameter.grad, alpha=-0.01)

    pruner = tiny_pruner()
    pruner.attach(sgd(pruner))
    with pytest.raises(InputError, match="hasn't seen the last 3 steps"):
        steps(pruner, Old(pruner.model.parameters(), lr=0.01), 5)


def test_no_attach_at_all_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    pruner = tiny_pruner()
    with pytest.raises(InputError, match="hasn't seen the last 3 steps"):
        steps(pruner, sgd(pruner), 5)
    pruner = tiny_pruner()
    plain = [parameter for name, parameter in pruner.model.named_parameters() if "compactor" not in name]
    without = torch.optim.SGD(plain, lr=0.01)  # made from the model before the pruner
    with caplog.at_level(logging.WARNING):
        for seed in range(99):
            step(pruner, without, seed)
        assert "100 backward passes" not in caplog.text
        step(pruner, without, 99)
    assert "100 backward passes, and the pruner has seen no step" in caplog.text


def changes_between_steps(pruner: ResRepPruner) -> None:
    """What a loop may do to the weights between two steps: a check of an average of them, say."""
    state = {name: tensor.clone() for name, tensor in pruner.model.state_dict().items()}
    pruner.model.load_state_dict({name: tensor * 0.9 for name, tensor in state.items()})
    pruner.model.load_state_dict(state)


@pytest.mark.parametrize("between", [lambda pruner: None, changes_between_steps])
def test_loops_that_work_are_left_in_peace(between: Callable[[ResRepPruner], None]) -> None:
    """Accumulation, changed weights between steps, a move to another optimiser, a model that was trained before."""
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    for _ in range(20):
        between(pruner)
        for _ in range(4):
            pruner.model.train()(torch.randn(2, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    optimizer = optimizer_of(pruner)
    for seed in range(5):
        between(pruner)
        step(pruner, optimizer, seed)
    assert pruner.steps == 25


def test_narrowing_between_steps_is_no_foreign_step() -> None:
    torch.manual_seed(0)
    model = generic(
        nn.Sequential(conv(1, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.Flatten(), nn.Linear(512, 3))
    )
    settings = {"narrow": "rows", "mask_interval": 1, "warmup_steps": 0, "rows_per_update": 2, "masked_penalty": 100.0}
    config = paper_config(flops_target=0.6, proximal=True, **settings)
    pruner = ResRepPruner(model, torch.zeros(1, 1, 8, 8), config)
    optimizer = optimizer_of(pruner)
    gone = 0
    for seed in range(12):
        step(pruner, optimizer, seed)
        gone += pruner.narrow()
    assert gone > 0
    assert pruner.steps == 12
