"""Conversion: equal outputs in float64 and float32, the narrow network's names, and a proof that would notice."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from base_model import build_model
from rr.compactors import find_compactors
from rr.conversion import ConversionError, convert, converter, fold, folding, proof
from rr.conversion.proof import outputs_of
from rr.errors import InputError
from rr.graph import ChannelGraph, LiveModel
from tests.rr.networks import SIZES, Networks, generic, insert_generic_compactors, random_alive, tiny, trained_tiny

BIG = ("smi1", "smi1_cifar", "sres50")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["src20", "vc", "lenet5bn", *(pytest.param(name, marks=pytest.mark.long) for name in BIG)]
)
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


def test_dropping_what_matters_is_caught() -> None:
    model, graph, images, _ = trained_tiny(dead=0.0)
    with pytest.raises(ConversionError, match=r"rows under the threshold, .* still matter: .*cut_difference") as raised:
        convert(LiveModel(model, graph), images, threshold=float(np.median(LiveModel(model, graph).unit_norms()[:6])))
    assert isinstance(raised.value, InputError)  # a lower threshold puts it right


def test_a_wrong_conversion_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, images, _ = trained_tiny()
    fold_layer = folding.fold_layer

    def change_by(difference: float) -> None:
        def wrong(*arguments: object) -> nn.Module:
            layer = fold_layer(*arguments)
            with torch.no_grad():
                layer.weight.view(-1)[0] += difference
            return layer

        monkeypatch.setattr(folding, "fold_layer", wrong)

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


@pytest.mark.long
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

    monkeypatch.setattr(proof, "other_sizes", lambda inputs: iter(()))
    for module in (converter, proof):
        monkeypatch.setattr(module, "outputs_of", counted)
    before = bytes_in_memory()
    _, report = convert(LiveModel(model, graph), images)
    full = 8 * sum(tensor.numel() for tensor in model.state_dict().values())
    narrow = 8 * report.parameters_after
    assert len(held) == 5
    assert full < max(held) < 1.05 * full
    assert held[-1] < 2 * narrow


def test_what_is_converted_in_inference_mode_can_be_trained() -> None:
    model, images = generic(tiny()), torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        slim, _ = convert(LiveModel(model, ChannelGraph(model, images)), images)
    slim.train()(images).sum().backward()


def test_float64_models() -> None:
    model, graph, images, _ = trained_tiny()
    model.double()
    slim, report = convert(LiveModel(model, graph), images)
    assert {parameter.dtype for parameter in slim.parameters()} == {torch.float64}
    assert report.float64_difference <= 1e-14
    images = images.double()
    torch.testing.assert_close(slim(images), model(images), rtol=1e-12, atol=1e-13)


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


def test_the_slim_model_exports_and_takes_other_batches() -> None:
    model, graph, images, _ = trained_tiny()
    slim, _ = convert(LiveModel(model, graph), images)
    assert slim(torch.randn(7, 1, 10, 10)).shape == (7, 3)
    exported = torch.export.export(slim, (images,)).module()
    torch.testing.assert_close(exported(images), slim(images))


class KeepsAnActivation(nn.Module):
    """Adds the last activation of the first call, in whatever type that came, until it is trained anew."""

    def forward(self, x: Tensor) -> Tensor:
        kept = vars(self).setdefault("kept", torch.eye(x.shape[-1]).to(x))
        return x @ kept


def test_a_forward_that_fails_in_float32_is_a_users_mistake() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), KeepsAnActivation(), nn.Conv2d(4, 2, 1)).eval()
    images = torch.randn(2, 1, 6, 6)
    graph = ChannelGraph(copy.deepcopy(model), images)
    with pytest.raises(InputError, match="doesn't run in float32"):
        convert(LiveModel(model, graph), images)
