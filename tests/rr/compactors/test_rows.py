"""The rows of all compactors: their gradients against the formula, the proximal step, one bit for each unit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rr import ResRepPruner, paper_config
from rr.compactors import CompactorRows
from rr.selection.importance import TaylorScores
from tests.rr.networks import Net, conv
from tests.rr.pruners import (
    IMAGES,
    expected_gradients,
    gradients,
    optimizer_of,
    randomise,
    step,
    stream_pruner,
    tiny_pruner,
)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 65536.0, 2.0**40])
def test_a_zero_row_gets_no_penalty_and_no_nan(scale: float, dtype: torch.dtype) -> None:
    """A row of 1e-30 gets the whole penalty, in bfloat16 too; the scores of both are numbers, and so is a step."""
    pruner = tiny_pruner(penalty=1.0, score="taylor")
    task = randomise(pruner)
    compactor = pruner.compactors["1"].to(dtype)
    with torch.no_grad():
        compactor.pwc.weight[:2] = 0
        compactor.pwc.weight[2] *= 1e-30 / compactor.pwc.weight[2].float().norm()
        compactor.mask[:3] = torch.tensor([1.0, 0.0, 0.0])
        compactor.pwc.weight.grad = task["1"].to(dtype)
    rows = CompactorRows([compactor], [np.arange(6)], np.ones(6, dtype=bool), pruner.config)
    scores = TaylorScores(6, compactor.pwc.weight)
    rows.adjust_gradients(scale, scores.observe)
    found = compactor.pwc.weight.grad.flatten(1).double()
    torch.testing.assert_close(found[0], task["1"][0].flatten().to(dtype).double())
    assert (found[1] == 0).all()
    assert float(found[2].norm()) == pytest.approx(scale, rel=1e-3 if dtype is torch.float32 else 2e-2)
    assert torch.isfinite(found).all()
    assert torch.isfinite(scores.squares).all()
    rows.shrink_masked(torch.optim.SGD([compactor.pwc.weight], lr=0.1))
    assert torch.isfinite(compactor.pwc.weight).all()


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


@pytest.mark.slow
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
