"""Local response norms with dead channels gone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import explain
from rr.conversion import convert, rehearse
from rr.graph import ChannelGraph, LiveModel
from rr.narrowing.take_out import silent_units
from rr.weights import load_converted, save_converted
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive

SEED = torch.Generator().manual_seed(0)


def normalized(net: Net, x: Tensor) -> Tensor:
    """Norms over images, over dead channels' constants (which a compactor has to silence), and over one pixel row."""
    x = net.r(F.relu(net.a(x)))
    x = net.q(F.relu(net.n(net.d(x))))
    return head(net, F.relu(net.b(x)) + net.r(net.c(x).flatten(2)).unflatten(2, x.shape[2:]))


@pytest.mark.slow
def test_a_local_response_norm_divides_by_the_old_neighbours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norms = {"r": nn.LocalResponseNorm(4, alpha=2.0), "q": nn.LocalResponseNorm(3, alpha=3.0, beta=0.5, k=2.0)}
    depthwise = {"d": conv(12, 12, groups=12), "n": nn.BatchNorm2d(12)}
    layers = {"a": conv(3, 12), "b": conv(12, 12), "c": conv(12, 12), "fc": nn.Linear(12, 2)}
    model = generic(Net(normalized, **norms, **depthwise, **layers)).eval()
    full = copy.deepcopy(model)
    images, larger = torch.randn(2, 3, 6, 6, generator=SEED), torch.randn(1, 3, 9, 7, generator=SEED)
    for dead in (0.4, 0.4):
        graph = rehearse(model, graph := ChannelGraph(model, images), images, graph.prunable)
        units = graph.layers["a"].out_units
        assert graph.prunable[units].all(), explain(graph)
        assert not silent_units(graph, model)[units].any()  # in mid-run they stay
        alive = random_alive(graph, graph.prunable, dead, seed=1)
        insert_generic_compactors(model, graph, graph.prunable, alive)
        model, report = convert(LiveModel(model, graph), images)
        assert report.float64_difference <= 1e-12
        assert len(report.proven_at) > 2
        assert report.dropped == (~alive).sum() > 0
        assert report.parameters_after == graph.parameters(alive)
    save_converted(tmp_path / "slim.hdf5", model)
    loaded = load_converted(tmp_path / "slim.hdf5", full)
    torch.testing.assert_close(loaded(larger), model(larger))
    torch.testing.assert_close(torch.export.export(loaded, (images,)).module()(images), model(images))
