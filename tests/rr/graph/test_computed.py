"""Layers that compute their weight from parameters: pruned like plain ones, and plain ones once converted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from rr import InputError, ResRepPruner, fast_config, load_converted, save_converted
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from rr.graph.vanishing import may_vanish
from rr.narrowing.take_out import silent_units
from tests.long_cases import all_long_but
from tests.rr.networks import generic, insert_generic_compactors, random_alive

Make = Callable[[int, int], nn.Module]


class EqualConv(nn.Module):
    """Equalised learning rate (StyleGAN), in a module that is no convolution by its class."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs, 3, 3)), nn.Parameter(torch.randn(outputs))
        self.scale = 1 / math.sqrt(9 * inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias * 0.5, padding=1)


class EqualLinear(nn.Module):
    """The same, linear."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.25, self.bias)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation: parameters of the very shapes that a plain convolution has."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)


class LowRank(nn.Module):
    """LoRA: a frozen convolution and what is learnt beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs * 9)), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight + (self.up @ self.down).view(self.conv.weight.shape)
        return self.conv._conv_forward(x, weight, self.conv.bias)


class BiasTwice(nn.Conv2d):
    """Its weight as it is, but another bias than it has."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias * 2, padding=self.padding)


class Branches(nn.Module):
    """A 3x3 and a 1x1 kernel, added before the convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * 0.1)
        self.small = nn.Parameter(torch.randn(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.large + F.pad(self.small, (1, 1, 1, 1)), padding=1)


def by_hook(inputs: int, outputs: int) -> nn.Module:
    """A hook of a user's own sets the weight before each forward."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    layer.register_parameter("weight_orig", nn.Parameter(layer.weight.detach().clone()))
    del layer._parameters["weight"]

    def set_weight(module: nn.Module, _: object) -> None:
        module.weight = module.weight_orig * 0.5

    layer.register_forward_pre_hook(set_weight)
    set_weight(layer, None)
    return layer


def pruned(inputs: int, outputs: int) -> nn.Module:
    """Single weights masked by torch's own pruning."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    prune.random_unstructured(layer, "weight", 0.3)
    return layer


def transposed(inputs: int, outputs: int) -> nn.Module:
    """With all options, and another stride in each dimension."""
    layer = nn.ConvTranspose2d(inputs, outputs, 3, stride=(2, 1), padding=1, output_padding=(1, 0), dilation=1)
    return parametrizations.weight_norm(layer)


def _conv(inputs: int, outputs: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1} | options)


KINDS: dict[str, Make] = {
    "equalised": EqualConv,
    "standardised": lambda i, o: StandardisedConv(i, o, 3, padding=1),
    "low rank": LowRank,
    "bias alone": lambda i, o: BiasTwice(i, o, 3, padding=1),
    "branches": Branches,
    "by a hook": by_hook,
    "masked": pruned,
    "weight norm, old": lambda i, o: weight_norm(_conv(i, o)),
    "weight norm": lambda i, o: parametrizations.weight_norm(_conv(i, o, padding="same", dilation=2)),
    "spectral norm, old": lambda i, o: spectral_norm(_conv(i, o)),
    "spectral norm": lambda i, o: parametrizations.spectral_norm(_conv(i, o)),
    "orthogonal": lambda i, o: parametrizations.orthogonal(_conv(i, o)),
    "transposed": transposed,
    "grouped": lambda i, o: parametrizations.weight_norm(_conv(i, o, groups=3 if i == 3 else 4)),
}
OF_EACH_SORT = ("standardised", "low rank", "branches", "by a hook", "weight norm, old", "spectral norm", "transposed")
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")


def build(make: Make) -> nn.Sequential:
    """Two such layers, one with a BN, between plain ones; the classifier computes its weight as well."""
    torch.manual_seed(0)
    layers = [make(12, 12), nn.BatchNorm2d(12), nn.ReLU(), make(12, 8), nn.ReLU()]
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), EqualLinear(8, 6), nn.ReLU(), EqualLinear(6, 3)]
    return generic(nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), *layers, *ends)).eval()


def half_converted(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with generic compactors, converted, half of the units that may go dead."""
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    return convert(LiveModel(model, graph), images)[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", all_long_but(KINDS, *OF_EACH_SORT))
def test_they_are_pruned_and_become_plain_layers(kind: str, tmp_path: Path) -> None:
    model, images = build(KINDS[kind]), torch.randn(2, 3, 9, 7)
    expected = model(images)
    graph = ChannelGraph(model, images)
    assert set(graph.computed) == {"2", "5", "9", "11"}
    assert torch.equal(model(images), expected)  # it is as it was
    assert all(graph.prunable[graph.layers[name].out_units].all() for name in ("0", "2", "5", "9"))
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert report.dropped == (~alive).sum() > 0
    gained = 12 if kind == "branches" else 0  # without a bias, one is counted that constants might ask for
    assert graph.parameters(alive) - gained <= report.parameters_after <= graph.parameters(alive)
    assert report.parameters_after == sum(p.numel() for p in slim.parameters())
    assert report.parameters_before == sum(p.numel() for p in build(KINDS[kind]).parameters())
    assert type(slim[2]) is (nn.ConvTranspose2d if kind == "transposed" else nn.Conv2d)
    assert type(slim[9]) is nn.Linear
    for suffix in ("hdf5", "pth"):
        save_converted(tmp_path / f"narrow.{suffix}", slim)
        again = load_converted(tmp_path / f"narrow.{suffix}", build(KINDS[kind]))
        assert torch.equal(again(images), slim(images))
    assert ChannelGraph(slim, images).num_units == alive.sum()


@pytest.mark.slow
def test_what_their_shape_hides_a_state_dict_says(tmp_path: Path) -> None:
    """A standardised convolution would standardise a plain one's weight once more, without a word."""
    model, images = build(KINDS["standardised"]), torch.randn(2, 3, 9, 7)
    slim = half_converted(model, images)
    torch.save(slim.state_dict(), tmp_path / "state.pth")
    assert torch.equal(load_converted(tmp_path / "state.pth", build(KINDS["standardised"]))(images), slim(images))
    slim[2] = StandardisedConv(slim[2].in_channels, slim[2].out_channels, 3, padding=1)
    with pytest.raises(RuntimeError, match="plain_layer"):
        slim.load_state_dict(torch.load(tmp_path / "state.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", all_long_but(["standardised", "weight norm, old", "spectral norm"], "standardised"))
def test_a_training_run_with_narrowing(kind: str) -> None:
    """They train on as what they are; layers beside them get narrow, they don't until the conversion."""
    torch.manual_seed(0)
    model, images = build(KINDS[kind]), torch.randn(2, 3, 9, 7)
    model.insert(0, nn.Conv2d(3, 16, 3, padding=1))
    model[1] = nn.Conv2d(16, 12, 1)
    config = fast_config(flops_target=0.5, narrow="full").for_run(40, lr=0.01)
    pruner = ResRepPruner(model, images, config)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.01, momentum=0.9))
    pruner.attach(optimizer)
    for _ in range(40):
        loss = F.cross_entropy(model.train()(torch.randn(8, 3, 9, 7)), torch.randint(3, (8,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.narrow()
    slim = pruner.convert()
    assert pruner.report.float64_difference <= 1e-12
    assert pruner.report.macs_after <= 0.5 * pruner.report.macs_before
    assert tuple(model[3].weight.shape) == (12, 12, 3, 3)
    assert slim[3].weight.shape < model[3].weight.shape


def test_their_units_stay_until_the_conversion() -> None:
    model, images = build(KINDS["weight norm"]), torch.randn(2, 3, 9, 7)
    graph = ChannelGraph(model, images, silence=True)
    silent = silent_units(graph, model)
    assert graph.prunable.any()
    assert not silent[units_made_by(graph, "2")].any()
    assert not silent[units_made_by(graph, "0")].any()  # which "2" reads


def units_made_by(graph: ChannelGraph, layer: str) -> list[int]:
    """The units that a layer makes."""
    return graph.layers[layer].out_units.tolist()


def test_a_layer_whose_parameters_others_read_stays_what_it_is() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = EqualConv(3, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(F.relu(self.a(x))) * self.a.bias.view(-1, 1, 1)
            return self.fc(x.mean((2, 3)))

    graph = ChannelGraph(Shared(), torch.randn(2, 3, 6, 6))
    assert not graph.computed
    assert "a" not in graph.layers


def test_users_hooks_go_on_but_those_that_set_the_weight() -> None:
    model, images, seen = build(KINDS["by a hook"]), torch.randn(2, 3, 9, 7), []
    model[2].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    slim = half_converted(model, images)
    seen.clear()
    slim(images)
    assert seen == [slim[2].in_channels]
    assert slim[2].in_channels < 12


def test_blocks_of_such_layers_keep_a_channel() -> None:
    class Residual(nn.Module):
        def __init__(self, make: Make) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.fc = nn.Conv2d(3, 8, 1), make(8, 8), make(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.fc((x + self.b(F.relu(self.a(x)))).mean((2, 3)))

    for make, vanishes in ((_conv, True), (EqualConv, False)):
        graph = ChannelGraph(Residual(make), torch.randn(2, 3, 6, 6))
        group = graph.macs.group_of_unit[graph.layers["a"].out_units[0]]
        assert may_vanish(graph, graph.prunable)[group] == vanishes


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    model, images = build(KINDS["equalised"]), torch.randn(2, 3, 9, 7)
    slim = half_converted(model, images)
    slim[2].plain_layer = torch.tensor([99, 1])
    save_converted(tmp_path / "narrow.pth", slim)
    with pytest.raises(InputError, match="damaged"):
        load_converted(tmp_path / "narrow.pth", build(KINDS["equalised"]))


def test_the_model_is_left_as_it_was_whatever_its_hooks_do() -> None:
    """Spectral norm's old hook goes a step of its power iteration in training mode."""
    model = build(KINDS["spectral norm, old"]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = ChannelGraph(model, torch.randn(2, 3, 9, 7))
    assert set(graph.computed) == {"2", "5", "9", "11"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_weight_of_another_modules_parameter_is_not_computed_here() -> None:
    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raw, self.conv, self.fc = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
            del self.conv.weight

        def forward(self, x: Tensor) -> Tensor:
            self.conv.weight = self.raw * 0.5
            return self.fc(self.conv(x).mean((2, 3)))

    assert not ChannelGraph(Parent(), torch.randn(2, 3, 6, 6)).computed
