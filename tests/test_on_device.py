"""What another device could do differently, from the first step to the narrow network; see tests/devices.py."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, prune
from tests.devices import DEVICE, IS_EXACT
from tests.rr.networks import conv
from tests.rr.pruners import (
    batch,
    expected_gradients,
    gradients,
    kill_masked_rows,
    randomise,
    settle,
    tiny_pruner,
)
from tests.training.tiny_run import StepSum, run, tiny_recipe
from training import Callback, TrainState, checkpoint_files

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("one_thread", "full_precision")]
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def on_device(**settings: object) -> tuple[ResRepPruner, torch.optim.SGD]:
    """A pruner whose model is moved after it was built, and its optimiser."""
    pruner = tiny_pruner(**settings)
    pruner.model.to(DEVICE)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
    pruner.attach(optimizer)
    return pruner, optimizer


def loss_of(pruner: ResRepPruner, seed: int) -> Tensor:
    parameter = next(pruner.model.parameters())
    images, labels = batch(seed)
    return F.cross_entropy(pruner.model.train()(images.to(parameter)), labels.to(parameter.device))


def steps(pruner: ResRepPruner, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        loss = loss_of(pruner, seed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("score", ["norm", "taylor"])
def test_steps_and_masks_are_those_of_the_cpu_in_float64(score: str) -> None:
    settings = {"warmup_steps": 2, "mask_interval": 3, "rows_per_update": 2, "score": score, "proximal": True}
    pruner, optimizer = on_device(**settings)
    exact = tiny_pruner(**settings)
    exact.model.double()
    other = torch.optim.SGD(exact.param_groups(lr=0.05))
    exact.attach(other)
    assert steps(pruner, optimizer, range(10)) == pytest.approx(steps(exact, other, range(10)), rel=1e-3)
    assert not pruner.unmasked.alive.all()
    assert (pruner.unmasked.alive == exact.unmasked.alive).all()
    for name, tensor in exact.model.state_dict().items():
        torch.testing.assert_close(pruner.model.state_dict()[name].cpu().to(tensor), tensor, **CLOSE)


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_in_true_units_under_a_scaler_and_a_skipped_step_does_not_count(fused: bool) -> None:
    pruner = tiny_pruner()
    pruner.model.to(DEVICE)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.0), lr=0.0, fused=fused)
    pruner.attach(optimizer)
    task = randomise_on_cpu(pruner)
    expected = expected_gradients(pruner, task)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=512.0)
    scaler.scale(torch.zeros((), device=DEVICE))  # gets the scaler going, as scaling a loss does
    for compactor in pruner.compactors.values():
        compactor.pwc.weight.grad.mul_(512.0)
    scaler.step(optimizer)
    scaler.update()
    for host, gradient in gradients(pruner).items():
        torch.testing.assert_close(gradient, expected[host].to(DEVICE), rtol=1e-5, atol=1e-6)
    assert pruner.steps == 1
    optimizer.zero_grad()
    scaler.scale(loss_of(pruner, 0)).backward()
    next(iter(pruner.compactors.values())).pwc.weight.grad[0] = math.inf
    scaler.step(optimizer)
    assert pruner.steps == 1


def randomise_on_cpu(pruner: ResRepPruner) -> dict[str, Tensor]:
    """As `randomise`, whose random numbers are the CPU's; weights, masks and gradients go to the device."""
    pruner.model.cpu()
    task = randomise(pruner)
    for compactor in pruner.compactors.values():
        compactor.pwc.weight.grad = None
    pruner.model.to(DEVICE)
    for host, gradient in task.items():
        pruner.compactors[host].pwc.weight.grad = gradient.clone().to(DEVICE)
    return {host: gradient.to(DEVICE) for host, gradient in task.items()}


def test_channels_leave_and_compactors_retire() -> None:
    pruner, optimizer = on_device(narrow="full")
    steps(pruner, optimizer, range(2))
    settle(pruner)
    kill_masked_rows(pruner)
    images = batch(0)[0].to(DEVICE)
    before = pruner.model.eval()(images)
    assert pruner.narrow() > 0
    torch.testing.assert_close(pruner.model.eval()(images), before, **CLOSE)
    after = steps(pruner, optimizer, range(2, 6))
    before = pruner.model.eval()(images)
    assert pruner.narrow() > 0
    assert pruner.retired
    torch.testing.assert_close(pruner.model.eval()(images), before, **CLOSE)
    assert max(steps(pruner, optimizer, range(6, 9))) < 2 * max(after)
    assert {parameter.device.type for parameter in pruner.model.parameters()} == {DEVICE.type}
    slim = pruner.convert()
    torch.testing.assert_close(slim(images), pruner.model.eval()(images), **CLOSE)


def test_a_conversion_is_proven_and_stays_on_the_device() -> None:
    pruner, optimizer = on_device(warmup_steps=2, mask_interval=3)
    steps(pruner, optimizer, range(3))
    settle(pruner)
    kill_masked_rows(pruner)
    slim = pruner.convert()
    assert pruner.report.float64_difference < 1e-10
    assert pruner.report.macs_ratio <= 0.5
    assert {tensor.device.type for tensor in slim.state_dict().values()} == {DEVICE.type}
    images = batch(0)[0].to(DEVICE)
    torch.testing.assert_close(slim(images), pruner.model.eval()(images), **CLOSE)


def test_states_go_through_files_and_on() -> None:
    settings = {"warmup_steps": 2, "mask_interval": 3, "rows_per_update": 2, "score": "taylor", "narrow": "rows"}
    pruner, optimizer = on_device(**settings)
    steps(pruner, optimizer, range(6))
    file = io.BytesIO()
    torch.save([pruner.state_dict(), pruner.model.state_dict(), optimizer.state_dict()], file)
    expected = steps(pruner, optimizer, range(6, 12))
    other, resumed = on_device(**settings)
    states = torch.load(io.BytesIO(file.getvalue()), map_location="cpu", weights_only=True)
    for part, state in zip((other, other.model, resumed), states, strict=True):
        part.load_state_dict(state)
    assert steps(other, resumed, range(6, 12)) == pytest.approx(expected, rel=0 if IS_EXACT else 1e-4)
    assert (other.unmasked.alive == pruner.unmasked.alive).all()


class Stop(Exception):
    pass


class StopAt(Callback):
    def after_step(self, state: TrainState) -> None:
        if state.step == 10:
            raise Stop


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"amp": True}], ids=["float32", "bfloat16"])
def test_a_run_that_was_stopped_ends_as_the_whole_one(tmp_path: Path, settings: dict[str, bool]) -> None:
    settings = {**settings, "device": DEVICE.type, "checkpoint_interval": 4}
    run(tiny_recipe(tmp_path / "whole", **settings), net="dropout", callbacks=[StepSum(), Callback()])
    with pytest.raises(Stop):
        run(tiny_recipe(tmp_path / "stopped", **settings), net="dropout", callbacks=[StepSum(), StopAt()])
    stopped = tiny_recipe(tmp_path / "stopped", **settings)
    run(stopped, net="dropout", callbacks=[StepSum(), Callback()], conti_or_fs="continue")
    whole, other = (checkpoint_files.load(tmp_path / name / "finish.pth") for name in ("whole", "stopped"))
    assert whole["step"] == other["step"]
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(other["model"][name], tensor, **({"rtol": 0, "atol": 0} if IS_EXACT else CLOSE))


@pytest.mark.slow
def test_what_the_others_can_stand_in_for_goes_without_training() -> None:
    """Half of the channels of the first layer are mixtures of the others."""
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), conv(8, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        mixture = torch.randn(4, 4)
        model[0].weight[4:] = (mixture @ model[0].weight[:4].flatten(1)).view_as(model[0].weight[4:])
        model[0].bias[4:] = mixture @ model[0].bias[:4]
    images = torch.randn(128, 3, 8, 8).to(DEVICE)
    model.eval().to(DEVICE)
    slim = prune(model, images[:2], list(images.split(16)), include=("0",), flops_target=0.56)
    assert slim[0].out_channels == 4
    assert {tensor.device.type for tensor in slim.state_dict().values()} == {DEVICE.type}
    torch.testing.assert_close(slim(images), model(images), rtol=1e-2, atol=1e-2)
