"""What a network in training has of its graph."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from rr import InputError
from rr.graph import LiveModel
from tests.rr.networks import Networks, insert_generic_compactors, trained_tiny


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


@pytest.mark.parametrize(
    "put_on",
    [
        lambda model: parametrizations.weight_norm(model[0]),
        lambda model: parametrizations.spectral_norm(model[3]),
        lambda model: prune.l1_unstructured(model[1], "weight", 0.3),
        lambda model: prune.l1_unstructured(model[1].compactor.pwc, "weight", 0.3),
    ],
)
def test_a_weight_that_is_computed_since_the_pruner_was_built_is_told(put_on: Callable[[nn.Module], object]) -> None:
    """It ended in torch's own errors, at the conversion."""
    model, graph, _, _ = trained_tiny()
    live = LiveModel(model, graph)
    live.check_modules(graph.prunable)
    put_on(model)
    with pytest.raises(InputError, match=r"is no parameter any more, .* remove what came later"):
        live.check_modules(graph.prunable)


def test_a_weight_that_is_plain_again_is_taken() -> None:
    model, graph, _, _ = trained_tiny()
    live = LiveModel(model, graph)
    prune.remove(prune.l1_unstructured(model[0], "weight", 0.3), "weight")
    live.check_modules(graph.prunable)
