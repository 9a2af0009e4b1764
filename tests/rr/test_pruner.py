"""The pruner in a training loop: gradients against the formula, schedule, restarts, and the whole way to the end."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from base_model import build_model
from rr import InputError, ResRepPruner, paper_config, param_groups
from rr.compactors import find_compactors
from rr.conversion import ConversionReport
from rr.graph import ChannelGraph, Target
from tests.rr.networks import Net, Networks, conv, generic, tiny
from tests.rr.pruners import (
    IMAGES,
    LENIENT,
    batch,
    masked_widths,
    optimizer_of,
    randomise,
    step,
    stream_pruner,
    tiny_pruner,
    wide_pruner,
)


def expected_gradients(pruner: ResRepPruner, task: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    """m dL/dq + lambda q / |q|, row by row in float64; |q| is the root mean square over a unit's rows."""
    squares: dict[int, list[float]] = {}
    for site in pruner.sites:
        for row, unit in enumerate(site.units.tolist()):
            q = pruner.compactors[site.host].matrix[row].detach().double()
            squares.setdefault(unit, []).append(float((q * 1e30).square().sum()))
    gradients = {}
    for site in pruner.sites:
        compactor, rows = pruner.compactors[site.host], []
        for row, unit in enumerate(site.units.tolist()):
            q, norm = compactor.matrix[row].detach().double(), math.sqrt(np.mean(squares[unit])) / 1e30
            penalty = scale * penalty_of(pruner, kept=bool(compactor.mask[row])) * q / norm if norm > 0 else 0 * q
            rows.append(float(compactor.mask[row]) * task[site.host][row].double().flatten() + penalty)
        gradients[site.host] = torch.stack(rows)
    return gradients


def penalty_of(pruner: ResRepPruner, kept: bool) -> float:
    """lambda of the gradient of a row."""
    config = pruner.config.decay
    if kept:
        return config.penalty
    of_masked = config.penalty if config.masked_penalty is None else config.masked_penalty
    return 0.0 if config.proximal else of_masked


def gradients(pruner: ResRepPruner) -> dict[str, Tensor]:
    return {host: compactor.pwc.weight.grad.flatten(1).double() for host, compactor in pruner.compactors.items()}


# Gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_pruner, stream_pruner])
@pytest.mark.parametrize("scale", [1.0, 1024.0, torch.tensor(65536.0)])
def test_gradients_are_the_formula(make: Callable[[], ResRepPruner], scale: float | Tensor) -> None:
    pruner = make()
    for seed in range(3):
        task = randomise(pruner, seed)
        weights = {host: compactor.pwc.weight.clone() for host, compactor in pruner.compactors.items()}
        expected = expected_gradients(pruner, task, float(scale))
        pruner.adjust_gradients(scale)
        for host, gradient in gradients(pruner).items():
            torch.testing.assert_close(gradient, expected[host], rtol=1e-5, atol=1e-6)
            assert torch.equal(pruner.compactors[host].pwc.weight, weights[host])


@pytest.mark.parametrize("proximal", [False, True])
@pytest.mark.parametrize("masked_penalty", [None, 0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, torch.tensor(65536.0)])
def test_gradients_with_a_penalty_of_their_own_for_masked_rows(
    masked_penalty: float | None, proximal: bool, scale: float | Tensor
) -> None:
    pruner = tiny_pruner(penalty=0.02, masked_penalty=masked_penalty, proximal=proximal)
    expected = expected_gradients(pruner, randomise(pruner), float(scale))
    pruner.adjust_gradients(scale)
    for host, gradient in gradients(pruner).items():
        torch.testing.assert_close(gradient, expected[host], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("proximal", [False, True])
def test_the_same_penalty_for_masked_rows_changes_no_bit(proximal: bool) -> None:
    found = []
    for masked_penalty in (None, 0.037):
        pruner = tiny_pruner(penalty=0.037, masked_penalty=masked_penalty, proximal=proximal, mask_interval=2)
        optimizer = optimizer_of(pruner)
        for seed in range(6):
            step(pruner, optimizer, seed)
        assert not pruner.unmasked.alive.all()
        found.append(pruner.model.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@settings(max_examples=60, deadline=None)
@given(
    norms=st.lists(st.floats(-30, 3), min_size=6, max_size=6),
    penalty=st.floats(1e-6, 1.0),
    scale=st.sampled_from([1.0, 65536.0, 2.0**24]),
)
def test_rows_of_any_norm_are_penalised_alike(norms: list[float], penalty: float, scale: float) -> None:
    pruner = PRUNER
    object.__setattr__(pruner.config.decay, "penalty", penalty)
    task = randomise(pruner)
    compactor = pruner.compactors["1"]
    with torch.no_grad():
        for row, exponent in enumerate(norms):
            compactor.pwc.weight[row] *= 10.0**exponent / compactor.pwc.weight[row].norm()
        compactor.pwc.weight.grad.zero_()
        task["1"].zero_()
    pruner.adjust_gradients(scale)
    found = gradients(pruner)["1"].norm(dim=1)
    torch.testing.assert_close(found, torch.full_like(found, penalty * scale), rtol=1e-3, atol=0)


PRUNER = tiny_pruner()


@pytest.mark.parametrize("scale", [1.0, 65536.0, 2.0**40])
def test_a_zero_row_gets_no_penalty_and_no_nan(scale: float) -> None:
    pruner = tiny_pruner(penalty=1.0)
    task = randomise(pruner)
    compactor = pruner.compactors["1"]
    with torch.no_grad():
        compactor.pwc.weight[:2] = 0
        compactor.mask[:2] = torch.tensor([1.0, 0.0])
    pruner.adjust_gradients(scale)
    found = gradients(pruner)["1"]
    torch.testing.assert_close(found[0], task["1"][0].flatten().double())
    assert (found[1] == 0).all()
    assert torch.isfinite(found).all()


def test_rows_of_1e_minus_23_get_the_whole_penalty() -> None:
    pruner = tiny_pruner(penalty=1e-4)
    randomise(pruner)
    compactor = pruner.compactors["1"]
    with torch.no_grad():
        compactor.pwc.weight[3] *= 1e-23 / compactor.pwc.weight[3].norm()
        compactor.mask[3] = 0
    pruner.adjust_gradients()
    assert float(gradients(pruner)["1"][3].norm()) == pytest.approx(1e-4, rel=1e-3)


def test_rows_that_the_loss_does_not_reach_are_penalised() -> None:
    pruner = tiny_pruner()
    task = randomise(pruner)
    pruner.compactors["1"].pwc.weight.grad = None
    task["1"].zero_()
    pruner.adjust_gradients()
    torch.testing.assert_close(gradients(pruner)["1"], expected_gradients(pruner, task)["1"], rtol=1e-5, atol=1e-6)


def test_rows_that_are_not_to_be_pruned_are_left_alone() -> None:
    """`d` adds into `a` with its first rows and into `c` with its last, and `c` is excluded."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.fc((torch.cat([net.a(x), net.c(x)], 1) + net.d(x)).relu().mean((2, 3))),
        **{"a": conv(1, 4), "c": conv(1, 3), "d": conv(1, 7), "fc": nn.Linear(7, 3)},
    )
    config = paper_config(flops_target=0.6, penalty=0.01, layers="all", exclude=("c",), rows_per_update=9)
    pruner = ResRepPruner(model, IMAGES, config)
    assert list(pruner.compactors) == ["a", "d"]
    task = randomise(pruner)
    pruner.update_masks()
    assert pruner.compactors["a"].mask.sum() < 4
    assert pruner.compactors["d"].mask.tolist() == [*pruner.compactors["a"].mask.tolist(), 1, 1, 1]
    expected = expected_gradients(pruner, task)
    pruner.adjust_gradients()
    found = gradients(pruner)
    torch.testing.assert_close(found["d"][:4], expected["d"][:4], rtol=1e-5, atol=1e-6)
    assert torch.equal(found["d"][4:], task["d"][4:].flatten(1).double())


# Steps -------------------------------------------------------------------------------------------------------------


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


def test_parameter_groups_have_the_papers_settings() -> None:
    model = build_model("src20")
    pruner = ResRepPruner(model, torch.zeros(1, 3, 16, 16))
    model.stage1.conv1.conv.weight.requires_grad_(False)
    found = {}
    for group in pruner.param_groups(lr=0.01, momentum=0.9, weight_decay=1e-4):
        for parameter in group["params"]:
            assert parameter not in found
            found[parameter] = (group["lr"], group["momentum"], group["weight_decay"])
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found.keys() == names.keys()
    for parameter, name in names.items():
        if "compactor" in name:
            assert found[parameter] == (0.01, 0.99, 0.0)
        elif name.endswith("bias"):
            assert found[parameter] == (0.02, 0.9, 0.0)
        else:
            assert found[parameter] == (0.01, 0.9, 0.0 if ".bn." in name else 1e-4)


def test_parameter_groups_of_a_plain_model_and_shared_parameters() -> None:
    model = tiny(bias=True)
    model.append(model[-1])
    groups = param_groups(model, lr=0.1, momentum=0.8, weight_decay=0.5, bias_lr_factor=3.0)
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.1, 0.3])
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0, 0.0]
    torch.optim.SGD(groups)


def test_an_optimiser_without_the_compactors_is_refused() -> None:
    pruner = tiny_pruner()
    plain = [parameter for name, parameter in pruner.model.named_parameters() if "compactor" not in name]
    for parameters in (plain, [*plain, pruner.compactors["1"].pwc.weight]):
        with pytest.raises(ValueError, match="lacks the compactors"):
            pruner.attach(torch.optim.SGD(parameters, lr=0.1))


# Loops of every kind -------------------------------------------------------------------------------------------------


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


def test_modules_replaced_after_the_pruner_are_noticed() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(generic(tiny()))
    before = ResRepPruner(model, IMAGES, paper_config(**LENIENT))
    step(before, optimizer_of(before), 0)
    pruner = tiny_pruner()
    optimizer = optimizer_of(pruner)
    nn.SyncBatchNorm.convert_sync_batchnorm(pruner.model)
    with pytest.raises(ValueError, match="'1' is another module"):
        step(pruner, optimizer, 0)


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


def test_a_wrapped_model_is_refused() -> None:
    with pytest.raises(ValueError, match="wrapped already"):
        ResRepPruner(nn.DataParallel(tiny()), IMAGES)


def test_a_model_that_was_compiled_before_goes_through_its_compactors() -> None:
    torch.manual_seed(0)
    model = generic(tiny()).train()
    compiled = torch.compile(model, backend="eager")
    images, _ = batch(0)
    plain = compiled(images)
    pruner = ResRepPruner(model, IMAGES, paper_config(**LENIENT))
    torch.testing.assert_close(compiled(images), plain)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.mul_(0.5)
    assert not torch.allclose(compiled(images), plain, rtol=0.01)
    torch.testing.assert_close(compiled(images), model(images))


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


# Masks -------------------------------------------------------------------------------------------------------------


def test_proximal_steps_end_masked_rows_at_exactly_zero() -> None:
    """The penalty's gradient leaves them swinging around zero; the rows that aren't masked get what they always do."""

    def trained(proximal: bool) -> tuple[ResRepPruner, list[float]]:
        pruner = tiny_pruner(penalty=0.1, warmup_steps=10**6, proximal=proximal)
        with torch.no_grad():
            pruner.compactors["1"].mask[:3] = 0
        optimizer = optimizer_of(pruner, lr=0.02)
        largest = []
        for seed in range(400):
            step(pruner, optimizer, seed)
            largest.append(float(pruner.compactors["1"].matrix[:3].detach().norm(dim=1).max()))
        return pruner, largest

    pruner, norms = trained(proximal=True)
    assert norms[0] > 0.5
    assert norms[-100:] == [0.0] * 100
    assert pruner.compactors["1"].matrix[3:].norm(dim=1).min() > 0
    _, swinging = trained(proximal=False)
    assert min(swinging[-100:]) > 0
    assert max(swinging[-100:]) > 1e-3


def test_a_proximal_step_is_soft_thresholding() -> None:
    pruner = tiny_pruner(proximal=True, penalty=0.3)
    randomise(pruner)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.5))
    before = {host: compactor.matrix.detach().double() for host, compactor in pruner.compactors.items()}
    pruner.shrink_masked(optimizer)
    travel = 0.5 * 0.3 / (1 - pruner.config.decay.momentum)
    for host, compactor in pruner.compactors.items():
        for row, kept, old in zip(compactor.matrix.double(), compactor.mask, before[host], strict=True):
            norm = old.norm()
            expected = old if kept else old * max(0.0, 1 - travel / norm)
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_each_row_shrinks_at_its_own_rate_whatever_the_optimiser(optimizer_class: type) -> None:
    """Groups of one's own, one for each layer, without momentum."""
    config = {"penalty": 0.0, "masked_penalty": 0.4, "proximal": True, "compactor_momentum": 0.8}
    pruner = tiny_pruner(warmup_steps=10**6, **config)
    rates = dict(zip(pruner.compactors, (0.05, 0.1, 0.025), strict=False))
    groups = [{"params": [pruner.compactors[host].pwc.weight], "lr": rate} for host, rate in rates.items()]
    optimizer = optimizer_class(groups, weight_decay=0.0)
    pruner.attach(optimizer)
    for compactor in pruner.compactors.values():
        compactor.mask[0] = 0
    assert len(rates) > 1
    optimizer.zero_grad()
    optimizer.step()
    for host, rate in rates.items():
        norm = float(pruner.compactors[host].matrix[0].detach().norm())
        assert norm == pytest.approx(1 - rate * 0.4 / 0.2, abs=1e-5)


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


def test_masked_rows_die_in_norm_over_travel_steps_and_the_others_are_not_penalised() -> None:
    """norm (1 - m) / (lr lambda) = 1 * 0.2 / (0.05 * 0.4) = 10 steps."""
    settings = {"penalty": 0.0, "masked_penalty": 0.4, "proximal": True, "compactor_momentum": 0.8}
    pruner = tiny_pruner(warmup_steps=10**6, **settings)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
    pruner.attach(optimizer)
    masks = {host: torch.arange(len(compactor.mask)) % 2 for host, compactor in pruner.compactors.items()}
    for host, mask in masks.items():
        pruner.compactors[host].mask.copy_(mask)
    left = []
    for _ in range(12):
        optimizer.zero_grad()
        optimizer.step()
        norms = {host: compactor.matrix.detach().norm(dim=1) for host, compactor in pruner.compactors.items()}
        left.append(max(float(norms[host][mask == 0].max()) for host, mask in masks.items()))
        assert all((norms[host][mask == 1] == 1).all() for host, mask in masks.items())
    assert left[:9] == pytest.approx([1 - step / 10 for step in range(1, 10)], abs=1e-5)
    assert left[9] < 1e-5
    assert left[10:] == [0.0, 0.0]


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


def test_the_rows_of_a_stream_share_a_bit() -> None:
    pruner = stream_pruner()
    for updates in range(3):
        randomise(pruner, seed=updates)
        pruner.update_masks()
        masks = [pruner.compactors[host].mask for host in "abc"]
        assert torch.equal(masks[0], masks[1])
        assert torch.equal(masks[0], masks[2])
        alive = pruner.unmasked.alive
        assert pruner.graph.widths(alive)[0] == int(masks[0].sum())


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


# Targets and multiples ---------------------------------------------------------------------------------------------


def settle(pruner: ResRepPruner) -> None:
    """Update the masks until nothing changes any more."""
    for _ in range(80):
        pruner.update_masks()


def kill_masked_rows(pruner: ResRepPruner) -> None:
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight[compactor.mask == 0] *= 1e-9


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


def test_what_can_be_reached_is_said_for_each_target() -> None:
    with pytest.raises(ValueError, match=r"^params_target 5 can't be reached.* of the MACs .* of the parameters \("):
        wide_pruner(params_target=5.0)
    with pytest.raises(ValueError, match=r"^flops_target 0.001 and params_target 0.001 can't"):
        wide_pruner(flops_target=0.001, params_target=0.001)


def test_a_conversion_keeps_widths_in_multiples() -> None:
    """Rows that died unmasked, and masked ones that live, leave other numbers: the largest of the dead stay."""
    pruner = wide_pruner(width_multiple=8)
    settle(pruner)
    kill_masked_rows(pruner)
    widths = masked_widths(pruner)
    compactor = pruner.compactors["a"]
    kept, forgotten = ((compactor.mask == bit).nonzero().flatten() for bit in (1, 0))
    with torch.no_grad():
        compactor.pwc.weight[kept[:3]] = (
            torch.tensor([3e-6, 1e-6, 2e-6]).view(-1, 1, 1, 1)
            * compactor.matrix.new_ones(1, len(compactor.mask), 1, 1)
            / len(compactor.mask)
        )
    alive = pruner.remaining.alive
    assert pruner.graph.widths(alive) == widths  # filled up with the three, whose norms lead those of the masked
    assert alive[pruner.graph.layers["a"].out_units[kept.numpy()]].all()
    with torch.no_grad():
        compactor.pwc.weight[forgotten[:4]] = 0.5
    assert pruner.graph.widths(pruner.remaining.alive)[0] == min(widths[0] + 8, 40)
    slim = pruner.convert()
    assert pruner.report.widths == (slim.a.out_channels, slim.b.out_channels, slim.c.out_channels)
    assert pruner.report.widths[0] == min(widths[0] + 8, 40)
    assert pruner.report.kept_for_width == pruner.report.widths[0] - (widths[0] - 3 + 4)


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
        {"threshold": -1.0},
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


# From the start to the end -----------------------------------------------------------------------------------------


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


def test_a_pruner_takes_a_model_that_has_its_compactors() -> None:
    pruner = tiny_pruner()
    randomise(pruner)
    before = copy.deepcopy(pruner.model.state_dict())
    again = ResRepPruner(pruner.model, IMAGES, pruner.config)
    assert again.compactors == pruner.compactors
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.model.state_dict().items())
    assert (again.unmasked.alive == pruner.unmasked.alive).all()
    with pytest.raises(ValueError, match="compactors at other places"):
        ResRepPruner(pruner.model, IMAGES, paper_config(flops_target=0.8, include=("0",)))


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["internal", "all"])
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


def test_a_conversion_keeps_the_rows_that_the_pruner_says_remain() -> None:
    """Also where the penalty has driven rows to zero that no mask may forget."""
    model, images = tiny(), torch.randn(2, 1, 8, 8)
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.9, min_width=3))
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight[1:] = 0.0
    remaining = pruner.graph.widths(pruner.remaining.alive)
    pruner.convert()
    assert remaining == list(pruner.report.widths) == [3, 3]
