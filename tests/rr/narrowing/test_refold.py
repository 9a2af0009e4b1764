"""Compactors folded in mid-run: the same network in eval mode, nearly the same in training, and steps that go on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from base_model import build_model
from rr import ResRepPruner, paper_config
from rr.conversion import ConversionError
from rr.narrowing.refold import outputs_of_layer
from rr.weights import load_strict
from tests.rr.narrowed import FAMILIES, OPTIMIZERS, Folding, kill, losses
from tests.rr.networks import Net, conv, generic, head
from tests.rr.pruners import set_masks


def pruner_of(family: str, **settings: object) -> ResRepPruner:
    """A network in float64 with compactors that are no identity any more."""
    build, layers, size = FAMILIES[family]
    torch.manual_seed(0)
    model = generic(build()).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    settings = {"flops_target": 0.2, "rows_per_update": 10**6, **settings}
    config = paper_config(layers=layers, narrow="full", **settings)
    pruner = ResRepPruner(model, torch.randn(2, 3, size, size), config)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight += 0.2 * torch.randn_like(compactor.pwc.weight)
    return pruner


def images_of(family: str, seed: int = 0, number: int = 4) -> torch.Tensor:
    size = FAMILIES[family][2]
    return torch.randn(number, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense_layers(pruner: ResRepPruner) -> dict[str, tuple[int, int]]:
    """Alive outputs and all outputs of each layer with a dense compactor."""
    sites = [name for name, site in pruner.graph.sites.items() if site.groups == 1 and site.host in pruner.compactors]
    return {name: outputs_of_layer(pruner.live, name) for name in sites}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_in_eval_mode_nothing_changes_and_layers_get_their_width(family: str, optimizer: str) -> None:
    """Folded twice, the second time with fewer rows; what is converted is what would have been converted before."""
    pruner = pruner_of(family)
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


def test_rows_keep_their_norms_and_filters_their_length() -> None:
    """Scores, penalty and learning rate go on as they were."""
    pruner = pruner_of("residual, inner layers")
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


@pytest.mark.parametrize("family", FAMILIES)
def test_training_goes_on_in_nearly_the_same_function(family: str) -> None:
    """On the batch whose variance was measured, and with running statistics of that batch, it is the same function."""
    pruner = pruner_of(family)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_momentum_leads_where_it_would_have_led(family: str) -> None:
    """A step by momentum alone, in eval mode: before the fold and after it, outputs change alike, to first order."""

    def step_after(folds: bool, lr: float) -> torch.Tensor:
        pruner = pruner_of(family)
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


def test_folding_waits_for_the_end_of_dying() -> None:
    """A fold while others still die disturbs the training; when nothing more is to die, all layers are folded."""
    pruner = pruner_of("residual, inner layers", flops_target=0.6)
    set_masks(pruner, np.ones(pruner.graph.num_units, dtype=bool))
    layer = "stage3.block1.conv1.conv"
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_was_killed_goes_on_bit_by_bit(optimizer: str) -> None:
    """Between two folds, while the next one is being measured: compactors that can't retire are folded again."""
    family = "all sorts"
    pruner = pruner_of(family, flops_target=0.95)
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
    again = pruner_of(family, flops_target=0.95)
    afresh = OPTIMIZERS[optimizer](again)
    again.attach(afresh)
    for target, state in zip((again, again.model, afresh), states, strict=True):
        target.load_state_dict(state)
    assert (again.unmasked.alive == alive).all()
    assert go_on(again, afresh) == expected

    wide = pruner_of(family, flops_target=0.95)
    load_strict(wide.model, again.live.remaining.full_state(again.model.state_dict()), "the full state")
    images = images_of(family)
    torch.testing.assert_close(wide.model.eval()(images), again.model.eval()(images), rtol=1e-9, atol=1e-10)
    wide.convert()
    again.convert()
    assert wide.report.widths == again.report.widths


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"all sorts"}))
def test_in_the_end_a_plain_network_is_left(family: str, optimizer: str) -> None:
    """The compactors retire: in eval mode nothing changes, in training no step runs or trains them, masks stay."""
    pruner = pruner_of(family, flops_target=0.6)
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

    again = pruner_of(family, flops_target=0.6)
    afresh = OPTIMIZERS[optimizer](again)
    again.attach(afresh)
    for target, state in zip((again, again.model, afresh), states, strict=True):
        target.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(again.convert()(images), expected, rtol=1e-9, atol=1e-10)
    assert losses(again, afresh, size, 3, seed=2) == found
    assert again.retired
    again.attach(afresh)  # frozen compactors are no mistake now


def test_compactors_that_cannot_go_into_what_is_before_them_stay() -> None:
    """A block-diagonal one behind a grouped convolution: outputs go from the others, and training goes on with all."""
    pruner = pruner_of("all sorts", flops_target=0.6)
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


@pytest.mark.parametrize("compactors", ["dense", "diagonal"])
def test_other_optimisers_and_those_with_states_of_other_shapes_go_on(compactors: str) -> None:
    """The last stage has an optimiser of its own; Adafactor keeps sums over rows and columns of a matrix."""
    pruner = pruner_of("residual, inner layers", flops_target=0.6, compactors=compactors)
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


def test_a_row_that_is_zero_but_stays_keeps_its_channel() -> None:
    """Widths in multiples keep some; their masks may change again, so that there must be something before them."""
    pruner = pruner_of("residual, inner layers", width_multiple=8, flops_target=0.35)
    host = "stage3.block1.conv1"
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


@pytest.mark.slow
def test_a_compiled_network_and_an_average_follow() -> None:
    curves = []
    family = "dense"
    for compiles in (False, True):
        pruner = pruner_of(family)
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


def test_a_fold_that_would_change_the_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = pruner_of("residual, inner layers")
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
