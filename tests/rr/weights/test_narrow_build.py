"""A full network and the arrays of its converted file: the narrow network comes back, from shapes alone."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model import build_any
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from rr.weights import fit_shapes, left_of_norm, load_strict
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive


def half_dead(model: nn.Module, images: Tensor) -> nn.Module:
    """The converted network of which a random half of what can go is gone."""
    graph = ChannelGraph(model, images)
    trained = copy.deepcopy(model)
    insert_generic_compactors(trained, graph, graph.prunable, random_alive(graph, graph.prunable, 0.5))
    return convert(LiveModel(trained, graph), images, prove=False)[0]


def narrow(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The full network with the shapes and the values of a converted one's state dict."""
    fit_shapes(model, state)
    load_strict(model, state, "the state dict")
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "src20",
        "lenet5bn",
        "smi1_cifar",
        pytest.param("torchvision/googlenet", marks=pytest.mark.long),
        pytest.param("torchvision/mobilenet_v3_small", marks=pytest.mark.long),
        pytest.param("torchvision/regnet_y_400mf", marks=pytest.mark.long),
        pytest.param("torchvision/shufflenet_v2_x0_5", marks=pytest.mark.long),
        "torchvision/squeezenet1_1",
        "timm/test_byobnet",
        "timm/test_resnet",
    ],
)
def test_the_narrow_network_comes_back(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = generic(build_any(name)).eval()
    images = torch.randn(2, 1 if name == "lenet5bn" else 3, *[28 if name == "lenet5bn" else 64] * 2)
    slim = half_dead(model, images)
    state = slim.state_dict()
    restored = narrow(build_any(name), state)
    assert {key: value.shape for key, value in restored.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    assert len(state) < len(model.state_dict()) or any(
        value.shape != model.state_dict()[key].shape for key, value in state.items()
    )
    with torch.no_grad():
        assert torch.equal(restored(images), slim(images))
    layers = dict(restored.named_modules())
    for key, module in slim.named_modules():  # what no forward reads: repr, export, a conversion later on
        for option in ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features"):
            assert getattr(layers[key], option, None) == getattr(module, option, None), (key, option)


def test_a_module_with_two_names_is_replaced_under_both() -> None:
    shared = nn.BatchNorm2d(4)
    full = Net(lambda net, x: net.b(net.a(x)), a=conv(1, 4), b=shared, c=shared)
    fit_shapes(full, {"a.weight": torch.zeros(2, 1, 3, 3), "a.bias": torch.zeros(2)})
    assert isinstance(full.b, nn.Identity)
    assert isinstance(full.c, nn.Identity)


def test_what_a_folded_norm_runs_itself_stays() -> None:
    class NormAct(nn.BatchNorm2d):  # as timm's
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.drop, self.act = nn.Identity(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.drop(super().forward(x)))

    left = left_of_norm(NormAct(3))
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(left(x), x.relu())
    assert list(dict(left.named_children())) == ["drop", "act"]
    assert torch.equal(left_of_norm(nn.BatchNorm2d(3))(x), x)


def test_a_norm_without_entries_is_not_a_folded_one() -> None:
    plain = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    full = nn.Sequential(conv(1, 4), plain)
    fit_shapes(full, {"0.weight": torch.zeros(4, 1, 3, 3)})
    assert full[1] is plain
    assert full[0].bias is None


def test_a_norm_that_stands_alone_has_the_files_channels() -> None:
    full = nn.Sequential(conv(1, 4), nn.ReLU(), nn.BatchNorm2d(4))
    narrow_one = nn.Sequential(conv(1, 3), nn.ReLU(), generic(nn.BatchNorm2d(3))).eval()
    narrow(full, narrow_one.state_dict())
    assert full[2].num_features == 3
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(full(x), narrow_one(x))


def test_grouped_layers_lose_whole_groups() -> None:
    full = nn.Sequential(conv(8, 16, groups=8), conv(16, 16, groups=4), conv(16, 6))
    state = {"0.weight": (8, 1, 3, 3), "1.weight": (8, 4, 3, 3), "2.weight": (6, 8, 3, 3), "2.bias": (6,)}
    fit_shapes(full, {name: torch.zeros(shape) for name, shape in state.items()})
    assert [(layer.groups, layer.in_channels, layer.out_channels) for layer in full] == [
        (4, 4, 8),
        (2, 8, 8),
        (1, 8, 6),
    ]
    assert full(torch.zeros(1, 4, 5, 5)).shape == (1, 6, 5, 5)


def test_parameters_of_ones_own_modules() -> None:
    class Scale(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(channels, 1, 1), requires_grad=False)
            self.register_buffer("seen", torch.zeros(channels, dtype=torch.int64))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gamma

    full = Net(lambda net, x: head(net, net.s(net.a(x))), a=conv(1, 4), s=Scale(4), fc=nn.Linear(4, 2))
    state = OrderedDict(
        (name, value[:2] if value.shape[0] == 4 else value[:, :2])
        for name, value in full.state_dict().items()
        if not name.startswith("fc")
    )
    state |= {"fc.weight": torch.ones(2, 2), "fc.bias": torch.zeros(2)}
    narrow(full, state)
    assert full.s.gamma.shape == (2, 1, 1)
    assert not full.s.gamma.requires_grad
    assert full.s.seen.dtype == torch.int64
    assert full(torch.zeros(1, 1, 4, 4)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("0.weight", (5, 1, 3, 3), "more channels than the full network"),
        ("0.weight", (2, 1, 5, 5), "another kernel"),
        ("0.weight", (2, 1, 9), "another number of dimensions"),
        ("1.weight", (3, 1, 3, 3), "a part of a group"),
        ("1.weight", (2, 2, 3, 3), "more inputs in a group"),
        ("2.running_mean", (9,), "more channels"),
        ("3.weight", (2,), "channels of a layer that conversions don't narrow"),
        ("4.bias", (1,), "a bias for other outputs"),
    ],
)
def test_what_is_not_of_the_network_is_named(name: str, shape: tuple[int, ...], why: str) -> None:
    full = nn.Sequential(conv(1, 4), conv(4, 8, groups=4), nn.BatchNorm2d(8), nn.GroupNorm(1, 8), nn.Linear(8, 2))
    before = copy.deepcopy(full)
    state = {**full.state_dict(), name: torch.zeros(shape)}
    fit_shapes(full, state)
    with pytest.raises(ValueError, match=rf"1 of another shape \({name} "):
        load_strict(full, state, "the file")
    assert {key: value.shape for key, value in full.state_dict().items()} == {
        key: value.shape for key, value in before.state_dict().items()
    }, why


def test_transposed_convolutions_prelu_and_norms_that_got_a_scale() -> None:
    """What a diagonal compactor leaves in a BN without affine parameters, and weights that have the inputs first."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: head(net, net.b(net.p(net.n(F.relu(net.t(net.a(x))))))),
        a=conv(3, 8),
        t=nn.ConvTranspose2d(8, 10, 2, bias=False),
        n=nn.BatchNorm2d(10, affine=False),
        p=nn.PReLU(10),
        b=conv(10, 6),
        fc=nn.Linear(6, 2),
    )
    images = torch.randn(2, 3, 6, 6)
    slim = half_dead(generic(model).eval(), images)
    assert slim.n.affine
    restored = narrow(model, slim.state_dict())
    assert torch.equal(restored(images), slim(images))
    assert (restored.t.in_channels, restored.t.out_channels) == (slim.t.in_channels, slim.t.out_channels)
    assert restored.p.num_parameters == slim.p.num_parameters == len(slim.p.weight) < 10
    assert str(restored) == str(slim)
