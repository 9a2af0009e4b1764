"""Folding: equal outputs in float64 and float32, the narrow network's names, and a proof that would notice."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from base_model import build_model
from rr import ResRepPruner, explain, paper_config
from rr.compactors import find_compactors
from rr.conversion import ConversionError, alive_units, convert, converter, fold, folding, proof, rehearse
from rr.conversion.proof import exact_copy, outputs_of
from rr.conversion.rehearsal import _at_fault
from rr.graph import ChannelGraph, Group, LiveModel
from tests.rr.networks import SIZES, Net, Networks, conv, generic, insert_generic_compactors, random_alive, tiny


def trained_tiny(dead: float = 0.5) -> tuple[nn.Module, ChannelGraph, Tensor, np.ndarray]:
    """The tiny network with dense compactors, a share `dead` of whose rows is zero."""
    torch.manual_seed(0)
    model, images = generic(tiny()).eval(), torch.randn(4, 1, 8, 8)
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, dead)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    return model, graph, images, alive


@pytest.mark.slow
@pytest.mark.parametrize("name", ["src20", "vc", "lenet5bn", "smi1", "smi1_cifar", "sres50"])
@pytest.mark.parametrize("layers", ["internal", "all"])
def test_every_family_converts_exactly(name: str, layers: str, traced: Networks) -> None:
    plain, images, graph = traced[name]
    model = copy.deepcopy(plain)
    selected = graph.select(layers)
    alive = random_alive(graph, selected, 0.5)
    insert_generic_compactors(model, graph, selected, alive)
    slim, report = convert(LiveModel(model, graph), images)

    assert report.float64_difference <= 1e-12
    assert report.cut_difference == 0
    assert report.float32_difference <= max(1e-5, 10 * report.float32_own_error)
    assert list(report.widths) == graph.widths(alive)
    assert report.dropped == (~alive).sum() > 0.4 * selected.sum()
    assert report.macs_after == graph.macs(alive) < report.macs_before
    assert report.parameters_after == sum(parameter.numel() for parameter in slim.parameters())
    assert report.parameters_before == sum(parameter.numel() for parameter in plain.parameters())

    assert not any(isinstance(module, _BatchNorm) for module in slim.modules())
    assert not find_compactors(slim)
    built = build_model(name, report.widths, num_classes=10, image_size=SIZES[name], folded=True).eval()
    assert {key: tensor.shape for key, tensor in built.state_dict().items()} == {
        key: tensor.shape for key, tensor in slim.state_dict().items()
    }
    built.load_state_dict(slim.state_dict())
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(built(images), slim(images))
    scale = expected.abs().max()
    assert (slim(images) - expected).abs().max() <= 1e-4 * scale


def test_nothing_dropped_is_exact_too() -> None:
    model, graph, images, _ = trained_tiny(dead=0.0)
    _, report = convert(LiveModel(model, graph), images)
    assert (report.dropped, report.largest_dropped, report.macs_ratio) == (0, 0.0, 1.0)
    assert report.float64_difference <= 1e-14


def test_a_plain_model_is_folded_as_it_is() -> None:
    model, images = generic(tiny(bias=True)).eval(), torch.randn(4, 1, 8, 8)
    slim, report = convert(LiveModel(model, ChannelGraph(model, images)), images)
    assert report.float64_difference <= 1e-14
    assert [type(module) for module in slim][:3] == [nn.Conv2d, nn.Identity, nn.ReLU]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_is(training: bool) -> None:
    model, graph, images, _ = trained_tiny()
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    slim, _ = convert(LiveModel(model, graph), images)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training == training for module in model.modules())
    assert not any(module.training for module in slim.modules())
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for parameter in slim.parameters():
        assert parameter.requires_grad
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["src20", "smi1_cifar"])
def test_each_layer_keeps_a_channel_when_all_its_rows_are_dead(name: str, traced: Networks) -> None:
    plain, images, graph = traced[name]
    model = copy.deepcopy(plain)
    selected = graph.select("all")
    compactors = insert_generic_compactors(model, graph, selected, np.ones(graph.num_units, dtype=bool))
    with torch.no_grad():
        for compactor in compactors.values():
            compactor.pwc.weight.mul_(1e-9)
            compactor.pwc.weight[-2].mul_(5)  # the highest of the layer stays
    alive = alive_units(LiveModel(model, graph), LiveModel(model, graph).unit_norms(), 1e-5)
    for group in graph.groups:
        assert alive[group.units].sum() >= 1
        if selected[group.units].all() and len(group.units) > 2:
            assert np.flatnonzero(alive[group.units]).tolist() == [len(group.units) - 2]
    _, report = convert(LiveModel(model, graph), images)
    assert set(report.widths) == {1}
    assert report.float64_difference <= 1e-12


def test_rows_are_dropped_under_the_threshold_only() -> None:
    model, graph, images, _ = trained_tiny(dead=0.0)
    compactor = find_compactors(model)["1"]
    with torch.no_grad():
        for row, norm in ((0, 9e-6), (2, 2e-5), (3, 8e-6)):
            compactor.pwc.weight[row] *= norm / compactor.pwc.weight[row].norm()
    _, report = convert(LiveModel(model, graph), images)
    assert report.widths == (4, 8)
    assert report.dropped == 2
    assert report.largest_dropped == pytest.approx(9e-6, rel=1e-6)
    assert 0 < report.cut_difference < 1e-4
    assert convert(LiveModel(model, graph), images, threshold=3e-5)[1].widths == (3, 8)
    assert convert(LiveModel(model, graph), images, threshold=8.5e-6)[1].widths == (5, 8)


def test_dropping_what_matters_is_caught() -> None:
    model, graph, images, _ = trained_tiny(dead=0.0)
    with pytest.raises(ConversionError, match="cut_difference"):
        convert(LiveModel(model, graph), images, threshold=float(np.median(LiveModel(model, graph).unit_norms()[:6])))


def test_a_wrong_conversion_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, images, _ = trained_tiny()
    fold_layer = folding._fold_layer

    def change_by(difference: float) -> None:
        def wrong(*arguments: object) -> nn.Module:
            layer = fold_layer(*arguments)
            with torch.no_grad():
                layer.weight.view(-1)[0] += difference
            return layer

        monkeypatch.setattr(folding, "_fold_layer", wrong)

    change_by(0.0)
    convert(LiveModel(model, graph), images)
    change_by(1e-6)
    with pytest.raises(ConversionError, match="float64_difference"):
        convert(LiveModel(model, graph), images)
    assert convert(LiveModel(model, graph), images, prove=False)[1].float64_difference is None
    change_by(float("nan"))
    with pytest.raises(ConversionError, match="float64_difference is nan"):
        convert(LiveModel(model, graph), images)
    monkeypatch.setattr(converter, "FLOAT64_TOLERANCE", 1.0)
    change_by(1e-3)
    with pytest.raises(ConversionError, match="float32_difference"):
        convert(LiveModel(model, graph), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_without_proof_it_is_the_same_model(dtype: torch.dtype) -> None:
    """Folded in float64 and rounded once."""
    model, graph, images, alive = trained_tiny()
    model.to(dtype)
    proven, _ = convert(LiveModel(model, graph), images)
    exact = fold(LiveModel(model, graph), alive).state_dict()
    assert {tensor.dtype for tensor in exact.values()} == {torch.float64}
    assert all(torch.equal(tensor, exact[name].to(dtype)) for name, tensor in proven.state_dict().items())
    quick, report = convert(LiveModel(model, graph), images, prove=False)
    assert all(torch.equal(tensor, quick.state_dict()[name]) for name, tensor in proven.state_dict().items())
    assert report.float64_difference is report.float32_difference is report.cut_difference is None


@pytest.mark.slow
def test_memory_holds_one_float64_copy_of_the_model(monkeypatch: pytest.MonkeyPatch, traced: Networks) -> None:
    """Whenever outputs have been computed there is no more than one copy in float64 beside the model."""
    plain, images, graph = traced["src20"]
    model = copy.deepcopy(plain)
    alive = random_alive(graph, graph.select("all"), 0.5)
    insert_generic_compactors(model, graph, graph.select("all"), alive)
    held = []

    def counted(*arguments: object) -> list[Tensor]:
        outputs = outputs_of(*arguments)
        held.append(bytes_in_memory() - before)
        return outputs

    def bytes_in_memory() -> int:
        gc.collect()
        tensors = [item for item in gc.get_objects() if type(item) in (Tensor, nn.Parameter)]
        storages = {item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in tensors}
        return sum(storages.values())

    for module in (converter, proof):
        monkeypatch.setattr(module, "outputs_of", counted)
    before = bytes_in_memory()
    _, report = convert(LiveModel(model, graph), images)
    full = 8 * sum(tensor.numel() for tensor in model.state_dict().values())
    narrow = 8 * report.parameters_after
    assert len(held) == 5 * len(report.proven_at) == 25
    assert full < max(held) < 1.1 * full  # with the inputs and outputs of several sizes
    assert held[-1] < 2 * narrow


def test_an_exact_copy_is_one_in_all_but_its_type() -> None:
    model = nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 4)).bfloat16()
    model[3].weight = model[2].weight
    model[0].requires_grad_(False)
    exact, expected = exact_copy(model), copy.deepcopy(model).double()
    assert exact[3].weight is exact[2].weight
    assert exact[1].num_batches_tracked.dtype == torch.int64
    assert [parameter.requires_grad for parameter in exact.parameters()] == [False] * 2 + [True] * 5
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in exact.state_dict().items())
    exact = exact_copy(model.double())
    assert not {tensor.data_ptr() for tensor in exact.parameters()} & {item.data_ptr() for item in model.parameters()}


def test_buffers_of_a_folded_layer_are_its_own() -> None:
    """Also those that its class has beside weight and bias: in the model's type, not rounded to float32 on the way."""

    class Conv(nn.Conv2d):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            self.register_buffer("table", torch.full((1,), 1 / 3, dtype=torch.float64))

    torch.manual_seed(0)
    model = nn.Sequential(Conv(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    images = torch.randn(2, 1, 8, 8)
    slim, _ = convert(LiveModel(model, ChannelGraph(model, images)), images)
    assert slim[0].table.item() == 1 / 3
    slim[0].table.zero_()
    assert model[0].table.item() == 1 / 3


def test_float64_models() -> None:
    model, graph, images, _ = trained_tiny()
    model.double()
    slim, report = convert(LiveModel(model, graph), images)
    assert {parameter.dtype for parameter in slim.parameters()} == {torch.float64}
    assert report.float64_difference <= 1e-14
    images = images.double()
    torch.testing.assert_close(slim(images), model(images), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.5])
def test_the_bns_own_eps_counts(eps: float) -> None:
    model, graph, images, _ = trained_tiny()
    model[1].eps = model[4].eps = eps
    model[1].running_var.uniform_(0, 1e-3)
    assert convert(LiveModel(model, graph), images)[1].float64_difference <= 1e-12


def test_a_bn_that_stands_alone_is_narrowed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(1, 8), nn.ReLU(), nn.BatchNorm2d(8), conv(8, 4, 1), nn.Flatten(), nn.Linear(144, 2))
    generic(model).eval()
    images = torch.randn(2, 1, 6, 6)
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert slim[2].num_features == len(slim[2].running_mean) == slim[3].in_channels == report.widths[0] < 8


def test_what_was_frozen_stays_so_and_nothing_else() -> None:
    """For training on: in each layer, BN that stands alone and parameter per channel, half of it dead."""
    torch.manual_seed(0)
    layers = [conv(1, 8), nn.PReLU(8), nn.BatchNorm2d(8), conv(8, 8, 1), nn.PReLU(8), nn.BatchNorm2d(8), conv(8, 4, 1)]
    model = generic(nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 2))).eval()
    model[:3].requires_grad_(False)
    images = torch.randn(2, 1, 6, 6)
    graph = ChannelGraph(model, images)
    insert_generic_compactors(model, graph, graph.prunable, random_alive(graph, graph.prunable, 0.5))
    slim, _ = convert(LiveModel(model, graph), images)
    assert slim[1].num_parameters == len(slim[1].weight) < 8
    assert {name for name, parameter in slim.named_parameters() if not parameter.requires_grad} == {
        name for name, _ in slim.named_parameters() if int(name.split(".")[0]) < 3
    }


def test_flatten_with_several_pixels_per_channel(traced: Networks) -> None:
    """LeNet's second convolution leaves 4 x 4 pixels: a dead channel takes 16 columns of the linear layer."""
    plain, images, graph = traced["lenet5bn"]
    model = copy.deepcopy(plain)
    alive = np.ones(graph.num_units, dtype=bool)
    alive[graph.layers["conv2.conv"].out_units[[0, 7, 49]]] = False
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert slim.linear1.in_features == 47 * 16
    assert report.float64_difference <= 1e-12


def test_norms_of_units_with_several_rows(traced: Networks) -> None:
    """Root mean square over the rows of all layers that add into a stream; infinite where one has no compactor."""
    plain, _, graph = traced["src20"]
    model = copy.deepcopy(plain)
    everything = np.ones(graph.num_units, dtype=bool)
    compactors = insert_generic_compactors(model, graph, graph.select("all"), everything)
    hosts = ["stage1.conv1", *(f"stage1.block{block}.conv2" for block in range(3))]
    rows = torch.stack([compactors[host].matrix.double().norm(dim=1) for host in hosts])
    units = graph.layers["stage1.conv1.conv"].out_units
    np.testing.assert_allclose(
        LiveModel(model, graph).unit_norms()[units], rows.square().mean(0).sqrt().detach(), rtol=1e-12
    )
    without = LiveModel(model, graph)
    del without.compactors["stage1.block1.conv2"]
    assert np.isinf(without.unit_norms()[units]).all()


def test_the_report_is_plain() -> None:
    model, graph, images, _ = trained_tiny()
    _, report = convert(LiveModel(model, graph), images)
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["widths"] == list(report.widths)
    assert plain["macs_ratio"] == report.macs_after / report.macs_before


def test_the_slim_model_exports_and_takes_other_batches() -> None:
    model, graph, images, _ = trained_tiny()
    slim, _ = convert(LiveModel(model, graph), images)
    assert slim(torch.randn(7, 1, 10, 10)).shape == (7, 3)
    exported = torch.export.export(slim, (images,)).module()
    torch.testing.assert_close(exported(images), slim(images))


def test_layers_before_a_size_of_the_forwards_own_stay(caplog: pytest.LogCaptureFixture) -> None:
    """`view(-1, 96)` holds for six channels alone, `view(len(x), -1)` for any number: known before training."""

    def build(size: int) -> Net:
        return Net(
            lambda net, x: net.fc(F.relu(net.b(F.relu(net.a(x)))).view(len(x), size)),
            a=conv(1, 5),
            b=conv(5, 6),
            fc=nn.Linear(6 * 16, 3),
        )

    images = torch.randn(2, 1, 4, 4)
    pruner = ResRepPruner(build(96), images, paper_config(flops_target=0.8))
    assert set(pruner.compactors) == {"a"}
    assert "b stays as wide as it is: its forward fails with fewer channels" in caplog.text
    assert "its forward fails with fewer channels" in explain(pruner.graph)
    model = build(-1)
    before = copy.deepcopy(model.state_dict())
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.5))
    assert set(pruner.compactors) == {"a", "b"}
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    assert (pruner.unmasked.alive).all()


def test_a_forward_that_takes_other_channels_when_there_are_fewer_is_found_out() -> None:
    """A slice to a number fails for no width: it would silently take the wrong half."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.fc(torch.cat([net.a(x)[:, 4:], net.a(x)[:, :4]], 1).mean((2, 3)) * net.b(x).mean((2, 3))),
        a=conv(1, 8),
        b=conv(1, 8),
        fc=nn.Linear(8, 3),
    )
    graph = ChannelGraph(model, torch.randn(2, 1, 4, 4))
    assert graph.prunable[graph.layers["a"].out_units].all()
    graph = rehearse(model, graph, torch.randn(2, 1, 4, 4), graph.prunable)
    assert not graph.prunable[graph.layers["a"].out_units].any()


def test_the_rehearsal_blames_few_groups_in_few_trials() -> None:
    groups = [Group(np.array([unit]), (f"layer{unit}",)) for unit in range(64)]
    trials = []

    def failure(tried: Sequence[Group]) -> str | None:
        trials.append(tried)
        return "no" if any(group.units[0] in (3, 40) for group in tried) else None

    assert [(int(group.units[0]), reason) for group, reason in _at_fault(groups, failure)] == [(3, "no"), (40, "no")]
    assert len(trials) < 30
    assert _at_fault(groups[:2], lambda tried: "both" if len(tried) == 2 else None) == [
        (groups[0], "both"),
        (groups[1], "both"),
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_types_are_proven_and_keep_their_type(dtype: torch.dtype) -> None:
    model, graph, images, alive = trained_tiny()
    slim, report = convert(LiveModel(model.to(dtype), graph), images)
    assert report.float64_difference <= 1e-12
    assert report.float32_difference <= 1e-5
    assert report.dropped == (~alive).sum()
    assert {parameter.dtype for parameter in slim.parameters()} == {dtype}
    expected, found = model(images.to(dtype)).double(), slim(images.to(dtype)).double()
    assert (expected - found).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()
