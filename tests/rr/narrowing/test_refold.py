"""Compactors folded in mid-run: the same network in eval mode, and in the end a plain one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from base_model import build_model
from rr import ResRepPruner, paper_config
from rr.conversion import ConversionError
from rr.narrowing.refold import can_retire, retire
from tests.long_cases import every_value_once
from tests.rr.folded import Folding, dense_layers, folding_pruner, images_of
from tests.rr.narrowed import FAMILIES, OPTIMIZERS, kill, losses
from tests.rr.networks import Net, conv, generic, head

OF_FACTORS = sorted(set(FAMILIES) - {"all sorts"})  # that has a block-diagonal compactor, which can't retire


@pytest.mark.slow
@pytest.mark.parametrize(*every_value_once({"family": FAMILIES, "optimizer": OPTIMIZERS}))
def test_in_eval_mode_nothing_changes_and_layers_get_their_width(family: str, optimizer: str) -> None:
    """Folded twice, the second time with fewer rows; what is converted is what would have been converted before."""
    pruner = folding_pruner(family)
    attached = OPTIMIZERS[optimizer](pruner)
    pruner.attach(attached)
    size, images = FAMILIES[family][2], images_of(family)
    losses(pruner, attached, size, 2, seed=0)
    for share in (0.4, 0.4):
        alive = kill(pruner, share)
        units = pruner.narrow()
        folding = Folding(pruner)
        losses(pruner, attached, size, 2, seed=1)
        with torch.no_grad():
            before = pruner.model.eval()(images)
        slim_before = pruner.convert()(images)
        widths = pruner.report.widths
        folded = folding.fold(attached)
        assert units > 0
        assert folded > 0
        assert all(living == outputs for living, outputs in dense_layers(pruner).values())
        with torch.no_grad():
            torch.testing.assert_close(pruner.model.eval()(images), before, rtol=1e-9, atol=1e-10)
        slim = pruner.convert()
        torch.testing.assert_close(slim(images), slim_before, rtol=1e-9, atol=1e-10)
        assert pruner.report.widths == widths
        assert (pruner.unmasked.alive == alive).all()
        assert pruner.target_met or pruner.narrow() == 0
        found = losses(pruner, attached, size, 3, seed=2)
        assert np.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.parametrize(*every_value_once({"family": OF_FACTORS, "optimizer": OPTIMIZERS}))
def test_in_the_end_a_plain_network_is_left(family: str, optimizer: str) -> None:
    """The compactors retire: in eval mode nothing changes, in training no step runs or trains them, masks stay."""
    pruner = folding_pruner(family, flops_target=0.6)
    attached = OPTIMIZERS[optimizer](pruner)
    pruner.attach(attached)
    size, images = FAMILIES[family][2], images_of(family)
    losses(pruner, attached, size, 2, seed=0)
    alive = kill(pruner, 0.5)
    pruner.narrow()
    assert not pruner.retired
    losses(pruner, attached, size, 2, seed=1)
    with torch.no_grad():
        before = pruner.model.eval()(images)
    expected = pruner.convert()(images)
    assert pruner.narrow() > 0
    assert pruner.retired
    with torch.no_grad():
        torch.testing.assert_close(pruner.model.eval()(images), before, rtol=1e-9, atol=1e-10)
    calls = [
        compactor.pwc.register_forward_hook(lambda *_: pytest.fail("a compactor ran"))
        for compactor in pruner.compactors.values()
    ]
    states = copy.deepcopy([pruner.state_dict(), pruner.model.state_dict(), attached.state_dict()])
    found = losses(pruner, attached, size, 3, seed=2)
    assert np.isfinite(found).all()
    assert not pruner.masks_are_due()
    assert pruner.narrow() == 0
    assert (pruner.unmasked.alive == alive).all()
    for compactor in pruner.compactors.values():
        assert torch.equal(
            compactor.matrix, nn.init.dirac_(compactor.pwc.weight.clone(), compactor.pwc.groups).flatten(1)
        )
    for hook in calls:
        hook.remove()

    again = folding_pruner(family, flops_target=0.6)
    afresh = OPTIMIZERS[optimizer](again)
    again.attach(afresh)
    for target, state in zip((again, again.model, afresh), states, strict=True):
        target.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(again.convert()(images), expected, rtol=1e-9, atol=1e-10)
    assert losses(again, afresh, size, 3, seed=2) == found
    assert again.retired
    again.attach(afresh)  # frozen compactors are no mistake now


def diagonal_pruner(family: str) -> ResRepPruner:
    """Its compactors are factors, which can go into what is before them at any time."""
    pruner = folding_pruner(family, compactors="diagonal")
    factors = torch.cat([compactor.matrix[:, 0] for compactor in pruner.compactors.values()])
    assert can_retire(pruner.live)
    assert (factors - 1).abs().mean() > 0.1
    return pruner


def numbers_at_random(pruner: ResRepPruner, names: Sequence[str]) -> dict[nn.Parameter, dict[str, torch.Tensor]]:
    """What an optimiser may keep, for all parameters but the compactors'."""
    torch.manual_seed(1)
    parameters = [parameter for name, parameter in pruner.model.named_parameters() if "compactor" not in name]
    return {parameter: {name: torch.rand_like(parameter) + 0.1 for name in names} for parameter in parameters}


@pytest.mark.slow
@pytest.mark.parametrize("family", OF_FACTORS)
def test_momentum_leads_where_it_would_have_led_when_compactors_retire(family: str) -> None:
    """A step by momentum alone, in eval mode, leads to the same network without the compactors as with them."""

    def outputs_after_a_step(retires: bool) -> torch.Tensor:
        pruner = diagonal_pruner(family)
        state = numbers_at_random(pruner, ["momentum_buffer"])
        optimizer = torch.optim.SGD(list(state), lr=0.1, momentum=0.9)
        optimizer.state.update(state)
        if retires:
            retire([pruner.live], pruner.example_inputs, [optimizer.state])
        for parameter in state:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        with torch.no_grad():
            return pruner.model.eval()(images_of(family))

    torch.testing.assert_close(outputs_after_a_step(True), outputs_after_a_step(False), rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("family", OF_FACTORS)
def test_squared_gradients_keep_their_ratio_to_gradients_when_compactors_retire(family: str) -> None:
    """Adam's steps, a mean of gradients over the root of that of their squares, stay as long as they are."""
    pruner = diagonal_pruner(family)
    state = numbers_at_random(pruner, ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"])
    before = copy.deepcopy(list(state.values()))
    retire([pruner.live], pruner.example_inputs, [state])
    scaled = 0
    for numbers, former in zip(state.values(), before, strict=True):
        scaled += not torch.equal(numbers["exp_avg"], former["exp_avg"])
        for squares in ("exp_avg_sq", "max_exp_avg_sq"):
            ratios = [each["exp_avg"].square() / each[squares] for each in (numbers, former)]
            torch.testing.assert_close(*ratios)
    assert scaled > len(pruner.compactors)


def test_constants_of_dead_channels_go_into_the_bias_of_a_folded_layer() -> None:
    """A sigmoid makes 0.5 of a dead channel, which can't leave in mid-run; the layer that reads it has been folded."""

    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = net.a(x).sigmoid()
        return head(net, F.relu(net.n(net.b(x))))

    torch.manual_seed(0)
    model = generic(
        Net(forward, a=conv(3, 8), b=conv(8, 8, 1, bias=False), n=nn.BatchNorm2d(8), fc=nn.Linear(8, 2))
    ).double()
    config = paper_config(flops_target=0.12, narrow="full")
    pruner = ResRepPruner(model, torch.randn(2, 3, 8, 8), config)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    kill(pruner, 0.5)
    pruner.narrow()
    folding = Folding(pruner)
    model.train()(images)
    assert folding.fold() > 0
    assert model.b.out_channels == 4
    with torch.no_grad():
        pruner.compactors["a"].pwc.weight[2:6] = 0.0
    slim = pruner.convert()
    assert (slim.a.out_channels, slim.b.in_channels, slim.b.out_channels) == (4, 4, 4)
    torch.testing.assert_close(slim(images), model.eval()(images), rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_a_compiled_network_and_an_average_follow() -> None:
    curves = []
    family = "dense"
    for compiles in (False, True):
        pruner = folding_pruner(family)
        optimizer = OPTIMIZERS["SGD"](pruner)
        pruner.attach(optimizer)
        average = AveragedModel(pruner.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        network = torch.compile(pruner.model, backend="eager") if compiles else pruner.model
        curve = []
        for count in range(8):
            loss = F.cross_entropy(network.train()(images_of(family, count)), torch.tensor([0, 1, 0, 1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(pruner.model)
            curve.append(loss.item())
            if count in (2, 5):
                kill(pruner, 0.4, seed=count)
                assert pruner.narrow(also=[average.module]) > 0
                folding = Folding(pruner)
            if count in (4, 6):
                with torch.no_grad():
                    before = average.module.eval()(images_of(family))
                assert folding.fold(optimizer, also=[average.module]) > 0
                after = average.module(images_of(family))
                torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-10)
        curves.append(curve)
        shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (average.module, pruner.model)]
        assert shapes[0] == shapes[1]
        slim, report = pruner.convert(average), pruner.report
        assert report.float64_difference <= 1e-12
        assert slim.c1.in_channels == pruner.convert().c1.in_channels < 8
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_fold_that_would_change_the_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = folding_pruner("residual, inner layers")
    kill(pruner, 0.5)
    pruner.narrow()
    folding = Folding(pruner)
    pruner.model.train()(images_of("residual, inner layers"))
    state = copy.deepcopy(pruner.model.state_dict())
    monkeypatch.setattr("rr.narrowing.layer_fold.bn_scale", lambda norm: norm.weight.detach().double())
    with pytest.raises(ConversionError, match="mid-run"):
        folding.fold()
    for name, value in pruner.model.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.slow
def test_a_network_in_channels_last_and_float32_stays_that() -> None:
    torch.manual_seed(0)
    config = paper_config(flops_target=0.6, narrow="full")
    pruner = ResRepPruner(generic(build_model("src20")), torch.randn(2, 3, 32, 32), config)
    pruner.model.to(memory_format=torch.channels_last)
    kill(pruner, 0.5)
    pruner.narrow()
    images = torch.randn(4, 3, 32, 32)
    pruner.model.train()(images)
    before = pruner.model.eval()(images)
    assert pruner.narrow() > 0
    torch.testing.assert_close(pruner.model.eval()(images), before, rtol=1e-3, atol=1e-4)
    weight = pruner.model.stage1.block0.conv1.conv.weight
    assert weight.dtype == torch.float32
    assert weight.is_contiguous(memory_format=torch.channels_last)
