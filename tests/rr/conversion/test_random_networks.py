"""Random small CNNs, random compactors, random dead units: whatever the graph lets go converts exactly.

RESREP_EXAMPLES=2000 python -m pytest tests/rr/conversion/test_random_networks.py
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from rr.conversion import convert, rehearse, rehearse_vanishing
from rr.graph import ChannelGraph, LiveModel
from rr.graph.vanishing import without_unread
from rr.weights import fit_shapes, load_strict
from tests.rr.networks import generic, insert_generic_compactors, random_alive
from tests.rr.random_networks import EXAMPLES, RandomNet


@pytest.mark.long
@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**16), dead=st.sampled_from([0.2, 0.5, 0.9]))
def test_what_may_go_goes_exactly(data: st.DataObject, seed: int, dead: float) -> None:
    torch.manual_seed(seed)
    model = generic(data.draw(st.composite(RandomNet)())).eval()
    images = torch.randn(2, 3, 8, 8)
    graph = ChannelGraph(model, images)
    assert set(range(graph.num_units)) >= set(graph.reasons)
    selected = graph.prunable
    if not selected.any():
        event("nothing prunable")
        return
    graph = rehearse(model, graph, images, selected)
    assert (graph.prunable == selected).all()  # these networks have no sizes of their own: the rules alone hold
    alive = random_alive(graph, selected, dead, seed)
    vanishing = rehearse_vanishing(model, graph, images, selected)
    for group, vanishes in zip(graph.groups, vanishing, strict=True):
        if vanishes and data.draw(st.booleans()):
            alive[group.units] = False
            event("a layer is gone")
    alive = without_unread(graph, alive, selected)
    plain = copy.deepcopy(model)
    insert_generic_compactors(model, graph, selected, alive)
    slim, report = convert(LiveModel(model, graph), images, min_width=np.where(vanishing, 0, 1))
    assert report.float64_difference <= 1e-10
    assert report.macs_after == graph.macs(alive)
    again = ChannelGraph(slim, images)
    assert again.macs(np.ones(again.num_units, dtype=bool)) == report.macs_after
    fit_shapes(plain, slim.state_dict())
    load_strict(plain, slim.state_dict(), "the converted network")
    with torch.no_grad():
        assert torch.equal(plain(images), slim(images))
    event("channels gone" if report.dropped else "none gone")
