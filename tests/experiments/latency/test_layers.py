"""Layer by layer: whose MACs, which are gone, and which width is called slow; times themselves are the machine's."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from experiments.latency import layers as tried
from experiments.latency.layers import LayerTimes, Run, layer_times, slow_width
from training import count_macs


def network(width: int, last: bool = True) -> nn.Module:
    parts = OrderedDict(
        first=nn.Conv2d(3, width, 3, padding=1),
        again=nn.Conv2d(width, width, 3, groups=width),
        up=nn.ConvTranspose2d(width, 2, 2, stride=2),
        fc=nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
    )
    if not last:
        parts["up"] = nn.Sequential(nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(3))
    model = nn.Sequential(parts).eval()
    model(torch.zeros(1, 3, 6, 6))
    return model


@pytest.mark.slow
def test_every_layer_has_its_macs_and_what_is_gone_is_none() -> None:
    base, pruned = network(4), network(3, last=False)
    found = {layer.name: layer for layer in layer_times(base, pruned, torch.zeros(2, 3, 6, 6), 0)}
    assert list(found) == ["first", "again", "up", "fc.1"]
    assert sum(layer.base.macs for layer in found.values()) == count_macs(base, torch.zeros(1, 3, 6, 6))
    assert found["first"].pruned.macs == found["first"].base.macs * 3 / 4
    assert (found["first"].base.widths, found["first"].pruned.widths) == ((3, 4), (3, 3))
    assert found["up"].pruned is None
    assert found["up"].share is None
    assert found["first"].share > 0
    assert not base[0]._forward_hooks


def test_a_share_is_times_faster_over_times_fewer_macs() -> None:
    module, images = nn.Linear(4, 4), torch.Size([1, 4])
    assert LayerTimes("a", Run(module, images, 100, 6.0), Run(module, images, 50, 4.0)).share == pytest.approx(0.75)
    assert LayerTimes("a", Run(module, images, 100, 6.0), Run(module, images, 100, 4.0)).share is None


def test_the_width_whose_rounding_saves_most_is_the_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Run(nn.Conv2d(16, 16, 3), torch.Size([1, 16, 5, 5]), 1, 1)
    pruned = Run(nn.Conv2d(13, 10, 3), torch.Size([1, 13, 5, 5]), 1, 1)

    def as_told(*seconds: float) -> None:
        def timed(calls: list, _: float) -> list[list[float]]:
            assert [tuple(call().shape) for call in calls] == [(1, made, 3, 3) for made in (10, 10, 16, 16)]
            return [[one] for one in seconds]

        monkeypatch.setattr(tried, "in_turn", timed)

    as_told(1.0, 0.99, 0.5, 0.8)
    assert slow_width(base, pruned, 0) == "makes: 13->10 as 13->16 takes 50% of the time"
    as_told(1.0, 0.7, 0.96, 0.8)
    assert slow_width(base, pruned, 0) == "reads: 13->10 as 16->10 takes 70% of the time"
    as_told(1.0, 0.96, 0.96, 0.96)
    assert slow_width(base, pruned, 0) == ""
    assert slow_width(base, base, 0) == ""
