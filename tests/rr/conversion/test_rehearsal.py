"""Forwards with sizes of their own: found before any training, in few trials."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, explain, paper_config
from rr.conversion import rehearsal, rehearse
from rr.conversion.folding import fold
from rr.conversion.rehearsal import at_fault
from rr.graph import ChannelGraph, Group
from tests.rr.networks import Net, conv, head


def rehearsed(model: nn.Module) -> ChannelGraph:
    """Its graph after a rehearsal; by the rules alone, all of `a` might go."""
    images = torch.randn(2, 1, 4, 4)
    graph = ChannelGraph(model, images)
    assert graph.prunable[graph.layers["a"].out_units].all()
    return rehearse(model, graph, images, graph.prunable)


def test_layers_before_a_size_of_the_forwards_own_stay(caplog: pytest.LogCaptureFixture) -> None:
    """`view(-1, 96)` holds for six channels alone, `view(len(x), -1)` for any number: known before training."""

    def build(size: int) -> Net:
        return Net(
            lambda net, x: net.fc(F.relu(net.b(F.relu(net.a(x)))).view(len(x), size)),
            a=conv(1, 5),
            b=conv(5, 6),
            fc=nn.Linear(6 * 16, 3),
        )

    images = torch.randn(2, 1, 4, 4)
    pruner = ResRepPruner(build(96), images, paper_config(flops_target=0.8))
    assert set(pruner.compactors) == {"a"}
    assert "b stays as wide as it is: its forward fails with fewer channels" in caplog.text
    assert "its forward fails with fewer channels" in explain(pruner.graph)
    model = build(-1)
    before = copy.deepcopy(model.state_dict())
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.5))
    assert set(pruner.compactors) == {"a", "b"}
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    assert (pruner.unmasked.alive).all()


def test_a_forward_that_takes_other_channels_when_there_are_fewer_is_found_out() -> None:
    """A slice to a number fails for no width: it would silently take the wrong half."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.fc(torch.cat([net.a(x)[:, 4:], net.a(x)[:, :4]], 1).mean((2, 3)) * net.b(x).mean((2, 3))),
        a=conv(1, 8),
        b=conv(1, 8),
        fc=nn.Linear(8, 3),
    )
    graph = rehearsed(model)
    assert not graph.prunable[graph.layers["a"].out_units].any()


def test_a_constant_that_only_these_values_leave_has_its_own_reason() -> None:
    """A shift by two vectors, the one less the other: what is left of it depends on which is larger."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: head(net, net.b(F.relu(net.a(x) * net.scale + (net.shift - net.mean * net.scale)))),
        a=conv(1, 8),
        b=conv(8, 4),
        scale=nn.Parameter(0.5 + torch.rand(8, 1, 1)),
        shift=nn.Parameter(1 + torch.rand(8, 1, 1)),
        mean=nn.Parameter(0.1 * torch.rand(8, 1, 1)),
        fc=nn.Linear(4, 3),
    )
    images = torch.randn(2, 1, 4, 4)
    graph = ChannelGraph(model, images)
    assert graph.prunable[graph.layers["a"].out_units].any()
    graph = rehearse(model, graph, images, graph.prunable)
    reasons = {graph.reasons[int(unit)] for unit in graph.layers["a"].out_units}
    assert reasons == {"when dead, a constant that padding cuts at the border reaches b"}


class AsksForItsNorm(nn.Module):
    """Goes another way where no batch norm stands in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(5, 6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if isinstance(self.bn, nn.BatchNorm2d) else x


def test_a_forward_that_asks_for_a_folded_norm_is_told_so() -> None:
    model = Net(lambda net, x: head(net, net.n(F.relu(net.a(x)))), a=conv(1, 5), n=AsksForItsNorm(), fc=nn.Linear(6, 3))
    graph = ChannelGraph(model.eval(), torch.randn(2, 1, 4, 4))
    graph = rehearse(model, graph, torch.randn(2, 1, 4, 4), graph.prunable)
    assert not graph.prunable.any()
    assert "does something else once layers are folded: let the forward ask nothing of its modules" in explain(graph)
    assert "take sizes from tensors" not in explain(graph)


def test_what_a_gain_of_zeros_hides_is_found_out() -> None:
    """As a network begins, a block adds nothing: what is wrong in it would show after training alone."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.fc((x + net.gain * net.b(net.a(x) * net.a(x).shape[1] ** -0.5)).mean((2, 3))),
        a=conv(1, 8),
        b=conv(8, 1),
        fc=nn.Linear(1, 3),
    )
    model.gain = nn.Parameter(torch.zeros(()))
    graph = rehearsed(model)
    assert not graph.prunable[graph.layers["a"].out_units].any()
    assert "let no number depend on how many channels there are" in explain(graph)
    assert model.gain == 0


def test_two_layers_whose_widths_must_be_equal_are_found_out() -> None:
    """Half of each would do: the first one's channels are viewed as so many as the other one has."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.fc((net.b(net.a(x).view(net.c(x).shape)) * net.d(net.c(x))).mean((2, 3))),
        a=conv(1, 8),
        b=conv(8, 6),
        c=conv(1, 8),
        d=conv(8, 6),
        fc=nn.Linear(6, 3),
    )
    graph = rehearsed(model)
    assert not graph.prunable[graph.layers["a"].out_units].any()
    assert graph.prunable[graph.layers["b"].out_units].all()


def test_blocks_that_are_alike_are_rehearsed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight blocks' first layers all are at fault: halves of an order by kind are fewer than by block."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fixed, self.free, self.out = conv(8, 8), conv(8, 8), conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            middle = self.fixed(x).view(-1, 8, *x.shape[2:])
            return x + self.out(self.free(middle).relu())

    folds = []
    monkeypatch.setattr(rehearsal, "fold", lambda *arguments: folds.append(1) or fold(*arguments))
    model, images = nn.Sequential(conv(1, 8), *(Block() for _ in range(8))), torch.randn(2, 1, 4, 4)
    graph = ChannelGraph(model, images)
    graph = rehearse(model, graph, images, graph.select())
    for block in range(1, 9):
        assert not graph.prunable[graph.layers[f"{block}.fixed"].out_units].any()
        assert graph.prunable[graph.layers[f"{block}.free"].out_units].all()
    assert len(folds) <= 2 + 2 * 8  # all, none, two halves, then what is in one of them


def test_the_rehearsal_blames_few_groups_in_few_trials() -> None:
    groups = [Group(np.array([unit]), (f"layer{unit}",)) for unit in range(64)]
    trials = []

    def failure(tried: Sequence[Group]) -> str | None:
        trials.append(tried)
        return "no" if any(group.units[0] in (3, 40) for group in tried) else None

    assert [(int(group.units[0]), reason) for group, reason in at_fault(groups, failure)] == [(3, "no"), (40, "no")]
    assert len(trials) < 30
    assert at_fault(groups[:2], lambda tried: "both" if len(tried) == 2 else None) == [
        (groups[0], "both"),
        (groups[1], "both"),
    ]
