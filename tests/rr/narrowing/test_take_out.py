"""Dead channels taken out of a live model: the loss curve is that of the model with the rows kept at zero."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from base_model import build_model
from rr import ResRepConfig, ResRepPruner, paper_config
from rr.graph import LayerKind
from rr.weights import load_strict
from tests.long_cases import every_value_once
from tests.rr.narrowed import FAMILIES, OPTIMIZERS, kill, losses, pruner_of


def own_widths(pruner: ResRepPruner) -> dict[str, tuple[int, int]]:
    """Outputs of each layer with a compactor in the live model, and how many of them are alive."""
    layers = pruner.graph.layers
    sites = [site for site in pruner.graph.sites_of(pruner.selected) if layers[site.layer].kind.makes_channels]
    alive = pruner.unmasked.alive
    shapes = {site.layer: pruner.model.get_submodule(site.layer).weight.shape for site in sites}
    return {
        site.layer: (shapes[site.layer][layers[site.layer].kind is LayerKind.TRANSPOSED], int(alive[site.units].sum()))
        for site in sites
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    *every_value_once({"family": FAMILIES, "optimizer": OPTIMIZERS, "compactors": ("dense", "diagonal")})
)
def test_the_loss_curve_stays_what_it_was(family: str, optimizer: str, compactors: str) -> None:
    """Narrowed twice, some steps apart, with the optimiser's numbers of the steps before."""
    size = FAMILIES[family][2]
    curves, models = [], []
    for narrows in (False, True):
        pruner = pruner_of(*FAMILIES[family], compactors)
        attached = OPTIMIZERS[optimizer](pruner)
        pruner.attach(attached)
        curve = losses(pruner, attached, size, 2, seed=0)
        for share in (0.3, 0.4):
            alive = kill(pruner, share)
            assert not pruner.settled
            if narrows:
                places = [[id(parameter) for parameter in group["params"]] for group in attached.param_groups]
                assert pruner.narrow() > 0
                assert pruner.narrow() == 0
                assert pruner.settled == pruner.target_met
                assert places == [[id(parameter) for parameter in group["params"]] for group in attached.param_groups]
                assert (pruner.unmasked.alive == alive).all()
            curve += losses(pruner, attached, size, 3, seed=1)
        curves.append(curve)
        models.append(pruner)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-9, atol=1e-12)
    wide, narrow = models
    count = [sum(parameter.numel() for parameter in pruner.model.parameters()) for pruner in models]
    assert count[1] < 0.8 * count[0]
    if compactors == "diagonal":
        assert all(outputs == living for outputs, living in own_widths(narrow).values())
    slims = [pruner.convert() for pruner in models]
    assert narrow.report.widths == wide.report.widths
    assert narrow.report.macs_after == wide.report.macs_after
    assert narrow.report.parameters_before == wide.report.parameters_before
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(slims[1](images), slims[0](images), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("compactors", "narrow"), [("dense", "rows"), ("diagonal", "rows"), ("diagonal", "full")])
def test_a_narrowed_state_comes_back_in_another_process_and_at_full_width(compactors: str, narrow: str) -> None:
    family = (*FAMILIES["depthwise, squeeze and excite"], compactors, narrow)
    pruner = pruner_of(*family)
    optimizer = OPTIMIZERS["SGD"](pruner)
    pruner.attach(optimizer)
    losses(pruner, optimizer, 8, 2, seed=0)
    alive = kill(pruner, 0.5)
    pruner.narrow()
    losses(pruner, optimizer, 8, 1, seed=0)
    states = copy.deepcopy([pruner.state_dict(), pruner.model.state_dict(), optimizer.state_dict()])
    expected = losses(pruner, optimizer, 8, 2, seed=3)

    again = pruner_of(*family)
    attached = OPTIMIZERS["SGD"](again)
    again.attach(attached)
    for target, state in zip((again, again.model, attached), states, strict=True):
        target.load_state_dict(state)
    assert (again.unmasked.alive == alive).all()
    assert losses(again, attached, 8, 2, seed=3) == expected

    wide = pruner_of(*family)
    load_strict(wide.model, again.live.remaining.full_state(again.model.state_dict()), "the full state")
    images = torch.randn(2, 3, 8, 32, dtype=torch.float64)
    torch.testing.assert_close(wide.model.eval()(images), again.model.eval()(images), rtol=1e-12, atol=1e-12)
    assert (wide.unmasked.alive == alive).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_diagonal_compactors_retire_as_soon_as_all_is_dead(family: str) -> None:
    """Nothing has to be folded in between; in eval mode nothing changes."""
    size = FAMILIES[family][2]
    pruner = pruner_of(*FAMILIES[family], "diagonal", "full")
    optimizer = OPTIMIZERS["SGD"](pruner)
    pruner.attach(optimizer)
    losses(pruner, optimizer, size, 3, seed=0)
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    kill(pruner, 0.05)
    assert not pruner.target_met
    pruner.narrow()
    assert not pruner.retired
    assert not pruner.settled
    kill(pruner, 0.5)
    with torch.no_grad():
        before = pruner.model.eval()(images)
    assert pruner.target_met
    assert not pruner.settled
    assert pruner.narrow() > 0
    assert pruner.settled
    assert pruner.retired == (family != "all sorts")  # a grouped convolution has its compactor in blocks
    torch.testing.assert_close(pruner.model.eval()(images), before, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(pruner.convert()(images), before, rtol=1e-9, atol=1e-10)
    assert np.isfinite(losses(pruner, optimizer, size, 2, seed=1)).all()


@pytest.mark.slow
def test_only_what_is_masked_and_has_died_goes_and_in_multiples() -> None:
    torch.manual_seed(0)
    config = paper_config(flops_target=0.6, narrow="rows", width_multiple=8)
    pruner = ResRepPruner(build_model("src20"), torch.randn(2, 3, 32, 32), config)
    assert pruner.narrow() == 0
    compactor = pruner.compactors["stage1.block0.conv1"]
    with torch.no_grad():
        compactor.mask[:9] = 0
        compactor.pwc.weight[:4] *= 1e-6
        assert pruner.narrow() == 0  # 4 of 16 dead: no multiple yet
        compactor.pwc.weight[:9] *= 1e-6
        compactor.pwc.weight[12] *= 1e-6  # dead, but not masked
    assert pruner.narrow() == 8
    assert not pruner.settled  # the target isn't met
    assert compactor.pwc.weight.shape == (8, 16, 1, 1)
    assert compactor.mask.tolist() == [0] + [1] * 7


@pytest.mark.slow
def test_a_parameter_whose_gradient_node_is_held_is_narrowed_too() -> None:
    """DistributedDataParallel holds on to the node that adds up a parameter's gradient, and that knows the shape."""
    pruner = pruner_of(*FAMILIES["dense"])
    optimizer = OPTIMIZERS["SGD"](pruner)
    pruner.attach(optimizer)
    held = [parameter.expand_as(parameter).grad_fn for parameter in pruner.model.parameters()]
    losses(pruner, optimizer, 8, 1, seed=0)
    kill(pruner, 0.5)
    assert pruner.narrow() > 0
    losses(pruner, optimizer, 8, 1, seed=0)
    assert held


def test_devices_without_float64_get_no_tensor_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MPS, whose refusal `new_empty` has here."""
    pruner = pruner_of(*FAMILIES["dense"])
    pruner.model.float()
    pruner.attach(OPTIMIZERS["SGD"](pruner))
    new_empty = torch.Tensor.new_empty

    def as_on_mps(tensor: torch.Tensor, *size: object, dtype: torch.dtype | None = None) -> torch.Tensor:
        if dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        return new_empty(tensor, *size, dtype=dtype)

    monkeypatch.setattr(torch.Tensor, "new_empty", as_on_mps)
    kill(pruner, 0.5)
    assert pruner.narrow() > 0


@pytest.mark.slow
def test_a_compiled_network_and_an_average_follow() -> None:
    """The same steps as without the compiler, and an average of the weights that stays one, and converts."""
    curves = []
    for compiles in (False, True):
        pruner = pruner_of(*FAMILIES["dense"])
        optimizer = OPTIMIZERS["SGD"](pruner)
        pruner.attach(optimizer)
        average = AveragedModel(pruner.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        network = torch.compile(pruner.model, backend="eager") if compiles else pruner.model
        generator = torch.Generator().manual_seed(0)
        curve = []
        for count in range(8):
            images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator)
            loss = F.cross_entropy(network.train()(images), torch.tensor([0, 1, 0, 1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(pruner.model)
            curve.append(loss.item())
            if count in (2, 5):
                kill(pruner, 0.4, seed=count)
                assert pruner.narrow(also=[average.module]) > 0
        curves.append(curve)
        shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (average.module, pruner.model)]
        assert shapes[0] == shapes[1]
        slim, report = pruner.convert(average), pruner.report
        assert report.float64_difference <= 1e-12
        assert slim.c1.in_channels == pruner.convert().c1.in_channels < 8
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_without_the_setting_nothing_can_be_taken_out() -> None:
    pruner = ResRepPruner(build_model("src20"), torch.randn(2, 3, 32, 32), ResRepConfig())
    with pytest.raises(ValueError, match="narrow='rows'"):
        pruner.narrow()
