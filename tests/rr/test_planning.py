"""What a pruner is given is checked before anything is traced, and what can't be pruned is said with its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rr import InputError, ResRepPruner, fast_config, paper_config
from tests.rr.networks import Net, conv, generic, head, tiny

IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CONFIG = paper_config(flops_target=0.5)


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ResRepPruner("a name", IMAGES, CONFIG), "must be an nn.Module with parameters, not str"),
        (lambda: ResRepPruner(IMAGES, tiny(), CONFIG), "must be an nn.Module with parameters, not Tensor"),
        (lambda: ResRepPruner(nn.ReLU(), IMAGES, CONFIG), "must be an nn.Module with parameters, not ReLU"),
        (lambda: ResRepPruner(tiny(), IMAGES, "fast"), r"what fast_config\(\.\.\.\) or .* not str"),
        (lambda: ResRepPruner(tiny(), {"x": 1.0}, CONFIG), "example_inputs must be a tensor"),
        (lambda: ResRepPruner(tiny(), IMAGES, CONFIG).attach(None), r"NoneType isn't a torch\.optim\.Optimizer"),
        (lambda: ResRepPruner(tiny(), IMAGES, CONFIG).load_state_dict({"a": 1}), "isn't the state of a pruner"),
        (lambda: ResRepPruner(Net(lambda net, x: fails(x), a=conv(1, 4)), IMAGES, CONFIG), r"inputs \(boom\)"),
        (lambda: fast_config(flops_target="50%"), "flops_target must be a number, not '50%'"),
        (lambda: fast_config(flops_target=0.5).for_run("100", lr=0.1), "total_steps and lr must be numbers"),
    ],
)
def test_what_cannot_be_meant_is_said(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_where_nothing_can_go_the_reasons_are_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(InputError, match="no prunable channels are left: 1: a channel of the network's output"):
        ResRepPruner(model, IMAGES, CONFIG)
    summed = Net(lambda net, x: head(net, net.b(net.a(x).cumsum(1))), a=conv(1, 8), b=conv(8, 8), fc=nn.Linear(8, 3))
    with pytest.raises(InputError, match=r"can't be reached.*have to stay \(a: passes through cumsum"):
        ResRepPruner(summed, IMAGES, paper_config(flops_target=0.2))


def with_a_scale(net: Net, x: Tensor, scale: float = 1.0, mask: Tensor | None = None, flag: bool = True) -> Tensor:
    x = net.n(net.d(net.a(x))).relu() * scale
    x = x if mask is None else x * mask
    return head(net, net.b(x) if flag else net.b(x).relu())


class WithKeywords(Net):
    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.function(self, *args, **kwargs)


@pytest.mark.parametrize(
    "inputs",
    [
        (IMAGES, 2.0),
        {"x": IMAGES, "scale": 2.0},
        (IMAGES, 2.0, None, False),
        {"x": IMAGES, "mask": None, "flag": True},
        (IMAGES, 2, torch.ones(2, 1, 8, 8)),
    ],
    ids=str,
)
def test_numbers_and_switches_among_the_inputs(inputs: object) -> None:
    """What dead channels leave is scaled by a number that may be another one at the next call."""
    torch.manual_seed(0)
    modules = {"a": conv(1, 8), "d": conv(8, 8, groups=8), "n": nn.BatchNorm2d(8), "b": nn.Conv2d(8, 8, 1)}
    model = generic(WithKeywords(with_a_scale, **modules, fc=nn.Linear(8, 3))).eval()
    pruner = ResRepPruner(model, inputs, paper_config(flops_target=0.9))
    pruner.live.zero_dead_rows(~pruner.selected | (torch.arange(pruner.graph.num_units) % 2 == 0).numpy())
    slim = pruner.convert()
    assert slim.a.out_channels == 4
    with torch.no_grad():
        for scale in (2.0, 3.0, -0.5) if "2.0" in str(inputs) else (1.0,):
            expected, found = model(IMAGES, scale), slim(IMAGES, scale)
            if "False" not in str(inputs):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pruner_can_be_copied_and_shown() -> None:
    pruner = ResRepPruner(tiny().bfloat16(), IMAGES.bfloat16(), CONFIG)
    assert "1.0000 of the MACs" in repr(pruner)
    twin = copy.deepcopy(pruner.graph)
    assert twin is pruner.graph
    assert "18 of 18 units, 1.0000 of the MACs" in repr(pruner.unmasked)
