"""A training that begins with the cut: the network of `rr.prune`, narrow before the first step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, RefitConfig, ResRepPruner, cut_at_once, cut_config, fast_config, prune
from tests.rr.networks import conv, generic

STEPS = 6


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = [(conv(one, other), nn.BatchNorm2d(other), nn.ReLU()) for one, other in ((3, 12), (12, 8), (8, 8))]
    return generic(nn.Sequential(*sum(blocks, ()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)))


def batches() -> list[Tensor]:
    return list(torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(1)).split(16))


@pytest.mark.slow
def test_it_trains_the_network_of_prune_narrow_from_the_first_step_on() -> None:
    model, inputs = network(), batches()
    expected = prune(model.eval(), inputs[0], inputs, flops_target=0.5)
    pruner = ResRepPruner(model, inputs[0], cut_config().for_run(STEPS, lr=0.1))
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.1))
    pruner.attach(optimizer)
    refit = cut_at_once(pruner, inputs)
    assert refit.held_out == 16
    assert refit.layers == pytest.approx(expected.refit_report.layers)
    assert not pruner.retired
    assert pruner.narrow()
    assert pruner.retired
    assert (model[0].out_channels, model[3].out_channels) == (expected[0].out_channels, expected[3].out_channels)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(inputs[0]), expected(inputs[0]), rtol=1e-4, atol=1e-5)

    widths = pruner.unmasked.widths
    model.train()
    for images in [*inputs, *inputs][:STEPS]:
        loss = F.cross_entropy(model(images), torch.arange(len(images)) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert not pruner.narrow_is_due
    assert pruner.unmasked.widths == widths
    slim = pruner.convert()
    assert pruner.report.macs_after <= 0.5 * pruner.report.macs_before
    with torch.no_grad():
        torch.testing.assert_close(slim(inputs[1]), model.eval()(inputs[1]), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(slim(inputs[1]), expected(inputs[1]), atol=1e-2)


def begun() -> ResRepPruner:
    pruner = ResRepPruner(network(), batches()[0], cut_config().for_run(STEPS, lr=0.1))
    pruner.after_step()
    return pruner


def gradual() -> ResRepPruner:
    return ResRepPruner(network(), batches()[0], fast_config(compactors="diagonal").for_run(100, lr=0.1))


def computed() -> ResRepPruner:
    model = network()
    nn.utils.parametrizations.weight_norm(model[3])
    return ResRepPruner(model, batches()[0], cut_config().for_run(STEPS, lr=0.1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pruner", "message"), [(begun, "make a new one"), (gradual, "cut_config"), (computed, "3 computes its weight")]
)
def test_what_cannot_begin_so_is_refused(pruner: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut_at_once(pruner(), batches(), refitting=RefitConfig())
