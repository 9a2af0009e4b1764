"""Exports: forwards as people write them are traced like all else, and so is what runs under an autocast of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

from rr.conversion import rehearse
from rr.graph import ChannelGraph
from rr.graph.exporting import in_one_grad_mode, without_autocast
from tests.old_torch import fails_on_old_torch
from tests.rr.flows import behind_b, check_conversion, check_exact, three
from tests.rr.networks import Net, conv, generic, head


def scaled_by_a_buffer(net: Net, x: Tensor) -> Tensor:
    """Every YOLO takes its strides so."""
    return head(net, net.b(F.relu(net.a(x)) * net.scale.item()))


def squeezed(net: Net, x: Tensor) -> Tensor:
    """Of an example batch of one, the batch goes as well."""
    return net.fc(F.adaptive_avg_pool2d(net.b(F.relu(net.a(x))), 1).squeeze())


def gated_by_the_batch(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    mean = x.mean((0, 2, 3))  # one dimension
    return head(net, net.b(x * (net.gate(mean).sigmoid() + mean * net.gain).view(1, -1, 1, 1)))


def row_by_row(net: Net, x: Tensor) -> Tensor:
    return torch.stack([net.fc(row) for row in net.b(F.relu(net.a(x))).mean((2, 3))])


def noisy(net: Net, x: Tensor) -> Tensor:
    y = head(net, net.b(F.relu(net.a(x))))
    return y + torch.randn_like(y)


def with_more(forward: Callable[[Net, Tensor], Tensor]) -> nn.Module:
    model = three(forward, gate=nn.Linear(8, 8))
    model.gain = nn.Parameter(torch.ones(8))
    model.register_buffer("scale", torch.tensor(2.0))
    return model


def sequential() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.Flatten(), nn.Linear(216, 2))


# How many channels may go: all, but of those that meet a tensor without a batch.
FORWARDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a buffer's number": (lambda: with_more(scaled_by_a_buffer), 14),
    "squeeze": (lambda: with_more(squeezed), 14),
    "one dimension": (lambda: with_more(gated_by_the_batch), 6),
    "row by row": (lambda: with_more(row_by_row), 8),
    "random numbers": (lambda: with_more(noisy), 14),
    "graph module": (lambda: fx.symbolic_trace(sequential()), 14),
    "feature extractor": (lambda: create_feature_extractor(nn.Sequential(sequential()), {"0.4": "y"}), 14),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=fails_on_old_torch("modules within others of a GraphModule aren't known"))
        if name == "feature extractor"
        else name
        for name in FORWARDS
    ],
)
def test_forwards_as_people_write_them(name: str) -> None:
    torch.manual_seed(0)
    build, prunable = FORWARDS[name]
    model, images = build(), torch.randn(1, 3, 6, 6)
    generic(model)
    graph = ChannelGraph(model, images)
    graph = rehearse(model, graph, images, graph.prunable)
    assert graph.prunable.sum() == prunable
    check_conversion(model, graph, images)


def in_half_precision(net: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        x = net.a(x).relu() + 1
    return x.to(net.b.weight.dtype)


def test_layers_under_an_autocast_of_their_own_are_pruned() -> None:
    check_exact(behind_b(in_half_precision), {"b": nn.Conv2d(8, 6, 1)}, "a b")


def with_gradients(net: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = net.a(x)
    with torch.set_grad_enabled(net.training), torch.no_grad():
        return x.relu()


def test_layers_in_another_grad_mode_are_pruned() -> None:
    check_exact(behind_b(with_gradients), {}, "a b")
    assert torch.is_grad_enabled()


def test_grad_modes_do_nothing_meanwhile_and_all_afterwards() -> None:
    with in_one_grad_mode(), torch.no_grad():
        assert torch.is_grad_enabled()
        with ThreadPoolExecutor(1) as others:
            assert not others.submit(lambda: torch.no_grad()(torch.is_grad_enabled)()).result()
    with torch.no_grad():
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_a_buffer_that_the_forward_registers_is_no_parameter_of_the_network() -> None:
    def keeping(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        net.register_buffer("last", x.detach().amax((0, 2, 3)), persistent=False)
        return x.relu()

    check_exact(behind_b(keeping), {}, "b")


def test_autocast_does_nothing_meanwhile_and_all_afterwards() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast():
            assert layer(x).dtype is torch.float32
            with torch.autocast("cpu", torch.bfloat16):
                assert layer(x).dtype is torch.float32
        assert layer(x).dtype is torch.bfloat16
