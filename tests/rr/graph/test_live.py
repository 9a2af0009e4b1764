"""What a network in training has of its graph."""

from __future__ import annotations

import copy

import numpy as np
import torch

from rr.graph import LiveModel
from tests.rr.networks import Networks, insert_generic_compactors


def test_norms_of_units_with_several_rows(traced: Networks) -> None:
    """Root mean square over the rows of all layers that add into a stream; infinite where one has no compactor."""
    plain, _, graph = traced["src20"]
    model = copy.deepcopy(plain)
    everything = np.ones(graph.num_units, dtype=bool)
    compactors = insert_generic_compactors(model, graph, graph.select("all"), everything)
    hosts = ["stage1.conv1", *(f"stage1.block{block}.conv2" for block in range(3))]
    rows = torch.stack([compactors[host].matrix.double().norm(dim=1) for host in hosts])
    units = graph.layers["stage1.conv1.conv"].out_units
    np.testing.assert_allclose(
        LiveModel(model, graph).unit_norms()[units], rows.square().mean(0).sqrt().detach(), rtol=1e-12
    )
    without = LiveModel(model, graph)
    del without.compactors["stage1.block1.conv2"]
    assert np.isinf(without.unit_norms()[units]).all()
