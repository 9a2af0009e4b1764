"""Channel ids through all kinds of forward functions: exact where a rule knows the operation, unprunable elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rr import explain
from rr.conversion import convert, rehearse
from rr.graph import ChannelGraph, LiveModel
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive


def three(forward: Callable[..., Tensor], **modules: object) -> Net:
    """A network with a 3x3 convolution `a` to 8 channels, `b` from 8 to 6 channels and the classifier `fc`."""
    return Net(forward, **{"a": conv(3, 8), "b": conv(8, 6), "fc": nn.Linear(6, 2)} | modules)


def behind_b(function: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    """A forward in which `function` gives `b` its input."""
    return lambda net, x: head(net, F.relu(net.b(function(net, x))))


class ConvOfItsOwn(nn.Conv2d):
    """A subclass with other arguments and a forward of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def shuffled(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    return x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def branches(net: Net, x: Tensor) -> Tensor:
    """Each channel chooses between two branches, as in selective-kernel networks."""
    both = torch.stack([F.relu(net.a(x)), F.relu(net.c(x))], 1)  # [N, 2, C, H, W]
    choice = net.s(both.sum(1).mean((2, 3), keepdim=True))  # [N, 2 C, 1, 1]
    choice = choice.view(len(x), 2, choice.shape[1] // 2, 1, 1).softmax(1)
    return (both * choice).sum(1)


class Buffer(nn.Module):
    """A buffer `k` alone."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("k", values)


def written_in_part(write: Callable[[Tensor], object]) -> Callable[[Net, Tensor], Tensor]:
    """`write` changes a view of what others read."""

    def change(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        write(x)
        return F.relu(x)

    return behind_b(change)


def squeezed(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    return x * torch.sigmoid(net.s2(F.relu(net.s1(x.mean((2, 3), keepdim=True)))))


def in_full_precision(net: Net, x: Tensor) -> Tensor:
    """A part of the forward with an autocast of its own, which the trace holds as one operation."""
    with torch.autocast("cpu", enabled=False):
        x = net.a(x).relu() + 1
    return x


def tied() -> dict[str, nn.Module]:
    """Two convolutions of one weight."""
    modules = {"c": conv(8, 8, 1), "d": conv(8, 8, 1)}
    modules["d"].weight = modules["c"].weight
    return modules


class NormWithActivation(nn.BatchNorm2d):
    """BN and activation in one module, as timm has it: a hook behind it comes after the activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class NormBesideItsActivation(NormWithActivation):
    """The activation alone is no place behind the BN: what goes past it is the BN's output as well."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.BatchNorm2d.forward(self, x)
        return x + self.act(x)


class ConvWithActivation(nn.Conv2d):
    """A convolution whose forward goes on after it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x)) + 0.1


# What b reads, and the layers whose outputs may all be pruned.
EXACT = {
    "BN with its activation": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": NormWithActivation(8), "b": conv(8, 6, 1)},
        "a b",
    ),
    "squeeze and excite": (behind_b(squeezed), {"s1": conv(8, 4, 1), "s2": conv(4, 8, 1)}, "a s1 s2 b"),
    "add": (behind_b(lambda net, x: net.a(x) + net.c(x)), {"c": conv(3, 8)}, "a c b"),
    "in place": (behind_b(lambda net, x: net.a(x).relu_().add_(net.c(x))), {"c": conv(3, 8)}, "a c b"),
    "concat": (
        behind_b(lambda net, x: torch.cat([net.a(x), net.c(x)], 1)),
        {"c": conv(3, 5), "b": conv(13, 6)},
        "a c b",
    ),
    "permuted there and back": (
        behind_b(lambda net, x: net.a(x).permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2)),
        {},
        "a b",
    ),
    "whole slices": (behind_b(lambda net, x: net.a(x)[:, :, 1:, ::2].relu()), {}, "a b"),
    "pooling": (behind_b(lambda net, x: F.interpolate(F.max_pool2d(net.a(x), 2), scale_factor=2)), {}, "a b"),
    "casts": (behind_b(lambda net, x: net.a(x).relu().double().to(net.b.weight.dtype)), {}, "a b"),
    "subclass": (behind_b(lambda net, x: F.relu(net.a(x))), {"a": ConvOfItsOwn(3, 8)}, "a b"),
    "padding by name": (behind_b(lambda net, x: F.relu(net.a(x))), {"b": nn.Conv2d(8, 6, 3, padding="same")}, "a b"),
    "BN without affine": (
        behind_b(lambda net, x: F.relu(net.bn(net.a(x)))),
        {"bn": nn.BatchNorm2d(8, affine=False)},
        "a b",
    ),
    "relu beside the BN": (
        lambda net, x: head(net, net.b(net.block(x))),
        {"block": Net(lambda net, x: F.relu(net.bn(net.conv(x))), conv=conv(3, 8), bn=nn.BatchNorm2d(8))},
        "block.conv b",
    ),
    "grouped": (
        behind_b(lambda net, x: F.relu(net.n(net.g(net.a(x))))),
        {"g": conv(8, 12, groups=4), "n": nn.BatchNorm2d(12), "b": conv(12, 6, 1)},
        "a g b",
    ),
    "BN with its activation, before a padded convolution": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": NormWithActivation(8)},
        "a b",
    ),
    "BN of its own, before a padded convolution": (
        behind_b(lambda net, x: F.relu(net.n(net.m(net.a(x))))),
        {"n": nn.BatchNorm2d(8), "m": nn.BatchNorm2d(8, affine=False)},
        "a b",
    ),
    "depthwise, twice": (
        behind_b(lambda net, x: net.e(F.relu(net.n(net.d(net.a(x)))))),
        {"d": conv(8, 8, groups=8), "n": nn.BatchNorm2d(8), "e": conv(8, 16, groups=8), "b": conv(16, 6)},
        "a d e b",
    ),
    "grouped, before a padded convolution": (
        behind_b(lambda net, x: net.g(net.a(x))),
        {"g": conv(8, 8, groups=2)},
        "a g",
    ),
    "PReLU": (behind_b(lambda net, x: net.q(net.p(net.a(x)))), {"p": nn.PReLU(8), "q": nn.PReLU()}, "a b"),
    "a scale for each channel": (
        behind_b(lambda net, x: net.g * net.a(x) + net.h),
        {"g": nn.Parameter(torch.randn(8, 1, 1)), "h": nn.Parameter(torch.randn(1)), "b": conv(8, 6, 1)},
        "a b",
    ),
    "a buffer for each channel": (
        behind_b(lambda net, x: net.a(x) * net.g.k),
        {"g": Buffer(torch.rand(8, 1, 1))},
        "a b",
    ),
    "transposed": (
        behind_b(lambda net, x: F.relu(net.n(net.t(net.a(x))))),
        {"t": nn.ConvTranspose2d(8, 10, 3, stride=2), "n": nn.BatchNorm2d(10), "b": conv(10, 6)},
        "a t b",
    ),
    "padded outside": (behind_b(lambda net, x: F.pad(net.a(x), (1, 1, 1, 1), mode="reflect")), {}, "a b"),
    "padded with zeros": (behind_b(lambda net, x: F.pad(net.a(x), (1, 0, 2, 1))), {}, "a b"),
    "more channels by padding": (
        behind_b(lambda net, x: F.pad(net.a(x)[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + net.c(x)),
        {"c": conv(3, 12, stride=2), "b": conv(12, 6)},
        "a b",
    ),
    "halves": (behind_b(lambda net, x: (lambda y, z: y * z)(*net.a(x).chunk(2, 1))), {"b": conv(4, 6)}, "a b"),
    "halves by slices": (
        behind_b(lambda net, x: (lambda y: y[:, : y.shape[1] // 2] - y[:, y.shape[1] // 2 :])(net.a(x))),
        {"b": conv(4, 6)},
        "a b",
    ),
    "shuffled": (behind_b(shuffled), {}, "a b"),
    "shuffled by a module": (behind_b(lambda net, x: net.s(net.a(x))), {"s": nn.ChannelShuffle(4)}, "a b"),
    "pixels from channels": (behind_b(lambda net, x: F.pixel_shuffle(net.a(x), 2)), {"b": conv(2, 6)}, "a b"),
    "channels from pixels": (behind_b(lambda net, x: F.pixel_unshuffle(net.a(x), 2)), {"b": conv(32, 6)}, "a b"),
    "branches chosen by channel": (behind_b(branches), {"c": conv(3, 8), "s": conv(8, 16, 1)}, "a c s b"),
    "a map for all channels": (
        behind_b(lambda net, x: (lambda y: y * net.s(y).sigmoid())(net.a(x))),
        {"s": conv(8, 1)},
        "a b",
    ),
    "a list of numbers": (behind_b(lambda net, x: net.a(x) * torch.tensor([[[[0.5]]]])), {}, "a b"),
    "called twice": (
        lambda net, x: head(net, net.b(F.relu(net.n(net.c(F.relu(net.n(net.c(net.a(x))))))))),
        {"c": conv(8, 8), "n": nn.BatchNorm2d(8)},
        "a c b",
    ),
    "a block called twice": (
        behind_b(lambda net, x: net.s(net.s(net.a(x)))),
        {"s": nn.Sequential(conv(8, 8), nn.BatchNorm2d(8), nn.ReLU())},
        "a s.0 b",
    ),
    "BN called twice": (
        behind_b(lambda net, x: net.n(net.c(net.n(net.a(x)).relu()))),
        {"c": conv(8, 8, 1), "n": nn.BatchNorm2d(8), "b": conv(8, 6, 1)},
        "a c b",
    ),
    "BN behind one of a layer's calls": (
        behind_b(lambda net, x: F.relu(net.n(net.c(F.relu(net.c(net.a(x))))))),
        {"c": conv(8, 8), "n": nn.BatchNorm2d(8)},
        "a c b",
    ),
    "BN behind a layer, and once more alone": (
        behind_b(lambda net, x: net.n(F.relu(net.n(net.a(x))))),
        {"n": nn.BatchNorm2d(8), "b": conv(8, 6, 1)},
        "a b",
    ),
    "BN beside its own activation": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": NormBesideItsActivation(8), "b": conv(8, 6, 1)},
        "a b",
    ),
    "channels last": (
        lambda net, x: net.fc(F.gelu(net.l(F.relu(net.a(x)).permute(0, 2, 3, 1))).mean((1, 2))),
        {"l": nn.Linear(8, 6)},
        "a l",
    ),
}

# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE = {
    "a constant behind an activation that padding cuts": (
        behind_b(lambda net, x: net.a(x).sigmoid()),
        {},
        "a",
    ),
    "reflected channels": (
        behind_b(lambda net, x: F.pad(net.a(x).transpose(1, 3), (1, 1, 0, 0), mode="reflect").transpose(1, 3)),
        {"b": conv(10, 6)},
        "a",
    ),
    "channels cropped": (behind_b(lambda net, x: F.pad(net.a(x), (0, 0, 0, 0, -1, 2))), {"b": conv(9, 6)}, "a"),
    "unequal parts": (behind_b(lambda net, x: torch.cat(net.a(x).split([3, 5], 1)[::-1], 1)), {}, "a"),
    "halves of a size of their own": (
        behind_b(lambda net, x: torch.cat(net.a(x).split(4, 1)[::-1], 1)),
        {},
        "a",
    ),
    "shuffled by sizes of its own": (
        behind_b(lambda net, x: net.a(x).view(-1, 2, 4, 6, 6).transpose(1, 2).flatten(1, 2)),
        {},
        "a",
    ),
    "transposed, a constant before": (
        behind_b(lambda net, x: net.t(net.a(x).sigmoid())),
        {"t": nn.ConvTranspose2d(8, 8, 2)},
        "a",
    ),
    "transposed, in groups": (
        behind_b(lambda net, x: net.t(net.a(x))),
        {"t": nn.ConvTranspose2d(8, 8, 2, groups=2)},
        "a t",
    ),
    "a shared layer with a constant before": (
        lambda net, x: head(net, net.b(net.c(net.c(net.a(x)).sigmoid()))),
        {"c": conv(8, 8, 1), "b": conv(8, 6, 1)},
        "a c",
    ),
    "a layer that computes over pixels elsewhere": (
        behind_b(lambda net, x: net.l(net.l(net.a(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        {"a": conv(3, 6), "l": nn.Linear(6, 6), "b": conv(6, 6)},
        "a l",
    ),
    "through an autocast of its own": (behind_b(in_full_precision), {}, "a"),
    "one weight of two layers": (lambda net, x: head(net, net.b(net.d(net.c(net.a(x))))), tied(), "a c"),
    "convolution with its activation": (behind_b(lambda net, x: net.a(x)), {"a": ConvWithActivation(3, 8, 3)}, "a"),
    "a stream into which one adds": (
        behind_b(lambda net, x: net.a(x) + net.c(x)),
        {"a": ConvWithActivation(3, 8, 3), "c": nn.Conv2d(3, 8, 3)},
        "a c",
    ),
    "fft": (behind_b(lambda net, x: torch.fft.fft(net.a(x), dim=1).real), {}, "a"),
    "softmax": (behind_b(lambda net, x: net.a(x).softmax(1)), {}, "a"),
    "cumsum": (behind_b(lambda net, x: net.a(x).cumsum(1)), {}, "a"),
    "mean over channels": (behind_b(lambda net, x: net.a(x) - net.a(x).mean(1, keepdim=True)), {}, "a"),
    "mean of the channels": (behind_b(lambda net, x: net.a(x).mean(1, keepdim=True)), {"b": conv(1, 6)}, "a"),
    "largest channel": (behind_b(lambda net, x: net.a(x).max(1, keepdim=True)[0]), {"b": conv(1, 6)}, "a"),
    "comparison": (behind_b(lambda net, x: (lambda y: torch.where(y > 0, y, 0.1))(net.a(x))), {}, "a"),
    "layer norm": (behind_b(lambda net, x: net.n(net.a(x))), {"n": nn.GroupNorm(2, 8)}, "a"),
    "BN of the batch": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": nn.BatchNorm2d(8, track_running_stats=False)},
        "a",
    ),
    "part of the channels": (behind_b(lambda net, x: net.a(x)[:, :4]), {"b": conv(4, 6)}, "a"),
    "the middle of the channels": (behind_b(lambda net, x: net.a(x)[:, 2:6]), {"b": conv(4, 6)}, "a"),
    "reordered by index": (behind_b(lambda net, x: net.a(x)[:, torch.tensor([1, 0, 3, 2, 4, 5, 6, 7])]), {}, "a"),
    "some channels written": (written_in_part(lambda x: x[:, :4].add_(1.0)), {}, "a"),
    "some rows written": (written_in_part(lambda x: x[:, :, :2].add_(1.0)), {}, "a"),
    "some rows written from themselves": (written_in_part(lambda x: x[:, :, :2].exp_()), {}, "a"),
    "some rows set": (written_in_part(lambda x: x[:, :, :2].fill_(1.0)), {}, "a"),
    "a vector of numbers": (behind_b(lambda net, x: net.a(x) * torch.linspace(1, 2, 8).view(8, 1, 1)), {}, "a"),
    "its weight used elsewhere": (behind_b(lambda net, x: net.a(x) * net.a.weight.amax()), {}, "a"),
    "its bias used elsewhere": (behind_b(lambda net, x: net.a(x) + net.a.bias.view(1, -1, 1, 1)), {}, "a"),
    "its weight standardised": (
        behind_b(lambda net, x: F.conv2d(x, net.a.weight - net.a.weight.mean((1, 2, 3), keepdim=True), padding=1)),
        {},
        "a",
    ),
    "called as a function": (behind_b(lambda net, x: F.conv2d(x, net.a.weight, net.a.bias, padding=1)), {}, "a"),
    "called behind its hooks": (behind_b(lambda net, x: net.a.forward(x)), {}, "a"),
    "a factor for each channel, used elsewhere": (
        lambda net, x: head(net, net.b(net.a(x) * net.g)) + net.g.mean(),
        {"g": nn.Parameter(torch.randn(8, 1, 1))},
        "a",
    ),
    "a map of its own for each channel": (
        behind_b(lambda net, x: net.a(x) * net.g),
        {"g": nn.Parameter(torch.randn(8, 6, 6))},
        "a",
    ),
    "one channel that a parameter makes eight": (
        behind_b(lambda net, x: net.a(x) * (net.c(x) * net.g)),
        {"c": conv(3, 1), "g": nn.Parameter(torch.randn(8, 1, 1))},
        "c",
    ),
    "pooled over channels": (
        behind_b(lambda net, x: F.max_pool2d(net.a(x).transpose(1, 3), (1, 2)).transpose(1, 3)),
        {"b": conv(4, 6)},
        "a",
    ),
    "network's output": (lambda net, x: (head(net, net.b(net.a(x))), net.c(x)), {"c": conv(3, 4)}, "c fc"),
}  # fmt: skip

# Of these, those with sizes of the forward's own, which no rule can tell from computed ones.
ONLY_REHEARSED = frozenset(["halves of a size of their own", "shuffled by sizes of its own", "part of the channels"])


def check_conversion(model: nn.Module, graph: ChannelGraph, images: Tensor) -> None:
    """Half of the prunable units dead, behind dense compactors: exact, and at the predicted MACs."""
    selected = graph.prunable
    alive = random_alive(graph, selected, 0.5, seed=1)
    insert_generic_compactors(model, graph, selected, alive)
    _, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert report.dropped == (~alive).sum() > 0
    assert report.parameters_after == graph.parameters(alive)


@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    torch.manual_seed(0)
    forward, modules, prunable = EXACT[case]
    model, images = generic(three(forward, **modules)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    by_the_rules = graph.prunable
    graph = rehearse(model, graph, images, graph.prunable)
    assert (graph.prunable == by_the_rules).all(), explain(graph)  # none of these has sizes of its own
    for layer in prunable.split():
        assert graph.prunable[graph.layers[layer].out_units].all(), explain(graph)
    check_conversion(model, graph, images)


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    torch.manual_seed(0)
    forward, modules, unprunable = UNPRUNABLE[case]
    model, images = generic(three(forward, **modules)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    by_the_rules = graph.prunable
    graph = rehearse(model, graph, images, graph.prunable)
    assert (graph.prunable == by_the_rules).all() == (case not in ONLY_REHEARSED), explain(graph)
    for name in unprunable.split():
        if name in graph.layers:  # an unknown layer is none
            layer = graph.layers[name]
            assert not graph.prunable[layer.out_units].any()
            assert all(len(graph.reasons[int(unit)]) > 10 for unit in layer.out_units)
    assert explain(graph)
    if graph.prunable.any():
        check_conversion(model, graph, images)


def test_reasons_say_where() -> None:
    model = three(behind_b(lambda net, x: net.soft(net.a(x))), soft=nn.Softmax(1))
    graph = ChannelGraph(model, torch.randn(1, 3, 6, 6))
    assert {graph.reasons[int(unit)] for unit in graph.layers["a"].out_units} == {
        "passes through softmax in soft, which computes over the channels"
    }
    line = next(line for line in explain(graph).splitlines() if line.startswith("a "))
    assert line.endswith("passes through softmax in soft, which computes over the channels")


def test_part_of_a_layer_may_be_unprunable() -> None:
    """Concatenated, then one half of the layers through an unknown operation: the others stay prunable."""
    model = Net(
        lambda net, x: head(net, net.b(torch.cat([F.relu(net.a(x)), net.c(x).cumsum(2)], 1))),
        **{"a": conv(3, 8), "c": conv(3, 5), "b": conv(13, 6), "fc": nn.Linear(6, 2)},
    )
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert graph.prunable[graph.layers["a"].out_units].all()
    assert not graph.prunable[graph.layers["c"].out_units].any()


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions(dims: int) -> None:
    torch.manual_seed(0)
    kind, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dims]
    model = nn.Sequential(
        kind(3, 6, 3), norm(6), nn.ReLU(), kind(6, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4**dims, 2)
    )
    images = torch.randn(2, 3, *[6] * dims)
    graph = ChannelGraph(generic(model).eval(), images)
    assert graph.prunable.sum() == 12
    check_conversion(model, graph, images)


def test_several_inputs_and_integers() -> None:
    torch.manual_seed(0)
    model = Net(
        lambda net, words, x: net.fc(F.relu(net.a(net.e(words))).mean(1) * F.relu(net.b(x))),
        **{"e": nn.Embedding(10, 8), "a": nn.Linear(8, 6), "b": nn.Linear(4, 6), "fc": nn.Linear(6, 2)},
    )
    inputs = (torch.randint(0, 10, (2, 5)), torch.randn(2, 4))
    graph = ChannelGraph(model, inputs)
    assert graph.prunable.sum() == 6
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    assert convert(LiveModel(model, graph), inputs)[1].float64_difference <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    model = generic(torchvision.models.get_model(name, weights=None, num_classes=10)).eval()
    images = torch.randn(2, 3, 64, 64)
    graph = ChannelGraph(model, images)
    units = sum(len(group.units) for group in graph.groups if group.producers)
    assert graph.prunable.sum() == units - 10  # all but the classes
    check_conversion(model, graph, images)


def test_a_concatenating_network_with_bn_behind() -> None:
    """Two dense layers in the style of DenseNet, whose BN stands before the convolution."""
    torch.manual_seed(0)

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = torch.cat([x, net.c1(F.relu(net.n1(x)))], 1)
        x = torch.cat([x, net.c2(F.relu(net.n2(x)))], 1)
        return net.fc(F.relu(net.n3(x)).mean((2, 3)))

    modules = {"stem": conv(3, 8), "n1": nn.BatchNorm2d(8), "c1": conv(8, 4, 1), "n2": nn.BatchNorm2d(12)}
    modules |= {"c2": conv(12, 4, 1), "n3": nn.BatchNorm2d(16), "fc": nn.Linear(16, 2)}
    model, images = generic(Net(forward, **modules)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert graph.prunable.sum() == 16
    check_conversion(model, graph, images)


@pytest.mark.parametrize(
    "model",
    [
        Net(lambda net, x: net.fc(x) if x.sum() > 0 else net.fc(-x), fc=nn.Linear(4, 2)),
        Net(lambda net, x: net.fc(x.numpy()), fc=nn.Linear(4, 2)),
        nn.Linear(5, 2),
    ],
    ids=["branch on data", "not torch", "wrong inputs"],
)
def test_a_model_that_cannot_be_exported_is_a_users_mistake(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="can't be traced|fails when it is called"):
        ChannelGraph(model, torch.randn(2, 4))


@pytest.mark.parametrize("inputs", [(), torch.tensor(1.0), [3]])
def test_inputs_that_are_none(inputs: object) -> None:
    with pytest.raises(ValueError, match="example_inputs"):
        ChannelGraph(nn.Linear(4, 2), inputs)


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = generic(three(behind_b(lambda net, x: net.n(net.a(x))), n=nn.BatchNorm2d(8))).train()
    model.n.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert model.training
    assert not model.n.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert np.isfinite([tensor.double().sum() for tensor in model.state_dict().values()]).all()


def test_heads_that_only_training_runs_are_narrowed_too() -> None:
    """GoogLeNet's way: they read the same channels, cost nothing in use, and still fit after the conversion."""

    def forward(net: Net, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(net.n(net.a(x)))
        y = head(net, F.relu(net.b(x)))
        return (y, net.aux(F.relu(net.c(x)).mean((2, 3)))) if net.training else y

    torch.manual_seed(0)
    model = generic(
        Net(
            forward,
            a=conv(3, 8),
            n=nn.BatchNorm2d(8),
            b=conv(8, 6),
            fc=nn.Linear(6, 2),
            c=conv(8, 10),
            aux=nn.Linear(10, 2),
        )
    )
    images = torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    with FlopCounterMode(display=False) as counter:
        model.eval()(images)
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == counter.get_total_flops() // (2 * len(images))
    assert graph.prunable[graph.layers["c"].out_units].all()

    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    model.training = slim.training = True  # their layers stay in eval mode
    with torch.no_grad():
        for ours, theirs in zip(slim(images), model(images), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_training_forward_that_can_not_be_traced_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        return net.aux(x.repeat(1, 1, 1, 2)[:, :, 10**6]) if net.training else head(net, x)

    model = Net(forward, a=conv(3, 8), fc=nn.Linear(8, 2), aux=conv(8, 2))
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert graph.prunable.any()
    assert "aux.bias" in caplog.text
