"""What is planned before any training: models with compactors, and those that were compiled before."""

from __future__ import annotations

import copy

import pytest
import torch

from rr import ResRepPruner, paper_config
from tests.rr.networks import generic, tiny
from tests.rr.pruners import (
    IMAGES,
    LENIENT,
    batch,
    randomise,
    tiny_pruner,
)


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
