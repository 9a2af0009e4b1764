"""The pruner in a training loop: steps by hand, restarts, and the whole way to the end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rr import InputError, ResRepPruner, paper_config
from rr.compactors import find_compactors
from rr.conversion import ConversionReport
from rr.graph import ChannelGraph
from tests.rr.networks import Net, conv, generic, tiny
from tests.rr.pruners import IMAGES, LENIENT, batch, kill_masked_rows, optimizer_of, settle, step, tiny_pruner


def test_two_steps_are_sgd_by_hand() -> None:
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner, lr=0.05)
    model = pruner.model
    pruner.compactors["1"].mask[::2] = 0
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    reference, velocity = copy.deepcopy(model).train(), {}
    for seed in range(3):
        reference.zero_grad()
        images, labels = batch(seed)
        F.cross_entropy(reference(images), labels).backward()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                gradient, lr, momentum = parameter.grad, 0.05, 0.9
                if "compactor" in name:
                    momentum = 0.99
                    mask = reference.get_submodule(name.removesuffix(".pwc.weight")).mask.view(-1, 1, 1, 1)
                    gradient = gradient * mask + 0.01 * parameter / parameter.norm(dim=1, keepdim=True)
                elif name in biases:
                    lr = 0.1
                elif name not in norms:
                    gradient = gradient + 1e-4 * parameter
                velocity[name] = gradient + momentum * velocity.get(name, 0)
                parameter -= lr * velocity[name]
        step(pruner, optimizer, seed)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, reference.get_parameter(name), rtol=1e-5, atol=1e-6)
    assert pruner.steps == 3


def test_the_users_own_groups_and_optimiser_will_do() -> None:
    pruner = tiny_pruner(penalty=1.0)
    optimizer = torch.optim.AdamW(pruner.model.parameters(), lr=0.01, weight_decay=0.0)
    pruner.attach(optimizer)
    compactor = pruner.compactors["1"]
    before = compactor.matrix.detach().clone()
    compactor.mask[2] = 0
    for seed in range(20):
        step(pruner, optimizer, seed)
    expected = before[2] * 0.8  # Adam moves by the learning rate, whatever the gradient
    torch.testing.assert_close(compactor.matrix[2].detach(), expected, rtol=1e-3, atol=1e-4)


def test_frozen_layers_are_not_touched_and_their_compactors_learn() -> None:
    torch.manual_seed(0)
    model = generic(tiny())
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    before = copy.deepcopy(dict(model.named_parameters()))
    pruner = ResRepPruner(model, IMAGES, paper_config(**LENIENT))
    optimizer = optimizer_of(pruner)
    step(pruner, optimizer, 0)
    for name, value in before.items():
        assert torch.equal(model.get_parameter(name), value) == (name.split(".")[0] in "01"), name
    assert not torch.equal(pruner.compactors["1"].matrix, torch.eye(6))


def test_a_wrapped_model_is_refused() -> None:
    with pytest.raises(ValueError, match="wrapped already"):
        ResRepPruner(nn.DataParallel(tiny()), IMAGES)


@pytest.mark.slow
def test_an_interrupted_run_is_the_uninterrupted_one() -> None:
    settings = {"warmup_steps": 2, "mask_interval": 3, "rows_per_update": 2}

    def start() -> tuple[ResRepPruner, torch.optim.SGD]:
        pruner = tiny_pruner(**settings)
        return pruner, optimizer_of(pruner)

    whole, optimizer = start()
    losses = [step(whole, optimizer, seed) for seed in range(15)]
    first, optimizer = start()
    for seed in range(7):
        step(first, optimizer, seed)
    saved = copy.deepcopy((first.model.state_dict(), optimizer.state_dict(), first.state_dict()))
    second, optimizer = start()
    with torch.no_grad():
        for parameter in second.model.parameters():
            parameter.add_(1)
    second.model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    second.load_state_dict(saved[2])
    assert [step(second, optimizer, seed) for seed in range(7, 15)] == losses[7:]
    assert second.steps == whole.steps == 15
    assert not whole.unmasked.alive.all()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])


def test_a_conversion_short_of_its_target_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pruner = tiny_pruner(flops_target=0.3, rows_per_update=100)
    with pytest.raises(InputError, match="no step of an optimizer has been counted"):
        pruner.convert()
    pruner.after_step()
    pruner.convert()
    assert "flops_target 0.3 not reached, 1.0000 of the MACs" in caplog.text
    assert "too few rows are masked yet" in caplog.text
    caplog.clear()
    pruner.update_masks()
    pruner.convert()
    masked = int((~pruner.unmasked.alive).sum())
    assert f"{masked} masked rows aren't dead yet" in caplog.text
    caplog.clear()
    pruner.live.zero_dead_rows(pruner.unmasked.alive)
    pruner.convert()
    assert "not reached" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["internal", pytest.param("all", marks=pytest.mark.long)])
def test_a_small_task_from_training_to_the_narrow_network(layers: str) -> None:
    """The class is where the bright spot is; the penalty drives the masked rows under the threshold."""
    torch.manual_seed(0)
    images = 0.3 * torch.randn(192, 1, 8, 8)
    labels = torch.arange(192) % 3
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 2

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.bn(net.stem(x)))
        x = F.relu(x + net.bn2(net.b(F.relu(net.bn1(net.a(x))))))
        return net.fc(F.max_pool2d(x, 4).flatten(1))

    modules = {"stem": conv(1, 6, bias=False), "bn": nn.BatchNorm2d(6), "a": conv(6, 12, bias=False)}
    modules |= {
        "bn1": nn.BatchNorm2d(12),
        "b": conv(12, 6, bias=False),
        "bn2": nn.BatchNorm2d(6),
        "fc": nn.Linear(24, 3),
    }
    model = Net(forward, **modules)
    steps = 500
    config = paper_config(
        flops_target=0.5,
        penalty=0.02,
        warmup_steps=20,
        mask_interval=10,
        rows_per_update=2,
        compactor_momentum=0.9,
        layers=layers,
    )
    pruner = ResRepPruner(model, images[:2], config)
    optimizer = optimizer_of(pruner)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        F.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert pruner.target_met
    assert pruner.remaining.macs_ratio <= 0.5
    norms = {host: compactor.matrix.norm(dim=1) for host, compactor in pruner.compactors.items()}
    for host, compactor in pruner.compactors.items():
        assert (norms[host][compactor.mask == 0] < 1e-5).all()
    slim = pruner.convert()
    report: ConversionReport = pruner.report
    assert report.macs_ratio == pruner.remaining.macs_ratio <= 0.5
    with torch.no_grad():
        logits, expected = slim(images), model.eval()(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(logits.argmax(1), expected.argmax(1))
    assert (logits.argmax(1) == labels).float().mean() > 0.95
    assert not find_compactors(slim)
    assert ChannelGraph(slim, images[:1]).widths(np.ones(10**4, dtype=bool)) == list(report.widths)


def test_steps_that_update_masks_or_measure_are_not_like_others() -> None:
    pruner = tiny_pruner(narrow="full", warmup_steps=2, mask_interval=3, narrow_threshold=0.9)
    optimizer = optimizer_of(pruner)
    alike = []
    for seed in range(8):
        alike.append(pruner.next_step_is_alike)
        step(pruner, optimizer, seed)
        assert alike[-1] != pruner.masks_are_due()
    assert alike == [True, True, True, True, False, True, True, False]
    settle(pruner)
    kill_masked_rows(pruner)
    assert pruner.narrow()  # all that is to die has gone: the fold of the rest is measured from now on
    assert not pruner.next_step_is_alike
