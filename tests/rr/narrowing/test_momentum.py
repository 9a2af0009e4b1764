"""What optimisers keep of folded parameters leads where it would have led."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner
from tests.rr.folded import Folding, dense_layers, folding_pruner, images_of
from tests.rr.narrowed import FAMILIES, OPTIMIZERS, kill, losses

Momenta = dict[nn.Parameter, Tensor]


def random_momenta(pruner: ResRepPruner) -> Momenta:
    """Of the filters and betas."""
    layers = [pruner.graph.layers[name] for name in dense_layers(pruner)]
    weights = [pruner.model.get_submodule(layer.name).weight for layer in layers]
    weights += [pruner.model.get_submodule(layer.norm).bias for layer in layers if layer.norm]
    return {weight: 0.1 * torch.randn_like(weight) for weight in weights}


def momenta_along_gammas(pruner: ResRepPruner) -> Momenta:
    """All gammas of a BN shrink by one factor: what comes out of it, mixed or not, shrinks with them."""
    norms = [pruner.graph.layers[name].norm for name in dense_layers(pruner)]
    gammas = [pruner.model.get_submodule(norm).weight for norm in norms if norm]
    return {gamma: 0.1 * float(torch.rand(())) * gamma.detach() for gamma in gammas}


def momenta_along_rows(pruner: ResRepPruner) -> Momenta:
    """Each row of a compactor shrinks, as the penalty has it."""
    hosts = [pruner.graph.sites[name].host for name in dense_layers(pruner)]
    weights = [pruner.compactors[host].pwc.weight for host in hosts]
    return {weight: 0.1 * torch.rand(len(weight), 1, 1, 1) * weight.detach() for weight in weights}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "momenta"),
    [
        *((family, momenta) for family in FAMILIES for momenta in (random_momenta, momenta_along_rows)),
        ("residual, inner layers", momenta_along_gammas),
        ("residual streams", momenta_along_gammas),
        ("depthwise, squeeze and excite", momenta_along_gammas),
    ],
)
def test_momentum_leads_where_it_would_have_led(family: str, momenta: Callable[[ResRepPruner], Momenta]) -> None:
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
        weights = momenta(pruner)
        assert weights
        for weight, buffer in weights.items():
            optimizer.state[weight]["momentum_buffer"] = buffer
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
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(step_after(True, 1e-6), change, rtol=0, atol=1e-3 * float(change.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_squared_gradients_are_averaged(family: str) -> None:
    """Over what was mixed, by its parts: where all are alike, they stay what they are; none gets negative."""
    pruner = folding_pruner(family)
    optimizer = OPTIMIZERS["AdamW"](pruner)
    pruner.attach(optimizer)
    kill(pruner, 0.5)
    pruner.narrow()
    losses(pruner, optimizer, FAMILIES[family][2], 1, seed=0)
    folding = Folding(pruner)
    pruner.model.train()(images_of(family))
    for state in optimizer.state.values():
        state["exp_avg_sq"] = torch.full_like(state["exp_avg_sq"], 0.3)
    assert folding.fold(optimizer) > 0
    for parameter, state in optimizer.state.items():
        torch.testing.assert_close(state["exp_avg_sq"], torch.full_like(parameter, 0.3))
        assert state["max_exp_avg_sq"].shape == parameter.shape
        assert state["max_exp_avg_sq"].min() >= 0


@pytest.mark.slow
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
