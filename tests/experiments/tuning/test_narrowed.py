"""The network of a run's later steps, which is what gets timed."""

from __future__ import annotations

import pytest
import torch

from base_model import build_model
from experiments.tuning.narrowed import alive_at_target, narrow_at_random
from rr import ResRepPruner, fast_config


@pytest.mark.slow
def test_the_network_is_as_narrow_as_the_target_and_plain() -> None:
    torch.manual_seed(0)
    model = build_model("src8").train()
    config = fast_config(flops_target=0.5, width_multiple=4).for_run(1000, lr=0.01)
    pruner = ResRepPruner(model, torch.zeros(1, 3, 8, 8), config.with_settings(mask_interval=10**9))
    optimizer = torch.optim.SGD(pruner.param_groups(lr=1e-6))
    pruner.attach(optimizer)
    alive = alive_at_target(pruner)
    assert 0 < alive.sum() < len(alive)

    def step() -> None:
        model(torch.randn(4, 3, 8, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    narrow_at_random(pruner, step)
    assert pruner.retired
    assert 0.4 < pruner.remaining.macs_ratio <= 0.5
    assert all(width % 4 == 0 for width in pruner.remaining.widths)
    step()
