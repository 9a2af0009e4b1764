"""When dead channels and compactors leave a model in training, and runs that were killed between."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rr import ResRepPruner, paper_config
from rr.weights import load_strict
from tests.rr.folded import dense_layers, folding_pruner, images_of
from tests.rr.narrowed import OPTIMIZERS, kill, losses
from tests.rr.networks import Net, conv, generic, head
from tests.rr.pruners import set_masks


@pytest.mark.slow
def test_folding_waits_for_the_end_of_dying() -> None:
    """A fold while others still die disturbs the training; when nothing more is to die, all layers are folded."""
    pruner = folding_pruner("residual, inner layers", flops_target=0.6)
    set_masks(pruner, np.ones(pruner.graph.num_units, dtype=bool))
    layer = "stage3.block0.conv1.conv"
    alive = pruner.unmasked.alive
    alive[pruner.graph.sites[layer].units[:60]] = False
    set_masks(pruner, alive)
    pruner.live.zero_dead_rows(alive)
    assert pruner.narrow() == 60
    pruner.model.train()(images_of("residual, inner layers"))
    assert pruner.narrow() == 0
    assert dense_layers(pruner)[layer] == (4, 64)
    assert not pruner.target_met
    kill(pruner, 0.49)  # all that was to die has died, and the target is met
    pruner.narrow()
    assert pruner.target_met
    assert any(living < outputs for living, outputs in dense_layers(pruner).values())
    assert not pruner.settled
    pruner.model.train()(images_of("residual, inner layers"))
    assert pruner.narrow() > 0
    assert all(living == outputs for living, outputs in dense_layers(pruner).values())
    assert pruner.settled


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_was_killed_goes_on_bit_by_bit(optimizer: str) -> None:
    """Between two folds, while the next one is being measured: compactors that can't retire are folded again."""
    family = "all sorts"
    pruner = folding_pruner(family, flops_target=0.95)
    attached = OPTIMIZERS[optimizer](pruner)
    pruner.attach(attached)
    for share in (0.4, 0.0, 0.4):
        kill(pruner, share)
        assert pruner.narrow() > 0
        losses(pruner, attached, 8, 2, seed=0)
    alive = pruner.unmasked.alive
    states = copy.deepcopy([pruner.state_dict(), pruner.model.state_dict(), attached.state_dict()])

    def go_on(pruner: ResRepPruner, optimizer: torch.optim.Optimizer) -> list[float]:
        assert pruner.narrow() > 0
        return losses(pruner, optimizer, 8, 2, seed=3)

    expected = go_on(pruner, attached)
    again = folding_pruner(family, flops_target=0.95)
    afresh = OPTIMIZERS[optimizer](again)
    again.attach(afresh)
    for target, state in zip((again, again.model, afresh), states, strict=True):
        target.load_state_dict(state)
    assert (again.unmasked.alive == alive).all()
    assert go_on(again, afresh) == expected

    wide = folding_pruner(family, flops_target=0.95)
    load_strict(wide.model, again.live.remaining.full_state(again.model.state_dict()), "the full state")
    images = images_of(family)
    torch.testing.assert_close(wide.model.eval()(images), again.model.eval()(images), rtol=1e-9, atol=1e-10)
    wide.convert()
    again.convert()
    assert wide.report.widths == again.report.widths


@pytest.mark.slow
def test_compactors_that_cannot_go_into_what_is_before_them_stay() -> None:
    """A block-diagonal one behind a grouped convolution: outputs go from the others, and training goes on with all."""
    pruner = folding_pruner("all sorts", flops_target=0.6)
    optimizer = OPTIMIZERS["SGD"](pruner)
    pruner.attach(optimizer)
    kill(pruner, 0.5)
    pruner.narrow()
    losses(pruner, optimizer, 8, 1, seed=0)
    assert pruner.narrow() > 0
    assert not pruner.retired
    losses(pruner, optimizer, 8, 1, seed=0)
    assert pruner.narrow() == 0
    assert pruner.convert() is not None


@pytest.mark.slow
def test_compactors_stay_while_a_masked_unit_does_that_only_they_keep_at_zero() -> None:
    """A sigmoid's constant keeps its channel, and so does the last one of a block that is to vanish."""

    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.a(net.stem(x).sigmoid()))
        x = x + net.c(F.relu(net.b(x)))
        return head(net, x)

    torch.manual_seed(0)
    layers = {"stem": conv(3, 8), "a": conv(8, 8, 1), "b": conv(8, 8), "c": conv(8, 8), "fc": nn.Linear(8, 2)}
    model = generic(Net(forward, **layers)).double()
    config = paper_config(flops_target=0.5, narrow="full", min_width=0, rows_per_update=100)
    pruner = ResRepPruner(model, torch.randn(2, 3, 8, 8), config)
    alive = pruner.unmasked.alive
    alive[pruner.graph.sites["b"].units] = False
    alive[pruner.graph.sites["stem"].units[:2]] = False
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    set_masks(pruner, alive)
    with torch.no_grad():
        for site in pruner.sites:
            pruner.compactors[site.host].pwc.weight[torch.from_numpy(~alive[site.units])] = 0.0
    assert pruner.target_met
    assert not pruner.settled
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(4):
        pruner.narrow(also=[average.module])
        model.train()(images)
    assert pruner.settled
    assert not pruner.retired
    slim = pruner.convert()
    assert pruner.report.macs_ratio == pytest.approx(pruner.unmasked.macs_ratio)
    assert slim.stem.out_channels == 6
    torch.testing.assert_close(slim(images), model.eval()(images), rtol=1e-9, atol=1e-10)
    widths = pruner.report.widths
    pruner.convert(average)
    assert pruner.report.widths == widths
