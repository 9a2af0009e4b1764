"""Hooks around the steps of optimisers of every kind, and loops that can't work, which the first step notices."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, paper_config, param_groups
from tests.rr.networks import generic, tiny
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
