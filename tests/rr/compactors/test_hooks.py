"""Hooks around the steps of optimisers of every kind; loops that can't work are refused, or told of before the end."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.optim import Lookahead
from torch import Tensor, nn

from rr import InputError, ResRepPruner, paper_config, param_groups
from tests.rr.networks import conv, generic, tiny
from tests.rr.pruners import (
    IMAGES,
    LENIENT,
    batch,
    expected_gradients,
    gradients,
    optimizer_of,
    randomise,
    step,
    tiny_pruner,
)


def test_the_penalty_comes_once_per_step_under_accumulation() -> None:
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    task = {host: torch.zeros_like(compactor.pwc.weight) for host, compactor in pruner.compactors.items()}
    for seed in range(4):
        images, labels = batch(seed)
        loss = F.cross_entropy(pruner.model.eval()(images), labels) / 4
        loss.backward()
        weights = [pruner.compactors[host].pwc.weight for host in task]
        again = F.cross_entropy(pruner.model(images), labels) / 4
        for host, gradient in zip(task, torch.autograd.grad(again, weights), strict=True):
            task[host] += gradient
    expected = expected_gradients(pruner, task)
    optimizer.step()
    assert pruner.steps == 1
    for host, gradient in gradients(pruner).items():
        torch.testing.assert_close(gradient, expected[host], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_the_penalty_is_in_true_units_under_a_gradient_scaler(fused: bool) -> None:
    """A fused optimiser unscales within its step, others are handed true gradients."""
    pruner = tiny_pruner()
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.0), lr=0.0, fused=fused)
    pruner.attach(optimizer)
    task = randomise(pruner)
    expected = expected_gradients(pruner, task)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    scaler.scale(torch.zeros(()))  # gets the scaler going, as scaling a loss does
    for compactor in pruner.compactors.values():
        compactor.pwc.weight.grad.mul_(512.0)
    scaler.step(optimizer)
    for host, gradient in gradients(pruner).items():
        torch.testing.assert_close(gradient, expected[host], rtol=1e-5, atol=1e-6)


def test_a_step_that_a_fused_optimiser_leaves_out_is_not_counted() -> None:
    pruner = tiny_pruner()
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.1), lr=0.1, fused=True)
    pruner.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    for infinite in (True, False):
        images, labels = batch(0)
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(pruner.model.train()(images), labels)).backward()
        if infinite:
            pruner.compactors["1"].pwc.weight.grad[0] = math.inf
        before = copy.deepcopy(dict(pruner.model.named_parameters()))
        scaler.step(optimizer)
        scaler.update()
        changed = [name for name, value in before.items() if not torch.equal(pruner.model.get_parameter(name), value)]
        assert (not changed) == infinite
        assert pruner.steps == (not infinite)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_makes_the_same_steps(by_name: bool) -> None:
    pruner, other = tiny_pruner(mask_interval=2), tiny_pruner(mask_interval=2)
    optimizer, plain = optimizer_of(pruner), optimizer_of(other)
    for seed in range(5):
        images, labels = batch(seed)

        def closure(images: Tensor = images, labels: Tensor = labels) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(pruner.model.train()(images), labels)
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
        assert loss.item() == step(other, plain, seed)
    assert pruner.steps == 5
    assert not pruner.unmasked.alive.all()
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(tensor, pruner.model.state_dict()[name])


def test_attaching_again_moves_the_hooks() -> None:
    pruner, other = tiny_pruner(), tiny_pruner()
    former = optimizer_of(pruner)
    optimizer, plain = optimizer_of(pruner), optimizer_of(other)
    for seed in range(2):
        step(pruner, optimizer, seed)
        step(other, plain, seed)
    assert pruner.steps == 2
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(tensor, pruner.model.state_dict()[name])
    former.step()
    assert pruner.steps == 2


def test_an_optimiser_without_the_compactors_is_refused() -> None:
    pruner = tiny_pruner()
    plain = [parameter for name, parameter in pruner.model.named_parameters() if "compactor" not in name]
    for parameters in (plain, [*plain, pruner.compactors["1"].pwc.weight]):
        with pytest.raises(ValueError, match="lacks the compactors"):
            pruner.attach(torch.optim.SGD(parameters, lr=0.1))


def test_frozen_compactors_are_refused_at_first_and_left_alone_later() -> None:
    pruner = tiny_pruner()
    pruner.model.requires_grad_(False)
    optimizer = torch.optim.SGD(pruner.model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="2 compactors are frozen"):
        pruner.attach(optimizer)
    pruner.model.requires_grad_(True)
    pruner.attach(optimizer)
    first, second = (pruner.compactors[host].pwc.weight for host in pruner.compactors)
    first.requires_grad_(False)
    before = first.clone(), second.detach().clone()
    step(pruner, optimizer, 0)
    assert torch.equal(first, before[0])
    assert not torch.equal(second, before[1])


def test_modules_replaced_after_the_pruner_are_noticed() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(generic(tiny()))
    before = ResRepPruner(model, IMAGES, paper_config(**LENIENT))
    step(before, optimizer_of(before), 0)
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    nn.SyncBatchNorm.convert_sync_batchnorm(pruner.model)
    with pytest.raises(ValueError, match="'1' is another module"):
        step(pruner, optimizer, 0)


def test_parameters_replaced_after_the_pruner_are_noticed() -> None:
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    step(pruner, optimizer, 0)
    state = copy.deepcopy(pruner.model.state_dict())
    pruner.model.load_state_dict(state)
    step(pruner, optimizer, 1)
    pruner.model.load_state_dict(state, assign=True)
    with pytest.raises(InputError, match="without `assign=True`"):
        step(pruner, optimizer, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_in_half_precision_is_refused(dtype: torch.dtype) -> None:
    pruner = tiny_pruner()
    pruner.model.to(dtype)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.1))
    pruner.attach(optimizer)
    for parameter in pruner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(ValueError, match=r"float16, in which .* torch\.autocast"):
        optimizer.step()


def test_a_loss_of_another_model_is_noticed() -> None:
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    optimizer.step()  # no gradients at all yet: nothing to notice
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    with torch.no_grad():
        for parameter in param_groups(pruner.model, lr=0.1, momentum=0.9, weight_decay=0.0)[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match="reaches no compactor"):
        optimizer.step()


def test_gradients_that_differ_between_processes_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when DistributedDataParallel was there before the compactors; the other process is played here."""

    def with_the_other(tensor: Tensor, op: object) -> None:
        assert op is torch.distributed.ReduceOp.MAX
        other = tensor * factor
        tensor.copy_(torch.maximum(tensor, other))

    monkeypatch.setattr("rr.compactors.hooks.are_several", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", with_the_other)
    for factor in (1.0, 1.1, 0.9):
        pruner = tiny_pruner()
        optimizer = optimizer_of(pruner)
        if factor == 1.0:
            step(pruner, optimizer, 0)
        else:
            with pytest.raises(ValueError, match="differ between the processes"):
                step(pruner, optimizer, 0)


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


def test_a_closure_that_one_step_calls_many_times_is_no_foreign_step() -> None:
    """LBFGS changes the weights between the calls."""
    pruner = tiny_pruner()
    optimizer = torch.optim.LBFGS(pruner.model.parameters(), lr=1e-3, max_iter=8)
    pruner.attach(optimizer)
    images, calls = torch.randn(4, 1, 8, 8), []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = pruner.model(images).square().mean()
        loss.backward()
        calls.append(loss)
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert len(calls) > 6
    assert pruner.steps == 2


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
