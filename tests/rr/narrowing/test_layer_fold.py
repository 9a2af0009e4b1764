"""One layer's fold: nearly the same function in training, rows and filters of the same length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.rr.folded import Folding, folding_pruner, images_of
from tests.rr.narrowed import FAMILIES, OPTIMIZERS, kill, losses
from tests.rr.pruners import set_masks


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_training_goes_on_in_nearly_the_same_function(family: str) -> None:
    """On the batch whose variance was measured, and with running statistics of that batch, it is the same function."""
    pruner = folding_pruner(family)
    norms = [module for module in pruner.model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.eps, norm.momentum = 1e-12, 1.0
    kill(pruner, 0.5)
    pruner.narrow()
    folding, images = Folding(pruner), images_of(family, number=64)
    with torch.no_grad():
        expected = pruner.model.train()(images)
        assert folding.fold() > 0
        found = pruner.model.train()(images)
    # running variances count n - 1 of n numbers
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


@pytest.mark.slow
def test_rows_keep_their_norms_and_filters_their_length() -> None:
    """Scores, penalty and learning rate go on as they were."""
    pruner = folding_pruner("residual, inner layers")
    optimizer = OPTIMIZERS["SGD"](pruner)
    pruner.attach(optimizer)
    kill(pruner, 0.5)
    pruner.narrow()
    folding = Folding(pruner)
    losses(pruner, optimizer, 8, 1, seed=0)
    norms, layer = pruner.candidate_norms(), "stage2.block0.conv1"
    length = pruner.model.get_submodule(layer).conv.weight.flatten(1).norm(dim=1).square().mean().sqrt()
    assert folding.fold(optimizer) > 0
    np.testing.assert_allclose(pruner.candidate_norms(), norms, rtol=1e-12)
    matrix = pruner.compactors[layer].matrix
    assert torch.equal(matrix, torch.diag(matrix.diagonal()))
    filters = pruner.model.get_submodule(layer).conv.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(filters, length.expand_as(filters))


def test_a_row_that_is_zero_but_stays_keeps_its_channel() -> None:
    """Widths in multiples keep some; their masks may change again, so that there must be something before them."""
    pruner = folding_pruner("residual, inner layers", width_multiple=8, flops_target=0.4)
    host = "stage3.block0.conv1"
    alive = pruner.unmasked.alive
    alive[pruner.graph.sites[f"{host}.conv"].units[:20]] = False
    set_masks(pruner, alive)
    with torch.no_grad():
        pruner.compactors[host].pwc.weight[:20] = 0.0
    assert pruner.narrow() == 16
    optimizer = OPTIMIZERS["SGD"](pruner)
    pruner.attach(optimizer)
    folding, images = Folding(pruner), images_of("residual, inner layers")
    pruner.model.train()(images)
    before = pruner.model.eval()(images)
    filters = pruner.model.get_submodule(host).conv.weight.detach().clone()
    assert folding.fold(optimizer) == 16
    torch.testing.assert_close(pruner.model.eval()(images), before, rtol=1e-9, atol=1e-10)
    rows = pruner.compactors[host].matrix
    assert rows.shape == (48, 48)
    assert (rows[:4] == 0).all()
    block = pruner.model.get_submodule(host)
    length = filters.flatten(1).norm(dim=1).square().mean().sqrt()
    alike = F.cosine_similarity(block.conv.weight[:4].flatten(1), filters[16:20].flatten(1)).abs()  # gamma's sign
    torch.testing.assert_close(alike, torch.ones_like(alike))
    torch.testing.assert_close(block.conv.weight[0].norm(), length)
    assert (block.bn.weight[:4].abs() > 1e-2).all()
