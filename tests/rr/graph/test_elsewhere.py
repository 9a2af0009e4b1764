"""Networks that compute other things at other sizes of their input: exact at all of them, or unprunable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, ResRepPruner, explain, paper_config
from rr.graph import ChannelGraph
from rr.graph.elsewhere import traced_elsewhere
from tests.rr.networks import Net, conv, generic

IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = [(1, 32, 32), (3, 32, 32), (1, 48, 48), (2, 33, 33), (1, 64, 20), (1, 17, 31)]


def depthwise(tail: Callable[[Net, Tensor], Tensor], **modules: nn.Module) -> nn.Module:
    """conv-BN-ReLU and depthwise conv-BN-ReLU, whose dead channels are constants, then the tail."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return tail(net, F.relu(net.n(net.d(F.relu(net.m(net.a(x)))))))

    torch.manual_seed(0)
    parts = {"a": conv(3, 16), "m": nn.BatchNorm2d(16), "d": conv(16, 16, groups=16), "n": nn.BatchNorm2d(16)}
    model = generic(Net(forward, **parts, **modules)).eval()
    nn.init.uniform_(model.n.bias, -1, 1)  # some constants are hidden by the ReLU until training shows them
    return model


def pooled(scale: Callable[[Tensor], object]) -> Callable[[Net, Tensor], Tensor]:
    return lambda net, x: net.fc(x.mean((2, 3)) * scale(x))


def padded_to_even(net: Net, x: Tensor) -> Tensor:
    return net.c(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))


def as_often_as_it_is_large(net: Net, x: Tensor) -> Tensor:
    while x.shape[2] > 16:
        x = net.b(x).relu()
    return net.c(x)


def added_up_if_all_is_large(net: Net, x: Tensor) -> Tensor:
    y = net.fc(x.mean((2, 3)))
    if min(x.shape[2:]) > 40:
        pixels = x.flatten(2)
        y = y + (pixels.transpose(1, 2) @ pixels).mean((1, 2))[:, None]
    return y


def other_channels_if_all_is_large(net: Net, x: Tensor) -> Tensor:
    return net.fc((x.flip(1) if x.shape[2] * x.shape[3] > 3000 else x).mean((2, 3)))


def one_more_if_large(net: Net, x: Tensor) -> Tensor:
    return net.c(net.b(x).relu() if x.shape[2] > 40 else x)


LINEAR = {"fc": nn.Linear(16, 4)}
# What comes behind the depthwise layer, and what is said where its channels can't be pruned.
FORWARDS: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "mean": (lambda: depthwise(pooled(lambda x: 1.0), **LINEAR), None),
    "times the pixels": (lambda: depthwise(pooled(lambda x: x.shape[2] * x.shape[3] / 1000), **LINEAR), None),
    "over the pixels": (lambda: depthwise(pooled(lambda x: 1 / (x.shape[2] * x.shape[3])), **LINEAR), None),
    "times a power of the height": (lambda: depthwise(pooled(lambda x: x.shape[2] ** -0.5), **LINEAR), None),
    "over the batch": (lambda: depthwise(pooled(lambda x: 1 / len(x)), **LINEAR), None),
    "other numbers if large": (lambda: depthwise(pooled(lambda x: 2.0 if x.shape[2] > 40 else 1.0), **LINEAR), None),
    "other numbers if small": (
        lambda: depthwise(pooled(lambda x: 2.0 if x.shape[2] < 20 else 1.0), **LINEAR),
        "let it compute the same at all sizes",
    ),
    "padded to even": (lambda: depthwise(padded_to_even, c=nn.Conv2d(16, 8, 2, 2)), None),
    "as often as it is large": (
        lambda: depthwise(as_often_as_it_is_large, b=nn.Conv2d(16, 16, 3, 2, 1), c=nn.Conv2d(16, 4, 1)),
        "let the same layers run at all sizes",
    ),
    "added up if all is large": (lambda: depthwise(added_up_if_all_is_large, **LINEAR), None),
    "other channels if all is large": (
        lambda: depthwise(other_channels_if_all_is_large, **LINEAR),
        "let it compute the same at all sizes",
    ),
    "one more if large": (
        lambda: depthwise(one_more_if_large, b=conv(16, 16), c=nn.Conv2d(16, 4, 1)),
        "runs only at another size of the input",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_at_every_size_or_unprunable(name: str, seed: int) -> None:
    build, reason = FORWARDS[name]
    model = build()
    settings = paper_config(flops_target=0.9, layers="all")
    if reason is not None:
        with pytest.raises(InputError, match=reason):
            ResRepPruner(model, IMAGES, settings)
        return
    pruner = ResRepPruner(model, IMAGES, settings)
    assert pruner.selected[pruner.graph.layers["d"].out_units].all(), explain(pruner.graph)
    with torch.no_grad():
        model.n.bias.add_(1)  # what training may do: no constant is hidden any more
    random = np.random.default_rng(seed).random(pruner.graph.num_units)
    pruner.live.zero_dead_rows(~pruner.selected | (random > 0.5))
    slim = pruner.convert()
    assert len(pruner.report.proven_at) == 5
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = model.eval()(images)
            torch.testing.assert_close(slim(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_what_eval_mode_alone_adds_up_is_silenced() -> None:
    """The classifier is there for training; what is compared in the end are similarities."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.n(net.d(net.a(x)))).mean((2, 3))
        return net.fc(x) if net.training else x @ x.T

    parts = {"a": conv(3, 8), "d": conv(8, 8, groups=8), "n": nn.BatchNorm2d(8), "fc": nn.Linear(8, 4)}
    model = Net(forward, **parts)
    nn.init.zeros_(model.d.bias)  # no constant shows before training
    pruner = ResRepPruner(model, torch.randn(2, 3, 6, 6), paper_config(flops_target=0.9))
    generic(model)
    pruner.live.zero_dead_rows(~pruner.selected | (np.arange(pruner.graph.num_units) % 2 == 0))
    assert pruner.convert().a.out_channels == 4
    assert pruner.report.float64_difference <= 1e-12


def test_groups_that_go_in_another_way_elsewhere_stay() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.g(net.a(x)).mean((2, 3))
        return net.fc(x) if net.training else x @ x.T

    model = Net(forward, a=conv(3, 8), g=conv(8, 8, groups=2), fc=nn.Linear(8, 4))
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert {graph.reasons[int(unit)] for unit in graph.layers["a"].out_units} == {
        "goes by other groups of g in eval mode"
    }


@pytest.mark.slow
def test_a_network_of_one_size_is_proven_at_that_alone() -> None:
    model = generic(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.Flatten(1), nn.Linear(8 * 64, 3)))
    images = torch.randn(1, 3, 8, 8)
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.9))
    pruner.live.zero_dead_rows(~pruner.selected | (np.arange(pruner.graph.num_units) % 2 == 0))
    pruner.convert()
    assert pruner.report.proven_at == ("1x3x8x8", "4x3x8x8")

    def of_one(net: Net, x: Tensor) -> Tensor:
        return net.b(net.a(x).relu()).view(1, 4)

    model = Net(of_one, a=conv(3, 8), b=nn.Conv2d(8, 4, 8))
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.9))
    pruner.live.zero_dead_rows(~pruner.selected | (np.arange(pruner.graph.num_units) % 2 == 0))
    pruner.convert()
    assert str(pruner.report).endswith("proven at 1x3x8x8 alone")


def test_layers_that_run_only_elsewhere_keep_what_they_meet() -> None:
    elsewhere = traced_elsewhere(FORWARDS["one more if large"][0](), IMAGES)
    assert {"a", "b", "c"} <= {call.name for call in elsewhere.flow.layers}
    assert traced_elsewhere(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), IMAGES) is not None  # another batch
    one = nn.Sequential(nn.Flatten(0), nn.Linear(3072, 4))
    assert traced_elsewhere(one, IMAGES) is None


def test_places_among_more_channels_at_another_size_keep_them() -> None:
    """What is flattened is wider for a larger image: the same places are other channels' there."""
    model = Net(
        lambda net, x: net.fc(F.avg_pool2d(net.b(F.relu(net.a(x))), 32, 1).flatten(1)[:, net.places]),
        **{"a": conv(3, 8), "b": conv(8, 6), "fc": nn.Linear(3, 2)},
    )
    model.register_buffer("places", torch.tensor([5, 0, 2]))
    graph = ChannelGraph(model, IMAGES)
    assert graph.prunable[graph.layers["a"].out_units].all()
    reasons = {graph.reasons[int(unit)] for unit in graph.layers["b"].out_units}
    assert reasons == {"at another size of the input, places reads another number of channels"}


def two_norms(net: Net, x: Tensor) -> Tensor:
    """The first image has a norm of its own: of a batch of one, nothing is left for the other."""
    x = net.a(x)
    return net.fc(net.b(F.relu(torch.cat([net.n(x[:1]), net.m(x[1:])]))).mean((2, 3)))


def test_a_layer_that_has_nothing_to_work_on_for_some_batch_is_looked_at_with_another() -> None:
    torch.manual_seed(0)
    norms = {"n": nn.BatchNorm2d(8), "m": nn.BatchNorm2d(8)}
    model = generic(Net(two_norms, a=conv(3, 8), **norms, b=conv(8, 6), fc=nn.Linear(6, 2))).eval()
    assert ChannelGraph(model, IMAGES.expand(2, -1, -1, -1)).prunable.sum() == 14
    graph = ChannelGraph(model, IMAGES)
    assert graph.prunable.sum() == 6
    assert "batch_norm in m has nothing to work on for the example inputs: give more of them" in graph.reasons.values()


def test_convolutions_that_share_a_batch_are_traced_with_one_image() -> None:
    def halves(net: Net, x: Tensor) -> Tensor:
        half = len(x) // 2
        return net.fc(torch.cat([net.b(x[:half]), net.c(x[half:])]).mean((2, 3)))

    model = Net(halves, b=conv(3, 6), c=conv(3, 6), fc=nn.Linear(6, 2))
    assert not ChannelGraph(model, IMAGES).prunable.any()
    assert ChannelGraph(model, IMAGES.expand(2, -1, -1, -1)).prunable.sum() == 6
