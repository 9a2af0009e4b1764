"""What optimisers keep of folded parameters leads where it would have led."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.rr.folded import Folding, dense_layers, folding_pruner, images_of
from tests.rr.narrowed import FAMILIES, kill


@pytest.mark.parametrize("family", FAMILIES)
def test_momentum_leads_where_it_would_have_led(family: str) -> None:
    """A step by momentum alone, in eval mode: before the fold and after it, outputs change alike, to first order."""

    def step_after(folds: bool, lr: float) -> torch.Tensor:
        pruner = folding_pruner(family)
        for group in (groups := pruner.param_groups(lr=lr, momentum=0.9, weight_decay=0.0, bias_lr_factor=1.0)):
            group["momentum"] = 0.9
        optimizer = torch.optim.SGD(groups, lr=lr)
        pruner.attach(optimizer)
        kill(pruner, 0.5)
        pruner.narrow()
        folding = Folding(pruner)
        pruner.model.train()(images_of(family))
        torch.manual_seed(1)
        layers = [pruner.graph.layers[name] for name in dense_layers(pruner)]
        weights = [pruner.model.get_submodule(layer.name).weight for layer in layers]
        weights += [pruner.model.get_submodule(layer.norm).bias for layer in layers if layer.norm]
        for weight in weights:
            optimizer.state[weight]["momentum_buffer"] = 0.1 * torch.randn_like(weight)
        with torch.no_grad():
            before = pruner.model.eval()(images_of(family))
        if folds:
            assert folding.fold(optimizer) > 0
        pruner.detach()
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        with torch.no_grad():
            return (pruner.model(images_of(family)) - before) / lr

    change = step_after(False, 1e-6)
    torch.testing.assert_close(step_after(True, 1e-6), change, rtol=0, atol=1e-3 * float(change.abs().max()))


@pytest.mark.parametrize("compactors", ["dense", "diagonal"])
def test_other_optimisers_and_those_with_states_of_other_shapes_go_on(compactors: str) -> None:
    """The last stage has an optimiser of its own; Adafactor keeps sums over rows and columns of a matrix."""
    pruner = folding_pruner("residual, inner layers", flops_target=0.6, compactors=compactors)
    compactor_weights = {compactor.pwc.weight for compactor in pruner.compactors.values()}
    last_stage = set(pruner.model.stage3.parameters()) - compactor_weights
    parameters = list(pruner.model.parameters())
    others = torch.optim.Adam([p for p in parameters if p in last_stage], lr=1e-3)
    optimizer = torch.optim.Adafactor([p for p in parameters if p not in last_stage], lr=1e-3)
    pruner.attach(optimizer, others)
    kill(pruner, 0.5)
    went = []
    for seed in range(4):
        loss = F.cross_entropy(
            pruner.model.train()(images_of("residual, inner layers", seed)), torch.tensor([0, 1, 0, 1])
        )
        for each in (optimizer, others):
            each.zero_grad()
        loss.backward()
        for each in (optimizer, others):
            each.step()
        went.append(pruner.narrow())
    assert sum(went) > 0
    assert pruner.retired
    assert all(parameter.isfinite().all() for parameter in pruner.model.parameters())
    for parameter in others.state:
        assert others.state[parameter]["exp_avg"].shape == parameter.shape
    pruner.convert()
