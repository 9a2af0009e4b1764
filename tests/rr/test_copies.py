"""Copies of models that keep more than parameters: histories are left out, what exists once is shared."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, ResRepPruner, paper_config
from rr.copies import copy_of
from tests.rr.networks import Net, conv, generic, head


class Writer:
    """Like a log's writer: its parts belong together, so that it is shared as a whole."""

    def __init__(self) -> None:
        self.lock, self.lines = threading.Lock(), ["a"]


class Keeping(nn.Module):
    """A layer with all that users keep on layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.lock, self.file, self.writer = threading.RLock(), io.FileIO(0, closefd=False), Writer()
        self.numbers = (number for number in range(3))
        self.listed = {"locks": [threading.Lock()], "tensors": [torch.ones(2)]}
        self.unregistered = [nn.Linear(2, 2)]
        self.activity = self.layer.weight.square().sum()
        self.register_buffer("moving", self.layer.weight.mean(0) + 0)
        self.seen: list[int] = []
        self.layer.register_forward_hook(self.see)

    def see(self, *_: object) -> None:
        self.seen.append(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_histories_are_left_out_and_what_exists_once_is_shared() -> None:
    model = Keeping()
    twin = copy_of(model)
    for name in ("lock", "file", "writer", "numbers"):
        assert getattr(twin, name) is getattr(model, name)
    assert twin.listed["locks"] is not model.listed["locks"]
    assert twin.listed["locks"][0] is model.listed["locks"][0]
    assert twin.listed["tensors"][0] is not model.listed["tensors"][0]
    assert twin.unregistered[0].weight is not model.unregistered[0].weight
    for value in (twin.activity, twin.moving):
        assert value.grad_fn is None
    assert torch.equal(twin.activity, model.activity)
    assert model.activity.grad_fn is not None
    twin(torch.ones(1, 2))
    assert (twin.seen, model.seen) == ([1], [])  # the hook is bound to the copy


def test_what_cannot_be_copied_is_named() -> None:
    class Odd:
        def __deepcopy__(self, memo: object) -> Odd:
            raise RuntimeError("there is only one of me")

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].register_forward_hook(lambda *_: None)
    model[1].odd = {"a": Odd()}
    with pytest.raises(InputError, match=r"'odd' of 1 \(dict\) can't \(there is only one of me\)"):
        copy_of(model)


def activity_kept(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    if net.training:
        net.activity = x.abs().mean()
    return head(net, F.relu(net.b(x)))


def normed_by_hooks(net: Net, x: Tensor) -> Tensor:
    return head(net, F.relu(net.b(F.relu(net.a(x)))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: Net(activity_kept, a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 3)),
        lambda: Net(normed_by_hooks, a=nn.utils.weight_norm(conv(3, 8)), b=conv(8, 8), fc=nn.Linear(8, 3)),
        lambda: Net(activity_kept, a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 3), kept=Keeping()),
    ],
    ids=["an activity for the loss", "weight_norm", "locks and files"],
)
@pytest.mark.parametrize("used_before", [False, True])
def test_models_that_keep_such_things_are_pruned_and_converted(
    build: Callable[[], nn.Module], used_before: bool
) -> None:
    torch.manual_seed(0)
    model, images = generic(build()), torch.randn(2, 3, 8, 8)
    if used_before:
        model.train()(images)
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.9))
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.01))
    pruner.attach(optimizer)
    (model.train()(images).square().mean() + getattr(model, "activity", 0.0)).backward()
    optimizer.step()
    pruner.live.zero_dead_rows(~pruner.selected | (torch.arange(pruner.graph.num_units) % 2 == 0).numpy())
    slim = pruner.convert()
    assert pruner.report.macs_ratio < 0.9
    assert slim.b.out_channels == 4
