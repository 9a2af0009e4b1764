"""Channel ids through elementwise operations, pooling and reductions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import explain
from rr.conversion import rehearse
from rr.graph import ChannelGraph
from tests.old_torch import fails_on_old_torch
from tests.rr.flows import Case, behind_b, check_conversion, check_exact, check_unprunable, three
from tests.rr.networks import Net, conv, head


def squeezed(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    return x * torch.sigmoid(net.s2(F.relu(net.s1(x.mean((2, 3), keepdim=True)))))


def branches(net: Net, x: Tensor) -> Tensor:
    """Each channel chooses between two branches, as in selective-kernel networks."""
    both = torch.stack([F.relu(net.a(x)), F.relu(net.c(x))], 1)  # [N, 2, C, H, W]
    choice = net.s(both.sum(1).mean((2, 3), keepdim=True))  # [N, 2 C, 1, 1]
    choice = choice.view(len(x), 2, choice.shape[1] // 2, 1, 1).softmax(1)
    return (both * choice).sum(1)


def weighted(net: Net, x: Tensor) -> Tensor:
    """As EfficientDet fuses features of several sizes."""
    weights = F.relu(net.w)
    both = torch.stack([net.a(x), net.c(x)], -1)
    return (both * weights / (weights.sum(0) + 1e-4)).sum(-1)


class Buffer(nn.Module):
    """A buffer `k` alone."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("k", values)


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "squeeze and excite": (behind_b(squeezed), {"s1": conv(8, 4, 1), "s2": conv(4, 8, 1)}, "a s1 s2 b"),
    "add": (behind_b(lambda net, x: net.a(x) + net.c(x)), {"c": conv(3, 8)}, "a c b"),
    "in place": (behind_b(lambda net, x: net.a(x).relu_().add_(net.c(x))), {"c": conv(3, 8)}, "a c b"),
    "pooling": (behind_b(lambda net, x: F.interpolate(F.max_pool2d(net.a(x), 2), scale_factor=2)), {}, "a b"),
    "casts": (behind_b(lambda net, x: net.a(x).relu().double().to(net.b.weight.dtype)), {}, "a b"),
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
    "branches chosen by channel": (behind_b(branches), {"c": conv(3, 8), "s": conv(8, 16, 1)}, "a c s b"),
    "a map for all channels": (
        behind_b(lambda net, x: (lambda y: y * net.s(y).sigmoid())(net.a(x))),
        {"s": conv(8, 1)},
        "a b",
    ),
    "a scale of two vectors": (
        behind_b(lambda net, x: net.a(x) * (net.g - net.h) + (1 + net.g) * net.a(x)),
        {"g": nn.Parameter(torch.randn(8, 1, 1)), "h": nn.Parameter(torch.randn(8, 1, 1))},
        "a b",
    ),
    "a clamped scale": (
        behind_b(lambda net, x: net.a(x) * net.g.clamp(0, 1)),
        {"g": nn.Parameter(torch.rand(8, 1, 1))},
        "a b",
    ),
    "a power for all": (
        behind_b(lambda net, x: net.a(x).clamp(min=1e-6).pow(net.p).mean((2, 3), keepdim=True).pow(1 / net.p)),
        {"p": nn.Parameter(torch.tensor([3.0])), "b": conv(8, 6, 1)},
        "a b",
    ),
    "a power for each channel": (
        behind_b(lambda net, x: F.relu(net.a(x)) ** net.p),
        {"p": nn.Parameter(1 + torch.rand(8, 1, 1))},
        "a b",
    ),
    "branches by weights that are learnt": (
        behind_b(weighted),
        {"c": conv(3, 8), "w": nn.Parameter(torch.rand(2))},
        "a c",
    ),
    "a list of numbers": (behind_b(lambda net, x: net.a(x) * torch.tensor([[[[0.5]]]])), {}, "a b"),
}


# What b reads, and the layers of whose outputs none may be pruned.
EXACT |= {
    f"{name} of branches": (
        behind_b(lambda net, x, over=over: over(torch.stack([F.relu(net.a(x)), net.c(x)]))),
        {"c": conv(3, 8)},
        "a c b",
    )
    for name, over in {
        "mean": lambda both: both.mean(0),
        "largest": lambda both: both.amax(0),
        "deviation": lambda both: both.var(0) + both.norm(dim=0),
    }.items()
}

UNPRUNABLE: dict[str, Case] = {
    "softmax": (behind_b(lambda net, x: net.a(x).softmax(1)), {}, "a"),
    "mean over channels": (behind_b(lambda net, x: net.a(x) - net.a(x).mean(1, keepdim=True)), {}, "a"),
    "a vector of numbers": (behind_b(lambda net, x: net.a(x) * torch.linspace(1, 2, 8).view(8, 1, 1)), {}, "a"),
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
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_known_operations_convert_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


# What may be done to an activation without mixing its channels; `b` takes any constant that dead ones become.
OF_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "clip": lambda x: x.clip(-0.5, 1),
    "one minus": lambda x: 1 - x.sigmoid(),
    "rsub": lambda x: torch.rsub(x, 2.0, alpha=3),
    "multiply, divide, subtract": lambda x: torch.subtract(torch.true_divide(torch.multiply(x, 3), 2), 1),
    "reciprocal": lambda x: (x.abs() + 1).reciprocal(),
    "logarithms": lambda x: (x.abs() + 1).log() + F.logsigmoid(x) + (x.square() + 2).log2(),
    "angles": lambda x: x.sin() + x.cos() + x.atan() + torch.atan2(x, x.square() + 1),
    "whole numbers": lambda x: x.floor() + x.ceil() * 0.5 + x.trunc() + x.frac(),
    "no NaN": lambda x: x.nan_to_num() + x.sign(),
    "where": lambda x: torch.where(x > 0.1, x + 1, 0.1 * x),
    "where, with bits": lambda x: torch.where((x > 0) & ~(x >= 1) | x.isnan(), x, 0.25),
    "a mask as a factor": lambda x: x * (x > -0.2) + (x <= 0.0).float(),
    "a cast to whole numbers": lambda x: x + (x + 0.7).int(),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.5),
    "masked_fill in place": lambda x: (x + 0).masked_fill_(x < 0, 0.5),
    "lerp": lambda x: torch.lerp(x, x.relu(), 0.3),
    "addcmul, addcdiv": lambda x: torch.addcmul(x, x, x.relu(), value=0.5) + torch.addcdiv(x, x, x.abs() + 1),
    "maximum of two": lambda x: torch.max(x, x * 0.1) + torch.min(x, x.square()),
    "zeros_like": lambda x: x + torch.zeros_like(x) + torch.full_like(x, 0.5) * torch.ones_like(x),
    "new_zeros": lambda x: x + x.new_zeros(x.shape) + x.new_full(x.shape, 2.0),
    "torch.zeros": lambda x: torch.zeros(x.shape, dtype=x.dtype) + x,
    "torch.full": lambda x: torch.full((1,), 0.3, dtype=x.dtype) + x,
    "positions": lambda x: x * torch.arange(x.shape[3], dtype=x.dtype) / x.shape[3],
    "positions down": lambda x: x.relu() * torch.linspace(0, 1, x.shape[2], dtype=x.dtype)[:, None],
    "expand_as": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x),
    "view_as": lambda x: x.flatten(2).tanh().view_as(x),
    "type_as": lambda x: x.mean((2, 3), keepdim=True).type_as(x) * x,
    "largest pixel": lambda x: x * x.flatten(2).max(dim=2)[0][:, :, None, None],
    "smallest in a row": lambda x: x + x.min(3, keepdim=True)[0],
    "length": lambda x: F.normalize(x, dim=2),
    "deviation": lambda x: x - x.std((2, 3), keepdim=True) + x.var(3, unbiased=False, keepdim=True),
    "logsumexp": lambda x: x * x.logsumexp((2, 3), keepdim=True),
    "cumsum": lambda x: x.relu().cumsum(2),
    "logcumsumexp": lambda x: x * x.logcumsumexp(2),
    "in order": lambda x: x.sort(2)[0] + x.flatten(2).sort()[0].view_as(x),
    "the largest": lambda x: x * x.flatten(2).topk(4)[0].mean(2)[:, :, None, None],
    "so far": lambda x: x.cummax(2)[0] + x.cummin(3)[0],
    "each twice": lambda x: x + x[:, :, ::2].repeat_interleave(2, 2),
    "variance and mean": lambda x: (
        x * torch.var_mean(x, (2, 3), keepdim=True)[0] + torch.std_mean(x, 3, keepdim=True)[1]
    ),
    "middle": lambda x: x * x.median(2, keepdim=True)[0] + x.kthvalue(2, 3, keepdim=True)[0] + x.quantile(0.3, 2, True),
    "least and largest": lambda x: torch.add(*torch.aminmax(x, dim=2, keepdim=True)) * x,
    "within": lambda x: torch.clamp(x, x.neg(), x.square()).clamp(min=-1),
    "other logarithms": lambda x: torch.logaddexp(x, -x) + torch.xlogy(x, x.abs() + 1) + (x.abs() + 1).lgamma(),
    "steps": lambda x: torch.heaviside(x, x) * x.float_power(2).to(x.dtype) + torch.special.expit(x) + x.deg2rad(),
    "filled": lambda x: (x + 0).fill_(0.5) * x,
    "broadcast_to": lambda x: x * x.amax((2, 3), keepdim=True).broadcast_to(x.shape),
    "resized in other ways": lambda x: F.interpolate(
        F.interpolate(F.interpolate(x, size=4, mode="bilinear", antialias=True), size=5, mode="nearest-exact"),
        size=6,
        mode="bicubic",
        antialias=True,
    ),
    "windows": lambda x: x.unfold(2, 3, 1).mean(-1).repeat_interleave(2, 2)[:, :, : x.shape[2]],
    "patches and back": lambda x: F.fold(F.unfold(x, 2, stride=2).relu(), x.shape[2:], 2, stride=2),
    "a pixel's share": lambda x: x / (1 + x.abs().sum((2, 3), keepdim=True)),
    "axes": lambda x: x.swapaxes(2, 3).moveaxis(1, -1).moveaxis(-1, 1).mT,
    "roll": lambda x: x.roll(1, 2) + x.roll((1, 2), (2, 3)),
    "pool and back": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "samples": lambda x: F.grid_sample(x, x.new_zeros(len(x), 4, 4, 2), align_corners=False),
    "samples at random places": lambda x: F.grid_sample(
        x,
        torch.linspace(-1, 1, 32, dtype=x.dtype).sin().view(1, 4, 4, 2).expand(len(x), -1, -1, -1),
        align_corners=True,
    ),
}


# These make other numbers of zeros, which vary with the place or the image's size.
UNEVEN = ("deviation", "logsumexp", "logcumsumexp", "smallest in a row", "positions")


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(lambda x: x, id="zeros"),
        pytest.param(lambda x: x.sigmoid(), id="halves", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=fails_on_old_torch("a quantile can't be traced")) if name == "middle" else name
        for name in OF_ONE
    ],
)
def test_what_is_done_to_each_channel_alone(name: str, before: Callable[[Tensor], Tensor]) -> None:
    """Of dead channels, which are 0, or a half: what they become goes into a bias, or keeps them with a reason."""
    function = OF_ONE[name]
    forward = behind_b(lambda net, x: function(before(net.a(x))))
    torch.manual_seed(0)
    model, images = three(forward, b=nn.Conv2d(8, 6, 1)), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    by_the_rules = graph.prunable
    graph = rehearse(model, graph, images, graph.prunable)
    assert (graph.prunable == by_the_rules).all(), explain(graph)
    units = graph.layers["a"].out_units
    if before(torch.zeros(1)) == 0 and name not in (
        "deviation",
        "logsumexp",
        "smallest in a row",
        "positions",
        *UNEVEN,
    ):
        assert graph.prunable[units].all(), explain(graph)
    reasons = {graph.reasons[unit] for unit in units.tolist() if unit in graph.reasons}
    assert all("when dead" in reason for reason in reasons)  # none for want of a rule
    check_conversion(model, graph, images)


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.linspace(1, 2, 8).view(8, 1, 1),
        lambda x: x + torch.arange(8.0)[:, None, None] / 8,
        lambda x: x * x.max(dim=1, keepdim=True)[0],
        lambda x: x * x.var(1, keepdim=True),
        lambda x: x.cumsum(1),
        lambda x: x - x.norm(p=0, dim=1, keepdim=True),
        lambda x: x.sort(1)[0],
        lambda x: torch.clamp(x, max=x.mean(1, keepdim=True)),
        lambda x: x * x.max(),
        lambda x: torch.cat([x, x.new_zeros(len(x), 2, *x.shape[2:])], 1).roll(1, 1)[:, :8],
    ],
)
def test_what_depends_on_the_other_channels_or_their_number_stays(function: Callable[[Tensor], Tensor]) -> None:
    check_unprunable(behind_b(lambda net, x: function(net.a(x))), {"b": nn.Conv2d(8, 6, 1)}, "a")


# Over the channels, and the same without those that are 0.
SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalized": lambda x: F.normalize(x, dim=1),
    "normalized by the largest": lambda x: F.normalize(x, dim=1, p=float("inf")),
    "over their sum": lambda x: x / (1 + x.abs().sum(1, keepdim=True)),
    "norm": lambda x: x * x.norm(dim=1, keepdim=True).sigmoid(),
    "of all pixels": lambda x: x / (1 + x.square().sum((1, 2, 3))[:, None, None, None]),
    "as one more channel": lambda x: torch.cat([x.relu(), x.sum(1, keepdim=True)], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_channels_don_t_miss_those_that_are_zero(name: str) -> None:
    b = nn.Conv2d(9 if name == "as one more channel" else 8, 6, 1)
    check_exact(behind_b(lambda net, x: SUMS[name](net.a(x))), {"b": b}, "a b")


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_channels_of_which_dead_ones_are_something_keep_them(name: str) -> None:
    b = nn.Conv2d(9 if name == "as one more channel" else 8, 6, 1)
    check_unprunable(behind_b(lambda net, x: SUMS[name](net.a(x).sigmoid())), {"b": b}, "a")


def test_zeros_beside_channels_stay() -> None:
    wider = behind_b(lambda net, x: (lambda y: torch.cat([y, y.new_zeros(len(y), 2, *y.shape[2:])], 1))(net.a(x)))
    check_exact(wider, {"b": nn.Conv2d(10, 6, 1)}, "a b")
