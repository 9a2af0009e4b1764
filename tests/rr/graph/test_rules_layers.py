"""Channel ids through layers: convolutions of all kinds, linear layers, BN."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from rr import explain, load_converted, save_converted
from rr.conversion import convert
from rr.conversion.rehearsal import rehearse
from rr.graph import ChannelGraph, LiveModel
from tests.rr.flows import Case, behind_b, check_conversion, check_exact, check_unprunable, three
from tests.rr.narrowed import kill, pruner_of
from tests.rr.networks import Net, conv, generic, insert_generic_compactors, random_alive
from tests.rr.pruners import set_masks


class ConvOfItsOwn(nn.Conv2d):
    """A subclass with other arguments and a forward of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class LimitedVariance(nn.BatchNorm2d):
    """Its statistics aren't quite those that it has; nothing shows of that as it begins."""

    def forward(self, x: Tensor) -> Tensor:
        variance = self.running_var.clamp(min=0.01)
        return F.batch_norm(x, self.running_mean, variance, self.weight, self.bias, False, 0.1, self.eps)


class EpsOfItsOwn(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, 0.01)


class NeverInEvalMode(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> NeverInEvalMode:
        return super().train(True)


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "subclass": (behind_b(lambda net, x: F.relu(net.a(x))), {"a": ConvOfItsOwn(3, 8)}, "a b"),
    "padding by name": (behind_b(lambda net, x: F.relu(net.a(x))), {"b": nn.Conv2d(8, 6, 3, padding="same")}, "a b"),
    "BN without affine": (
        behind_b(lambda net, x: F.relu(net.bn(net.a(x)))),
        {"bn": nn.BatchNorm2d(8, affine=False)},
        "a b",
    ),
    "grouped": (
        behind_b(lambda net, x: F.relu(net.n(net.g(net.a(x))))),
        {"g": conv(8, 12, groups=4), "n": nn.BatchNorm2d(12), "b": conv(12, 6, 1)},
        "a g b",
    ),
    "groups that are added up": (
        behind_b(lambda net, x: F.relu(net.n(net.g(F.relu(net.a(x))))).unflatten(1, (2, -1)).sum(1)),
        {"g": conv(8, 12, groups=2), "n": nn.BatchNorm2d(12), "b": conv(6, 6)},
        "a g b",
    ),
    "groups of what has to stay": (
        behind_b(lambda net, x: F.relu(net.g(x.repeat(1, 2, 1, 1)))),
        {"g": conv(6, 8, groups=2)},
        "g b",
    ),
    "groups that are added up, called twice": (
        behind_b(lambda net, x: (lambda f: f(f(net.a(x))))(lambda y: net.g(y).unflatten(1, (2, -1)).sum(1))),
        {"g": conv(8, 16, groups=2), "b": conv(8, 6)},
        "a g b",
    ),
    "transposed": (
        behind_b(lambda net, x: F.relu(net.n(net.t(net.a(x))))),
        {"t": nn.ConvTranspose2d(8, 10, 3, stride=2), "n": nn.BatchNorm2d(10), "b": conv(10, 6)},
        "a t b",
    ),
    "channels last": (
        lambda net, x: net.fc(F.gelu(net.l(F.relu(net.a(x)).permute(0, 2, 3, 1))).mean((1, 2))),
        {"l": nn.Linear(8, 6)},
        "a l",
    ),
    "tokens of two layers": (
        lambda net, x: net.fc(F.relu(net.l(torch.cat([net.a(x).flatten(2).mT, net.c(x).flatten(2).mT], 1)).mean(1))),
        {"c": conv(3, 8, stride=2), "l": nn.Linear(8, 6)},
        "a c l",
    ),
    "an image out of a linear layer": (
        behind_b(lambda net, x: net.l(net.a(x).mean((2, 3))).unflatten(1, (-1, 3, 3))),
        {"l": nn.Linear(8, 72)},
        "a l b",
    ),
    "an image out of a linear layer, transposed": (
        behind_b(lambda net, x: net.t(net.l(net.a(x).mean((2, 3))).view(len(x), -1, 3, 3))),
        {"l": nn.Linear(8, 45), "t": nn.ConvTranspose2d(5, 8, 2, 2)},
        "a l t b",
    ),
    "instance norm": (behind_b(lambda net, x: F.relu(F.instance_norm(net.a(x)))), {}, "a b"),
} | {
    name: (behind_b(lambda net, x: F.relu(net.n(net.a(x)))), {"n": norm, "b": nn.Conv2d(8, 6, 1)}, "a b")
    for name, norm in {
        "instance norm with numbers": nn.InstanceNorm2d(8, affine=True),
        "instance norm with statistics": nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        "group norm": nn.GroupNorm(4, 8),
        "group norm by channel": nn.GroupNorm(8, 8),
        "BN of the batch": nn.BatchNorm2d(8, track_running_stats=False),
        "BN of the batch without numbers": nn.BatchNorm2d(8, track_running_stats=False, affine=False),
        "frozen BN": FrozenBatchNorm2d(8),
        "instance norm without numbers": nn.InstanceNorm2d(8),
        "group norm without numbers": nn.GroupNorm(4, 8, affine=False),
    }.items()
}


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "BN with statistics that are changed first": (
        behind_b(lambda net, x: net.n(net.a(x))),
        {"n": LimitedVariance(8)},
        "a",
    ),
    "BN with another eps than it has": (behind_b(lambda net, x: net.n(net.a(x))), {"n": EpsOfItsOwn(8)}, "a"),
    "BN by the batch's statistics": (behind_b(lambda net, x: net.n(net.a(x))), {"n": NeverInEvalMode(8)}, "a"),
    "transposed, in groups": (
        behind_b(lambda net, x: net.t(net.a(x))),
        {"t": nn.ConvTranspose2d(8, 8, 2, groups=2)},
        "a t",
    ),
    "a constant for groups that are added up": (
        behind_b(lambda net, x: net.g(net.a(x).sigmoid()).unflatten(1, (2, -1)).sum(1)),
        {"g": conv(8, 12, 1, groups=2), "b": conv(6, 6)},
        "a",
    ),
    "one group for all channels": (behind_b(lambda net, x: net.n(net.a(x))), {"n": nn.GroupNorm(1, 8)}, "a"),
    "groups of a function": (
        behind_b(lambda net, x: F.group_norm(net.a(x), 4, net.n.weight, net.n.bias)),
        {"n": nn.GroupNorm(4, 8)},
        "a",
    ),
    "a norm before padding, by a function": (
        behind_b(lambda net, x: F.instance_norm(net.a(x), weight=net.n.weight, bias=net.n.bias)),
        {"n": nn.InstanceNorm2d(8, affine=True)},
        "a",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


def test_images_that_are_stacked_into_the_batch_share_their_channels() -> None:
    """Two inputs, and what two layers make of them: the next layer reads both as one batch."""

    def forward(net: Net, x: Tensor, y: Tensor) -> Tensor:
        stem = net.stem(torch.cat([x, y]))
        z = net.b(torch.cat([F.relu(net.a(x)), F.relu(net.c(y))]) + stem).mean((2, 3))
        return net.fc(z).view(2, len(x), 3).prod(0)

    torch.manual_seed(0)
    layers = {"stem": conv(3, 8), "a": conv(3, 8), "c": conv(3, 8), "b": conv(8, 6), "fc": nn.Linear(6, 3)}
    model, images = generic(Net(forward, **layers)), (torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6))
    graph = ChannelGraph(model, images)
    assert graph.layers["a"].out_units.tolist() == graph.layers["c"].out_units.tolist()
    assert graph.prunable.sum() == 14
    check_conversion(model, graph, images)


@pytest.mark.slow
@pytest.mark.parametrize(("pixels", "layer"), [((3, 3), nn.ConvTranspose2d(8, 4, 2, 2)), ((9,), nn.Conv1d(8, 4, 3))])
def test_an_image_out_of_a_linear_layer_loses_channel_after_channel(pixels: tuple[int, ...], layer: nn.Module) -> None:
    """As generators begin: a channel's pixels go together, and no other channel's with them."""
    norm = nn.BatchNorm2d(8) if len(pixels) == 2 else nn.BatchNorm1d(8)
    tail = nn.Sequential(nn.Unflatten(1, (-1, *pixels)), norm, nn.ReLU(), nn.Upsample(scale_factor=2), layer)
    model = generic(nn.Sequential(nn.Linear(5, 72), *tail)).eval()
    codes = torch.randn(2, 5)
    graph = ChannelGraph(model, codes)
    assert graph.layers["0"].out_units.reshape(8, 9).tolist() == [[unit] * 9 for unit in range(8)]
    graph = rehearse(model, graph, codes, graph.prunable)
    assert graph.prunable[graph.layers["0"].out_units].all()
    check_conversion(model, graph, codes)


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


def split_attention() -> nn.Module:
    """Two groups choose how much of each of their channels comes through, as in ResNeSt."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(net.n(net.g(F.relu(net.a(x))))).unflatten(1, (2, -1))
        shares = net.t(F.relu(net.s(x.sum(1).mean((2, 3), keepdim=True)))).unflatten(1, (2, -1)).softmax(1)
        return net.fc(F.relu(net.b((x * shares).sum(1))).mean((2, 3)))

    parts = {"g": conv(8, 12, groups=2), "n": nn.BatchNorm2d(12), "s": conv(6, 4, 1), "t": conv(4, 12, 1)}
    return generic(three(forward, b=conv(6, 6), **parts))


@pytest.mark.slow
def test_groups_that_are_added_up_keep_the_same_channels_also_in_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = split_attention().eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert all(graph.prunable[graph.layers[name].out_units].all() for name in "agstb"), explain(graph)
    alive = random_alive(graph, graph.prunable, 0.3, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert slim.g.groups == 2 < slim.g.out_channels < 12
    assert slim.g.in_channels == slim.a.out_channels < 8
    assert report.macs_after == ChannelGraph(slim, images).trace.macs == graph.macs(alive)
    assert report.parameters_after == graph.parameters(alive)
    for name in ("a.hdf5", "b.pth"):
        save_converted(tmp_path / name, slim)
        again = load_converted(tmp_path / name, split_attention())
        assert (again.g.groups, again.g.in_channels) == (2, slim.g.in_channels)
        with torch.no_grad():
            assert torch.equal(again(images), slim(images))


@pytest.mark.slow
@pytest.mark.parametrize("compactors", ["dense", "diagonal"])
def test_groups_that_are_added_up_get_narrower_while_they_train(compactors: str) -> None:
    """What reads channels goes on the way, what the groups make at the end."""
    pruner = pruner_of(split_attention, "all", 6, compactors)
    alive = kill(pruner, 0.5)
    model, images = pruner.model.eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        assert pruner.narrow() > 0
        torch.testing.assert_close(model(images), before)
        assert model.g.in_channels < 8
        made = pruner.graph.layers["g"].out_units
        alive[made[:2]] = False
        set_masks(pruner, alive)
        pruner.live.zero_dead_rows(alive)
        before = model(images)
    torch.testing.assert_close(pruner.convert()(images), before)


@pytest.mark.slow
def test_norms_of_other_kinds_come_back_from_a_file(tmp_path: Path) -> None:
    """Half of the channels gone, by whole groups; the numbers of a norm are generic."""

    def through(net: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(net.g(net.h(net.j(net.a(x)))))
        return F.relu(net.f(net.d(F.relu(net.i(net.c(x))))))

    def build() -> nn.Module:
        norms = {"g": nn.GroupNorm(4, 8), "i": nn.InstanceNorm2d(8, affine=True), "f": FrozenBatchNorm2d(8)}
        norms |= {"h": nn.GroupNorm(4, 8, affine=False), "j": nn.InstanceNorm2d(8)}
        parts = {"c": conv(8, 8, 1), "d": conv(8, 8, 1), "b": nn.Conv2d(8, 6, 1)}
        return three(behind_b(through), **norms, **parts)

    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        for tensor in (*model.g.parameters(), *model.i.parameters(), *model.f.buffers()):
            tensor.uniform_(0.5, 1.5)
    graph = ChannelGraph(model, images)
    assert all(graph.prunable[graph.layers[name].out_units].all() for name in "acdb"), explain(graph)
    assert len(set(graph.layers["a"].out_units.tolist())) == 4  # by groups of two
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert (slim.g.num_groups, slim.g.num_channels) == (slim.a.out_channels // 2, slim.a.out_channels)
    assert (slim.h.num_groups, slim.h.num_channels) == (slim.g.num_groups, slim.g.num_channels)
    assert slim.j.num_features == slim.a.out_channels
    assert slim.a.out_channels < 8
    save_converted(tmp_path / "a.hdf5", slim)
    again = load_converted(tmp_path / "a.hdf5", build())
    assert (again.j.num_features, again.h.num_groups) == (slim.j.num_features, slim.h.num_groups)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(again(images), slim(images))
