"""Which rows a conversion keeps: those over the threshold, the least width, and whole multiples."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rr import ResRepPruner, paper_config
from rr.compactors import find_compactors
from rr.conversion import alive_units, convert
from rr.graph import LiveModel
from tests.rr.networks import Networks, insert_generic_compactors, tiny, trained_tiny
from tests.rr.pruners import kill_masked_rows, masked_widths, settle, wide_pruner


@pytest.mark.slow
@pytest.mark.parametrize("name", ["src20", "smi1_cifar"])
def test_each_layer_keeps_a_channel_when_all_its_rows_are_dead(name: str, traced: Networks) -> None:
    plain, images, graph = traced[name]
    model = copy.deepcopy(plain)
    selected = graph.select("all")
    compactors = insert_generic_compactors(model, graph, selected, np.ones(graph.num_units, dtype=bool))
    with torch.no_grad():
        for compactor in compactors.values():
            compactor.pwc.weight.mul_(1e-9)
            compactor.pwc.weight[-2].mul_(5)  # the highest of the layer stays
    alive = alive_units(LiveModel(model, graph), LiveModel(model, graph).unit_norms(), 1e-5)
    for group in graph.groups:
        assert alive[group.units].sum() >= 1
        if selected[group.units].all() and len(group.units) > 2:
            assert np.flatnonzero(alive[group.units]).tolist() == [len(group.units) - 2]
    _, report = convert(LiveModel(model, graph), images)
    assert set(report.widths) == {1}
    assert report.float64_difference <= 1e-12


def test_rows_are_dropped_under_the_threshold_only() -> None:
    model, graph, images, _ = trained_tiny(dead=0.0)
    compactor = find_compactors(model)["1"]
    with torch.no_grad():
        for row, norm in ((0, 9e-6), (2, 2e-5), (3, 8e-6)):
            compactor.pwc.weight[row] *= norm / compactor.pwc.weight[row].norm()
    _, report = convert(LiveModel(model, graph), images)
    assert report.widths == (4, 8)
    assert report.dropped == 2
    assert report.largest_dropped == pytest.approx(9e-6, rel=1e-6)
    assert 0 < report.cut_difference < 1e-4
    assert convert(LiveModel(model, graph), images, threshold=3e-5)[1].widths == (3, 8)
    assert convert(LiveModel(model, graph), images, threshold=8.5e-6)[1].widths == (5, 8)


def test_a_conversion_keeps_widths_in_multiples() -> None:
    """Rows that died unmasked, and masked ones that live, leave other numbers: the largest of the dead stay."""
    pruner = wide_pruner(width_multiple=8)
    settle(pruner)
    kill_masked_rows(pruner)
    widths = masked_widths(pruner)
    compactor = pruner.compactors["a"]
    kept, forgotten = ((compactor.mask == bit).nonzero().flatten() for bit in (1, 0))
    with torch.no_grad():
        compactor.pwc.weight[kept[:3]] = (
            torch.tensor([3e-6, 1e-6, 2e-6]).view(-1, 1, 1, 1)
            * compactor.matrix.new_ones(1, len(compactor.mask), 1, 1)
            / len(compactor.mask)
        )
    alive = pruner.remaining.alive
    assert pruner.graph.widths(alive) == widths  # filled up with the three, whose norms lead those of the masked
    assert alive[pruner.graph.layers["a"].out_units[kept.numpy()]].all()
    with torch.no_grad():
        compactor.pwc.weight[forgotten[:4]] = 0.5
    assert pruner.graph.widths(pruner.remaining.alive)[0] == min(widths[0] + 8, 40)
    slim = pruner.convert()
    assert pruner.report.widths == (slim.a.out_channels, slim.b.out_channels, slim.c.out_channels)
    assert pruner.report.widths[0] == min(widths[0] + 8, 40)
    assert pruner.report.kept_for_width == pruner.report.widths[0] - (widths[0] - 3 + 4)


def test_a_conversion_keeps_the_rows_that_the_pruner_says_remain() -> None:
    """Also where the penalty has driven rows to zero that no mask may forget."""
    model, images = tiny(), torch.randn(2, 1, 8, 8)
    pruner = ResRepPruner(model, images, paper_config(flops_target=0.9, min_width=3))
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight[1:] = 0.0
    remaining = pruner.graph.widths(pruner.remaining.alive)
    pruner.convert()
    assert remaining == list(pruner.report.widths) == [3, 3]
